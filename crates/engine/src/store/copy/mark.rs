//! The marks of both places of a copy: who bears one is not changed meanwhile, or not served yet.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CopyError;
use crate::file::write_durably;
use crate::store::StoreError;
use crate::store::postgres::Connection;

/// The file that bears it in a data folder.
const FILE: &str = "copy.json";

/// Where it is in a database.
const PLACE: &str = "table copy_mark of the database";

/// Whether a place is copied elsewhere, or is a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(in crate::store) enum Mark {
    /// Neither.
    #[default]
    Free,
    /// It is copied elsewhere.
    Original {
        /// Tells this copy from all others.
        id: String,
        /// Where to, for people.
        to: String,
        /// Whether that goes on in the place of this.
        is_done: bool,
    },
    /// It is a copy.
    Copy {
        /// As in the original.
        id: String,
        /// Where from, for people.
        from: String,
        /// Whether it is whole.
        is_done: bool,
    },
}

/// What is to be done, as two marks say it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Begin; the second place must be empty.
    Begin,
    /// Go on with what was begun.
    GoOn,
    /// The copy is whole.
    Done,
}

impl Plan {
    /// From the marks of both places; the second is called so.
    pub(super) fn of(here: &Mark, there: &Mark, place: &Place<'_>, to: &str) -> Result<Plan, CopyError> {
        match (here, there) {
            (Mark::Original { id, .. }, Mark::Copy { id: copied, is_done, .. }) if id == copied => {
                Ok(if *is_done { Plan::Done } else { Plan::GoOn })
            }
            _ => here.may_begin(place, to).map(|()| Plan::Begin),
        }
    }
}

/// What bears a mark, for people.
pub(in crate::store) enum Place<'a> {
    /// A data folder.
    Folder(&'a Path),
    /// The database that is spoken to.
    Database,
}

impl Place<'_> {
    /// How its mark is taken away.
    fn unmark(&self) -> String {
        match self {
            Place::Folder(folder) => format!("remove {}", folder.join(FILE).display()),
            Place::Database => "let psql say UPDATE copy_mark SET mark = ''".to_owned(),
        }
    }
}

impl Mark {
    /// Refuses to copy this to a place of that name from the beginning: it was copied, or that is under way, or this
    /// is itself not whole. That name again: killed before the other place was marked.
    pub(in crate::store) fn may_begin(&self, place: &Place<'_>, to: &str) -> Result<(), CopyError> {
        match self {
            Mark::Original { to, is_done: true, .. } => Err(CopyError::Elsewhere(to.clone())),
            Mark::Original { to: other, .. } if other != to => {
                Err(CopyError::UnderWay { to: other.clone(), unmark: place.unmark() })
            }
            Mark::Copy { is_done: false, .. } => Ok(self.check(place)?),
            _ => Ok(()),
        }
    }

    /// Refuses to change a database that is copied elsewhere.
    pub(in crate::store) fn may_change(&self) -> Result<(), StoreError> {
        match self {
            Mark::Original { .. } => self.check(&Place::Database),
            Mark::Free | Mark::Copy { .. } => Ok(()),
        }
    }

    /// Refuses what must not be served: an original, and a copy that is not whole.
    pub(in crate::store) fn check(&self, place: &Place<'_>) -> Result<(), StoreError> {
        let this = match place {
            Place::Folder(folder) => folder.display().to_string(),
            Place::Database => "this database".to_owned(),
        };
        let unmark = place.unmark();
        let why = match self {
            Mark::Free | Mark::Copy { is_done: true, .. } => return Ok(()),
            Mark::Original { to, is_done: false, .. } => format!(
                "{this} is being copied to {to} and does not change meanwhile: run `card4e store copy` again, which goes \
                 on where it was interrupted, or says that the copy is whole; to give the copy up instead, see that \
                 nobody serves it, then {unmark}"
            ),
            Mark::Original { to, is_done: true, .. } => format!(
                "{this} was copied to {to} and goes on there: served here too, the same credits would be spent twice. \
                 Serve that one, after `card4e store copy` again if it is not whole; to go on here after all, without \
                 what was answered there, {unmark}"
            ),
            Mark::Copy { from, .. } => format!(
                "{this} is a copy of {from} that is not whole: run `card4e store copy` again, which goes on where it was \
                 interrupted"
            ),
        };
        Err(StoreError::Copying(why))
    }

    /// Of a place that is copied, from the beginning.
    pub(in crate::store) fn original(id: &str, to: &str) -> Mark {
        Mark::Original { id: id.to_owned(), to: to.to_owned(), is_done: false }
    }

    /// Of a place that is a copy, from the beginning.
    pub(super) fn copy(id: &str, from: &str) -> Mark {
        Mark::Copy { id: id.to_owned(), from: from.to_owned(), is_done: false }
    }

    /// What tells the copy from all others.
    pub(super) fn id(&self) -> String {
        match self {
            Mark::Free => String::new(),
            Mark::Original { id, .. } | Mark::Copy { id, .. } => id.clone(),
        }
    }

    /// That another mark, as it is now, is still of this copy: somebody may have given it up.
    pub(in crate::store) fn is_still(&self, now: &Mark) -> Result<(), CopyError> {
        match (self, now) {
            (Mark::Original { id, .. }, Mark::Original { id: now, .. })
            | (Mark::Copy { id, .. }, Mark::Copy { id: now, .. })
                if id == now =>
            {
                Ok(())
            }
            _ => Err(CopyError::GivenUp),
        }
    }

    /// The same once the copy is whole.
    pub(in crate::store) fn done(mut self) -> Mark {
        if let Mark::Original { is_done, .. } | Mark::Copy { is_done, .. } = &mut self {
            *is_done = true;
        }
        self
    }

    /// That of a data folder.
    pub(in crate::store) fn of_folder(folder: &Path) -> Result<Mark, StoreError> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => read(&text, FILE),
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => Ok(Mark::Free),
            Err(cause) => Err(StoreError::Folder { path, cause }),
        }
    }

    /// Puts it into a data folder.
    pub(super) fn keep_in(&self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(FILE);
        write_durably(&path, self.text().as_bytes()).map_err(|cause| StoreError::Folder { path, cause })
    }

    /// That of a database, locked until the transaction under way ends.
    pub(in crate::store) async fn of_database(connection: &Connection) -> Result<Mark, StoreError> {
        let find = "SELECT mark FROM copy_mark FOR UPDATE";
        let row = connection.client.query_opt(find, &[]).await.map_err(StoreError::Database)?;
        read(row.as_ref().map_or("", |row| row.get(0)), PLACE)
    }

    /// The same without a lock, for whoever holds another that [`Nodes::mark_original`] takes too.
    ///
    /// [`Nodes::mark_original`]: crate::store::Nodes::mark_original
    pub(in crate::store) async fn seen(connection: &Connection) -> Result<Mark, StoreError> {
        let run = async {
            let find = connection.prepared("SELECT mark FROM copy_mark").await?;
            connection.client.query_opt(&find, &[]).await
        };
        let row = run.await.map_err(StoreError::Database)?;
        read(row.as_ref().map_or("", |row| row.get(0)), PLACE)
    }

    /// Puts it into a database, in the transaction under way.
    pub(in crate::store) async fn keep(&self, connection: &Connection) -> Result<(), StoreError> {
        let keep =
            "INSERT INTO copy_mark VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET mark = excluded.mark";
        let kept = connection.client.execute(keep, &[&self.text()]).await;
        kept.map(drop).map_err(StoreError::Database)
    }

    fn text(&self) -> String {
        // Plain text members: nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn read(text: &str, file: &'static str) -> Result<Mark, StoreError> {
    if text.is_empty() {
        return Ok(Mark::Free);
    }
    serde_json::from_str(text).map_err(|cause| StoreError::Damaged { file, what: cause.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(id: &str, is_done: bool) -> Mark {
        Mark::Original { id: id.into(), to: "there".into(), is_done }
    }

    fn copy(id: &str, is_done: bool) -> Mark {
        Mark::Copy { id: id.into(), from: "here".into(), is_done }
    }

    #[test]
    fn what_is_done_next_is_told_by_both_marks() {
        let plan = |here, there| Plan::of(&here, &there, &Place::Database, "there");
        assert_eq!(plan(Mark::Free, Mark::Free).unwrap(), Plan::Begin);
        assert_eq!(plan(original("a", false), copy("a", false)).unwrap(), Plan::GoOn);
        // Killed between the two: only the first mark is there.
        assert_eq!(plan(original("a", false), Mark::Free).unwrap(), Plan::Begin);
        // Killed at the end: neither was served since.
        assert_eq!(plan(original("a", true), copy("a", false)).unwrap(), Plan::GoOn);
        assert_eq!(plan(original("a", true), copy("a", true)).unwrap(), Plan::Done);
        // To another place while the first is under way.
        let elsewhere = Plan::of(&original("a", false), &Mark::Free, &Place::Database, "elsewhere");
        assert!(matches!(elsewhere, Err(CopyError::UnderWay { to, .. }) if to == "there"));
        // Back again, or on to a third place.
        assert_eq!(plan(copy("a", true), original("a", true)).unwrap(), Plan::Begin);
        assert!(
            matches!(plan(original("a", true), Mark::Free), Err(CopyError::Elsewhere(to)) if to == "there")
        );
        assert!(matches!(plan(original("a", true), copy("b", true)), Err(CopyError::Elsewhere(_))));
        assert!(matches!(plan(copy("a", false), Mark::Free), Err(CopyError::Store(StoreError::Copying(_)))));
    }

    #[test]
    fn only_what_is_whole_and_nowhere_else_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Folder(dir.path());
        let is_served = |mark: &Mark| {
            mark.keep_in(dir.path()).unwrap();
            Mark::of_folder(dir.path()).unwrap().check(&place).map_err(|error| error.to_string())
        };
        assert_eq!(Mark::of_folder(dir.path()).unwrap().check(&place).ok(), Some(()));
        assert_eq!(is_served(&copy("a", true)), Ok(()));
        assert!(is_served(&copy("a", false)).unwrap_err().contains("not whole"));
        assert!(is_served(&original("a", false)).unwrap_err().contains("is being copied to there"));
        assert!(is_served(&original("a", true)).unwrap_err().contains("spent twice"));
    }
}
