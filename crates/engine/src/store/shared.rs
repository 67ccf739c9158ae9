//! What nodes share besides their ledgers: who is there, balances, attempts, stored answers, what was spent on
//! providers, keys, jobs.
//!
//! Each verb is one transaction and can be repeated; what takes credits checks this node's right first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::StoreError;
use super::accounts::{Looked, Wanted, look_up, sorted};
use super::copy::{CopyError, Mark, Marked};
use super::ledger::{ADD_SPENT, ALIVE_MS, FENCE, RECALL, SHARED_SCHEMA, read_answer};
use super::node::{Lease, SharedStore, new_epoch};
use super::postgres::{Connection, Database, Session, both};
use crate::clock::Millis;
use crate::ledger::{Credits, StoredAnswer};
use crate::limit::COUNTER_BYTES;
use crate::spending::{Caps, Sum, SumOf, periods};
use crate::vault::KeyedRef;

/// Whose credits.
pub(crate) type PurseId = (i16, i64);

/// Names of purses.
pub(crate) struct Purse;

impl Purse {
    /// What an application has.
    pub(crate) fn application(id: u32) -> PurseId {
        (0, i64::from(id))
    }

    /// What a credential may be charged in all.
    pub(crate) fn credential(id: u32) -> PurseId {
        (1, i64::from(id))
    }
}

/// What a node has of a purse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// Whose.
    pub(crate) purse: PurseId,
    /// Taken and not charged yet, millionths of a credit; negative where nothing limited it.
    pub(crate) remains: i64,
    /// What others have, and nobody.
    pub(crate) elsewhere: i64,
    /// Charged by others since the beginning.
    pub(crate) charged_elsewhere: i64,
}

/// What is known about questions once their attempts are counted.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// After this attempt, in the order they were asked.
    pub(crate) counts: Vec<i64>,
    /// Runs of mismatches, in the order they were asked.
    pub(crate) runs: Vec<i64>,
    /// Accounts, in the order they were wanted.
    pub(crate) looked: Vec<Looked>,
}

/// A counter of a day.
pub(crate) type Counter = (i32, [u8; COUNTER_BYTES]);

/// A session about what nodes share.
#[derive(Debug)]
pub(crate) struct Nodes {
    session: Session,
}

impl Nodes {
    /// Makes the tables if need be.
    pub(crate) fn open(database: &Arc<Database>) -> Result<Nodes, StoreError> {
        let mut session = Session::new(Arc::clone(database))?;
        session.migrate(&SHARED_SCHEMA)?;
        Ok(Nodes { session })
    }

    /// Another session.
    pub(crate) fn again(database: &Arc<Database>) -> Result<Nodes, StoreError> {
        Ok(Nodes { session: Session::new(Arc::clone(database))? })
    }

    /// That this database is neither copied elsewhere nor half a copy.
    pub(crate) fn is_to_be_served(&mut self) -> Result<(), StoreError> {
        self.session.attempt(async |connection| Mark::of_database(connection).await?.check(&Marked::Database))
    }

    /// Whether this database is copied elsewhere, or is a copy.
    pub(in crate::store) fn copy_mark(&mut self) -> Result<Mark, StoreError> {
        self.session.attempt(async |connection| Mark::of_database(connection).await)
    }

    /// Says that the copy of this database is whole, if its mark is still of that copy.
    pub(in crate::store) fn end_original(&mut self, mark: &Mark) -> Result<(), CopyError> {
        let ended = self.session.transaction(async |connection| {
            if let Err(given_up) = mark.is_still(&Mark::of_database(connection).await?) {
                return Ok(Err(given_up));
            }
            mark.clone().done().keep(connection).await.map(Ok)
        });
        ended?
    }

    /// Marks a database with nothing in it as a copy that is not whole, with node 0 of this name in it.
    pub(in crate::store) fn begin_copy(&mut self, mark: &Mark, node: &str) -> Result<(), CopyError> {
        let begun = self.session.transaction(async |connection| {
            Mark::of_database(connection).await?;
            mark.keep(connection).await?;
            let put = "INSERT INTO node SELECT 0, $1, $2, $3, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM node)";
            let put = connection.client.execute(put, &[&node, &new_epoch(), &new_epoch()]).await;
            match put.map_err(StoreError::Database)? {
                // Somebody was faster, and everything goes back.
                0 => Err(StoreError::ChangedElsewhere),
                _ => Ok(()),
            }
        });
        begun.map_err(|error| match error {
            StoreError::ChangedElsewhere => CopyError::NotEmpty("the database".into()),
            error => error.into(),
        })
    }

    /// Gives a database its keys, and says that the copy in it is whole, if its mark is still of that copy.
    pub(in crate::store) fn end_copy(
        &mut self,
        mark: &Mark,
        keys: &[u8],
        day_key: Option<&[u8]>,
    ) -> Result<(), CopyError> {
        let day_key = day_key.and_then(|kept| kept.split_first_chunk::<4>());
        let ended = self.session.transaction(async |connection| {
            if let Err(given_up) = mark.is_still(&Mark::of_database(connection).await?) {
                return Ok(Err(given_up));
            }
            let run = async {
                let client = &connection.client;
                client.execute("INSERT INTO key_ring VALUES (1, $1)", &[&keys]).await?;
                if let Some((day, sealed)) = day_key {
                    let day = u32::from_be_bytes(*day) as i32;
                    client.execute("INSERT INTO day_key VALUES ($1, $2)", &[&day, &sealed]).await?;
                }
                Ok(())
            };
            run.await.map_err(StoreError::Database)?;
            mark.clone().done().keep(connection).await.map(Ok)
        });
        ended?
    }

    /// Marks a database with these keys as copied elsewhere from now on: no node has a place in it any more, nor
    /// takes one. One that stood still and wakes up finds its place gone.
    pub(in crate::store) fn mark_original(
        &mut self,
        id: &str,
        to: &str,
        keys: &[u8],
    ) -> Result<(), CopyError> {
        let mark = Mark::original(id, to);
        let marked = self.session.transaction(async |connection| {
            let rows =
                async |sql: &str| connection.client.query(sql, &[]).await.map_err(StoreError::Database);
            if let Err(refused) = Mark::of_database(connection).await?.may_begin(&Marked::Database, to) {
                return Ok(Err(refused));
            }
            // Whoever changes accounts, or writes a block, is waited for; who comes later sees the mark, or is fenced.
            rows("SELECT 1 FROM account_state FOR UPDATE").await?;
            let nodes = "SELECT name, alive_until >= (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT
                FROM node ORDER BY name FOR UPDATE";
            let nodes = rows(nodes).await?;
            let live: Vec<&str> = nodes.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect();
            if !live.is_empty() {
                return Ok(Err(CopyError::NodesLive(live.join(", "))));
            }
            if !rows("SELECT 1 FROM block WHERE node <> 0 LIMIT 1").await?.is_empty() {
                return Ok(Err(CopyError::SeveralTrees));
            }
            if !rows("SELECT 1 FROM erasure").await?.is_empty() {
                return Ok(Err(CopyError::UNERASED));
            }
            let ring = rows("SELECT sealed FROM key_ring").await?;
            if ring.first().is_none_or(|row| row.get::<_, &[u8]>(0) != keys) {
                return Err(StoreError::OtherKeys);
            }
            let fence = "UPDATE node SET epoch = $1, holder = $2";
            let fenced = connection.client.execute(fence, &[&new_epoch(), &new_epoch()]).await;
            fenced.map_err(StoreError::Database)?;
            mark.keep(connection).await.map(Ok)
        });
        marked?
    }

    /// The newest day that has a key, and that key, sealed.
    pub(in crate::store) fn newest_day_key(&mut self) -> Result<Option<(u32, Vec<u8>)>, StoreError> {
        let find = "SELECT day, sealed FROM day_key ORDER BY day DESC LIMIT 1";
        let row = self.session.read(async |connection| connection.client.query_opt(find, &[]).await)?;
        Ok(row.map(|row| (row.get::<_, i32>(0) as u32, row.get(1))))
    }

    /// Takes the place of the node of this name, or a new one. A process that had it is fenced from now on.
    /// It works with this version of the key ring.
    pub(crate) fn take_place(&mut self, store: &SharedStore, keys: i64) -> Result<Lease, StoreError> {
        let (holder, epoch) = (new_epoch(), new_epoch());
        let take = "
            INSERT INTO node
            SELECT coalesce(max(number), 0) + 1, $1, $2, $3,
                (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + $4, $5 FROM node
            ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch,
                alive_until = excluded.alive_until, keys = excluded.keys
            RETURNING number";
        loop {
            let taken = self.session.transaction(async |connection: &Connection| {
                // Locked until the commit: whoever copies this database sees either this node or no node.
                Mark::of_database(connection).await?.check(&Marked::Database)?;
                let run = async {
                    let with: &[&(dyn ToSql + Sync)] = &[&store.node, &holder, &epoch, &ALIVE_MS, &keys];
                    let number = connection.client.query_one(take, with).await?;
                    let version = "SELECT n FROM version WHERE of_what = 'callers'";
                    let version = connection.client.query_one(version, &[]).await?;
                    Ok(Lease::new(number.get(0), holder, epoch, version.get(0)))
                };
                run.await.map_err(StoreError::Database)
            });
            match taken {
                // Two new nodes took the same number.
                Err(StoreError::Database(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
                taken => return taken,
            }
        }
    }

    /// Says that this node is alive; gives the versions of callers and of the key ring.
    pub(crate) fn sign_of_life(&mut self, lease: &Lease) -> Result<(i64, i64), StoreError> {
        let (number, epoch) = (lease.number, lease.epoch());
        let rows = self.session.read(async |connection: &Connection| {
            let fence = connection.prepared(FENCE).await?;
            connection.client.query(&fence, &[&number, &epoch, &ALIVE_MS]).await?;
            let find = connection.prepared("SELECT of_what, n FROM version").await?;
            connection.client.query(&find, &[]).await
        });
        let version = |rows: &[Row], what: &str| {
            rows.iter().find(|row| row.get::<_, &str>(0) == what).map_or(0, |row| row.get(1))
        };
        let rows = rows.map_err(|error| fenced(error, lease, epoch))?;
        Ok((version(&rows, "callers"), version(&rows, "keys")))
    }

    /// Fences nodes that gave no sign of life for long, and gives back what they had taken.
    pub(crate) fn bury(&mut self) -> Result<Vec<String>, StoreError> {
        let find = "
            SELECT number, name FROM node
            WHERE alive_until < (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT
              AND EXISTS (SELECT 1 FROM slice WHERE slice.node = node.number AND slice.remains > 0)
            FOR UPDATE SKIP LOCKED";
        let give_back = "
            INSERT INTO purse SELECT kind, id, remains FROM slice WHERE node = $1 AND remains > 0 ORDER BY kind, id
            ON CONFLICT (kind, id) DO UPDATE SET free = purse.free + excluded.free";
        self.session.transaction(async |connection: &Connection| {
            let run = async {
                let dead = connection.client.query(find, &[]).await?;
                for row in &dead {
                    let number: i64 = row.get(0);
                    let fence = "UPDATE node SET epoch = $2 WHERE number = $1";
                    connection.client.execute(fence, &[&number, &new_epoch()]).await?;
                    connection.client.execute(give_back, &[&number]).await?;
                    let empty = "UPDATE slice SET remains = 0 WHERE node = $1 AND remains > 0";
                    connection.client.execute(empty, &[&number]).await?;
                }
                Ok(dead.iter().map(|row| row.get(1)).collect())
            };
            run.await.map_err(StoreError::Database)
        })
    }

    /// All purses, with what this node has of them.
    pub(crate) fn slices(&mut self, lease: &Lease) -> Result<Vec<Slice>, StoreError> {
        let find = "
            SELECT kind, id, sum(own)::BIGINT, sum(others)::BIGINT, sum(charged)::BIGINT FROM (
                SELECT kind, id, 0 AS own, free AS others, 0 AS charged FROM purse
                UNION ALL
                SELECT kind, id, CASE WHEN node = $1 THEN remains ELSE 0 END,
                    CASE WHEN node = $1 THEN 0 ELSE remains END, CASE WHEN node = $1 THEN 0 ELSE charged END
                FROM slice
            ) AS parts GROUP BY kind, id";
        let rows = self.session.read(async |connection: &Connection| {
            connection.client.query(&connection.prepared(find).await?, &[&lease.number]).await
        })?;
        let read = |row: &Row| Slice {
            purse: (row.get(0), row.get(1)),
            remains: row.get(2),
            elsewhere: row.get(3),
            charged_elsewhere: row.get(4),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Takes credits out of a purse: as many as are wanted, and a share of what is free so that the next is not
    /// soon. Gives how many; less than was wanted when there are no more, and none when there are fewer than
    /// `least`: they would be of no use here, and another node may need just these.
    pub(crate) fn take(
        &mut self,
        lease: &Lease,
        purse: PurseId,
        (least, wanted): (i64, i64),
        nodes: i64,
    ) -> Result<i64, StoreError> {
        let (number, epoch) = (lease.number, lease.epoch());
        let (kind, id) = purse;
        let taken = self.session.transaction(async |connection: &Connection| {
            let run = async {
                let fence = connection.prepared(FENCE).await?;
                connection.client.query(&fence, &[&number, &epoch, &ALIVE_MS]).await?;
                let find = "SELECT free FROM purse WHERE kind = $1 AND id = $2 FOR UPDATE";
                let find = connection.prepared(find).await?;
                let free = connection.client.query_opt(&find, &[&kind, &id]).await?;
                let free = free.map_or(0, |row| row.get::<_, i64>(0));
                if free < least.max(1) {
                    return Ok(0);
                }
                let taken = wanted.max(free / (2 * nodes.max(1))).min(free);
                let take = "UPDATE purse SET free = free - $3 WHERE kind = $1 AND id = $2";
                let take = connection.prepared(take).await?;
                connection.client.execute(&take, &[&kind, &id, &taken]).await?;
                let put = "INSERT INTO slice VALUES ($1, $2, $3, $4, 0)
                    ON CONFLICT (node, kind, id) DO UPDATE SET remains = slice.remains + excluded.remains";
                let put = connection.prepared(put).await?;
                connection.client.execute(&put, &[&number, &kind, &id, &taken]).await?;
                Ok(taken)
            };
            run.await.map_err(StoreError::Database)
        });
        taken.map_err(|error| fenced(error, lease, epoch))
    }

    /// Puts credits back into a purse. Not tried again by itself: what an unknown commit did is read back.
    pub(crate) fn give_back(
        &mut self,
        lease: &Lease,
        purse: PurseId,
        credits: i64,
    ) -> Result<(), StoreError> {
        let (number, epoch) = (lease.number, lease.epoch());
        let (kind, id) = purse;
        let given = self.session.transaction(async |connection: &Connection| {
            let run = async {
                let fence = connection.prepared(FENCE).await?;
                connection.client.query(&fence, &[&number, &epoch, &ALIVE_MS]).await?;
                // Not there any more when the limit was changed meanwhile.
                let take = "UPDATE slice SET remains = remains - $4
                    WHERE node = $1 AND kind = $2 AND id = $3 AND remains >= $4";
                let take = connection.prepared(take).await?;
                if connection.client.execute(&take, &[&number, &kind, &id, &credits]).await? == 0 {
                    return Ok(false);
                }
                let put = "UPDATE purse SET free = free + $3 WHERE kind = $1 AND id = $2";
                let put = connection.prepared(put).await?;
                connection.client.execute(&put, &[&kind, &id, &credits]).await.map(|_| true)
            };
            run.await.map_err(StoreError::Database)
        });
        match given.map_err(|error| fenced(error, lease, epoch))? {
            true => Ok(()),
            false => Err(StoreError::ChangedElsewhere),
        }
    }

    /// Answers to questions that were asked before.
    pub(crate) fn recall(&mut self, keys: &[KeyedRef], now: Millis) -> Result<Vec<StoredAnswer>, StoreError> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let rows = self.session.read(async |connection: &Connection| {
            connection.client.query(&connection.prepared(RECALL).await?, &[&keys, &now]).await
        })?;
        rows.iter().map(read_answer).collect()
    }

    /// Which of these passes may be given again.
    pub(crate) fn passed(&mut self, keys: &[KeyedRef], now: Millis) -> Result<HashSet<KeyedRef>, StoreError> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let find = "SELECT key FROM passed WHERE key = ANY ($1) AND until_ms > $2";
        let rows = self.session.read(async |connection: &Connection| {
            connection.client.query(&connection.prepared(find).await?, &[&keys, &now]).await
        })?;
        Ok(rows.iter().map(key).collect())
    }

    /// Claims questions for this node, each for so many milliseconds: no other node asks a provider for them
    /// meanwhile. Gives those that are this node's now.
    pub(crate) fn claim(
        &mut self,
        lease: &Lease,
        wanted: &BTreeMap<KeyedRef, i64>,
    ) -> Result<HashSet<KeyedRef>, StoreError> {
        let claim = "
            WITH now (ms) AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT)
            INSERT INTO claim SELECT key, $3, now.ms + for_ms
            FROM unnest($1::BYTEA[], $2::BIGINT[]) AS wanted (key, for_ms), now
            ON CONFLICT (key) DO UPDATE SET node = excluded.node, until_ms = excluded.until_ms
            WHERE claim.node = excluded.node
               OR claim.until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT
            RETURNING key";
        let (keys, for_ms): (Vec<&[u8]>, Vec<i64>) = wanted.iter().map(|(key, ms)| (&key[..], *ms)).unzip();
        let rows = self.session.read(async |connection: &Connection| {
            connection
                .client
                .query(&connection.prepared(claim).await?, &[&keys, &for_ms, &lease.number])
                .await
        })?;
        Ok(rows.iter().map(key).collect())
    }

    /// Sets aside what calls to a provider may cost, in the sums of their day and month: for each whether the caps
    /// of all nodes together leave room for it, after those before it. A crash sets too much aside, never too
    /// little; what a node has set aside is put right by its next start ([`Nodes::keep_spent`]).
    pub(crate) fn set_aside(
        &mut self,
        lease: &Lease,
        provider: &str,
        (day, month): (i32, i32),
        caps: &Caps,
        prices: &[i64],
    ) -> Result<Vec<bool>, StoreError> {
        let number = lease.number;
        self.session.transaction(async |connection: &Connection| {
            let run = async {
                let client = &connection.client;
                let put = connection.prepared("INSERT INTO budget VALUES ($1) ON CONFLICT DO NOTHING").await?;
                client.execute(&put, &[&provider]).await?;
                // Alone from here on, in all nodes: the sums are read by the next statement.
                let hold = "SELECT 1 FROM budget WHERE provider = $1 FOR UPDATE";
                client.query(&connection.prepared(hold).await?, &[&provider]).await?;
                let find = "SELECT coalesce(sum(CASE kind WHEN 0 THEN amount END), 0)::BIGINT,
                        coalesce(sum(CASE kind WHEN 1 THEN amount END), 0)::BIGINT
                    FROM spent WHERE provider = $1 AND ((kind = 0 AND period = $2) OR (kind = 1 AND period = $3))";
                let find = connection.prepared(find).await?;
                let row = client.query_one(&find, &[&provider, &day, &month]).await?;
                let (of_day, of_month): (i64, i64) = (row.get(0), row.get(1));
                let mut taken = 0;
                let fits = |price: &i64| {
                    let fits = |cap: Option<Credits>, spent: i64| cap.is_none_or(|cap| spent + taken + price <= cap.0);
                    let fits = fits(caps.daily, of_day) && fits(caps.monthly, of_month);
                    taken += if fits { *price } else { 0 };
                    fits
                };
                let granted: Vec<bool> = prices.iter().map(fits).collect();
                let providers = [provider; 2];
                let (kinds, periods) = ([Sum::Day as i16, Sum::Month as i16], [day, month]);
                let amounts = [taken; 2];
                let with: &[&(dyn ToSql + Sync)] =
                    &[&number, &&providers[..], &&kinds[..], &&periods[..], &&amounts[..]];
                client.execute(&connection.prepared(ADD_SPENT).await?, with).await.map(|_| granted)
            };
            run.await.map_err(StoreError::Database)
        })
    }

    /// Replaces this node's part of the sums by what its entries come to; nothing of it is under way.
    pub(crate) fn keep_spent(&mut self, lease: &Lease, sums: &[(SumOf, i64)]) -> Result<(), StoreError> {
        let keep = "INSERT INTO spent VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (provider, kind, period, node) DO UPDATE SET amount = excluded.amount";
        let number = lease.number;
        self.session.transaction(async |connection: &Connection| {
            let run = async {
                let keep = connection.prepared(keep).await?;
                for ((provider, sum, period), amount) in sums {
                    let with: &[&(dyn ToSql + Sync)] = &[&number, provider, &(*sum as i16), period, amount];
                    connection.client.execute(&keep, with).await?;
                }
                Ok(())
            };
            run.await.map_err(StoreError::Database)
        })
    }

    /// What all nodes together have spent: of each provider its sums, those of this day and month.
    pub(crate) fn spent(&mut self, (day, month): (i32, i32)) -> Result<Vec<(String, Sum, i64)>, StoreError> {
        let find = "
            SELECT provider, kind, sum(amount)::BIGINT FROM spent
            WHERE kind >= 2 OR (kind = 0 AND period = $1) OR (kind = 1 AND period = $2) GROUP BY provider, kind";
        let rows = self.session.read(async |connection: &Connection| {
            connection.client.query(&connection.prepared(find).await?, &[&day, &month]).await
        })?;
        let sum = |kind: i16| {
            [Sum::Day, Sum::Month, Sum::All, Sum::Uncertain, Sum::Calls].get(kind as usize).copied()
        };
        Ok(rows.iter().filter_map(|row| Some((row.get(0), sum(row.get(1))?, row.get(2)))).collect())
    }

    /// Counts attempts before anything is looked up: a crash counts too many, never too few. `counters`
    /// are in the order of their bytes, each once, with how often it is counted; runs are read, and accounts where a
    /// node keeps none. All of it in one round trip.
    pub(crate) fn ask(
        &mut self,
        counters: &[(Counter, i64)],
        runs: &[Counter],
        wanted: &[Wanted],
    ) -> Result<Asked, StoreError> {
        let count = "
            INSERT INTO attempt SELECT * FROM unnest($1::INT[], $2::BYTEA[], $3::BIGINT[])
            ON CONFLICT (day, ref) DO UPDATE SET n = attempt.n + excluded.n RETURNING day, ref, n";
        let find = "
            SELECT attempt.day, attempt.ref, attempt.n FROM attempt
            JOIN unnest($1::INT[], $2::BYTEA[]) AS pair (day, ref)
              ON attempt.day = pair.day AND attempt.ref = pair.ref";
        let days: Vec<i32> = counters.iter().map(|((day, _), _)| *day).collect();
        let refs: Vec<&[u8]> = counters.iter().map(|((_, counter), _)| &counter[..]).collect();
        let by: Vec<i64> = counters.iter().map(|(_, by)| *by).collect();
        let run_days: Vec<i32> = runs.iter().map(|(day, _)| *day).collect();
        let run_refs: Vec<&[u8]> = runs.iter().map(|(_, counter)| &counter[..]).collect();
        // Counted again when the connection is lost in between: too many, never too few.
        let (counted, found, looked) = self.session.read(async |connection: &Connection| {
            let client = &connection.client;
            let counted = async {
                if counters.is_empty() {
                    return Ok((Vec::new(), Vec::new()));
                }
                let count = connection.prepared(count).await?;
                let find = connection.prepared(find).await?;
                let count = async { client.query(&count, &[&days, &refs, &by]).await };
                let find = async { client.query(&find, &[&run_days, &run_refs]).await };
                let (counted, found) = both(count, find).await;
                Ok::<_, tokio_postgres::Error>((counted?, found?))
            };
            let (counted, looked) = both(Box::pin(counted), Box::pin(look_up(connection, wanted))).await;
            let ((counted, found), looked) = (counted?, looked?);
            Ok((counted, found, looked))
        })?;
        let by_counter = |rows: &[Row]| -> HashMap<(i32, Vec<u8>), i64> {
            rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
        };
        let (counted, found) = (by_counter(&counted), by_counter(&found));
        let of = |known: &HashMap<(i32, Vec<u8>), i64>, (day, counter): &Counter| {
            known.get(&(*day, counter.to_vec())).copied().unwrap_or(0)
        };
        Ok(Asked {
            counts: counters.iter().map(|(counter, _)| of(&counted, counter)).collect(),
            runs: runs.iter().map(|run| of(&found, run)).collect(),
            looked: sorted(&looked, wanted),
        })
    }

    /// Takes attempts back that were counted, in the same form. Tried once: what is not known to be given back stays counted.
    pub(crate) fn give_back_attempts(&mut self, counters: &[(Counter, i64)]) -> Result<(), StoreError> {
        // In the order of their bytes, as they are counted, so that nobody locks another out.
        let give_back = "
            INSERT INTO attempt SELECT day, ref, -times
            FROM unnest($1::INT[], $2::BYTEA[], $3::BIGINT[]) AS back (day, ref, times)
            ON CONFLICT (day, ref) DO UPDATE SET n = attempt.n + excluded.n";
        let days: Vec<i32> = counters.iter().map(|((day, _), _)| *day).collect();
        let refs: Vec<&[u8]> = counters.iter().map(|((_, counter), _)| &counter[..]).collect();
        let times: Vec<i64> = counters.iter().map(|(_, times)| *times).collect();
        self.session.attempt(async |connection: &Connection| {
            let run = async {
                let give_back = connection.prepared(give_back).await?;
                connection.client.execute(&give_back, &[&days, &refs, &times]).await
            };
            run.await.map(drop).map_err(StoreError::Database)
        })
    }

    /// The sealed key of a day: the first that any node makes.
    pub(crate) fn day_key(&mut self, day: u32, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let day = day as i32;
        self.session.read(async |connection: &Connection| {
            let client = &connection.client;
            // Yesterday's goes with its counters; questions around midnight still have it in memory.
            client.execute("DELETE FROM day_key WHERE day < $1", &[&(day - 1)]).await?;
            let put = "INSERT INTO day_key VALUES ($1, $2) ON CONFLICT DO NOTHING";
            client.execute(put, &[&day, &sealed]).await?;
            Ok(client.query_one("SELECT sealed FROM day_key WHERE day = $1", &[&day]).await?.get(0))
        })
    }

    /// The sealed key of a day, if a node has made one.
    pub(crate) fn known_day_key(&mut self, day: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.session.read(async |connection: &Connection| {
            connection.client.query_opt("SELECT sealed FROM day_key WHERE day = $1", &[&(day as i32)]).await
        })?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The same key, sealed with another one.
    pub(crate) fn replace_day_key(&mut self, day: u32, sealed: &[u8]) -> Result<(), StoreError> {
        self.session.read(async |connection: &Connection| {
            let replace = "UPDATE day_key SET sealed = $2 WHERE day = $1";
            connection.client.execute(replace, &[&(day as i32), &sealed]).await.map(drop)
        })
    }

    /// Forgets counters of days that are over, stored answers that nobody may have any more, and what was spent
    /// on days and in months that no bill is about any more.
    pub(crate) fn sweep(&mut self, today: u32, now: Millis) -> Result<(), StoreError> {
        /// Two months and more; as many months.
        const SPENT_DAYS: i32 = 100;
        let before = today as i32 - 1;
        let (day, month) = periods(now);
        self.session.read(async |connection: &Connection| {
            let client = &connection.client;
            client.execute("DELETE FROM attempt WHERE day < $1", &[&before]).await?;
            client.execute("DELETE FROM answered WHERE until_ms <= $1", &[&now]).await?;
            client.execute("DELETE FROM passed WHERE until_ms <= $1", &[&now]).await?;
            let over =
                "DELETE FROM claim WHERE until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT";
            client.execute(over, &[]).await?;
            let over = "DELETE FROM spent WHERE (kind = 0 AND period < $1) OR (kind = 1 AND period < $2)";
            client.execute(over, &[&(day - SPENT_DAYS), &(month - SPENT_DAYS)]).await.map(drop)
        })
    }

    /// The sealed key ring, and its version; the first node's becomes everybody's.
    pub(crate) fn key_ring(&mut self, own: &[u8]) -> Result<(Vec<u8>, i64), StoreError> {
        self.session.read(async |connection: &Connection| {
            let client = &connection.client;
            client.execute("INSERT INTO key_ring VALUES (1, $1) ON CONFLICT DO NOTHING", &[&own]).await?;
            let find = "SELECT sealed, n FROM key_ring, version WHERE of_what = 'keys'";
            let row = client.query_one(find, &[]).await?;
            Ok((row.get(0), row.get(1)))
        })
    }

    /// The sealed key ring, if some node has put one there.
    pub(crate) fn known_key_ring(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.session.read(async |connection: &Connection| {
            let found = connection.client.query_opt("SELECT sealed FROM key_ring", &[]).await?;
            Ok(found.map(|row| row.get(0)))
        })
    }

    /// Says that this node works with this version of the key ring.
    pub(crate) fn has_keys(&mut self, lease: &Lease, version: i64) -> Result<(), StoreError> {
        let note = "UPDATE node SET keys = $3 WHERE number = $1 AND holder = $2";
        self.session.read(async |connection| {
            connection.client.execute(note, &[&lease.number, &lease.holder, &version]).await.map(drop)
        })
    }

    /// Nodes that live and do not work with this version of the key ring, this one not counted.
    pub(crate) fn without_keys(&mut self, lease: &Lease, version: i64) -> Result<Vec<String>, StoreError> {
        let find = "SELECT name FROM node WHERE number <> $1 AND keys < $2
            AND alive_until >= (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT ORDER BY name";
        let rows = self
            .session
            .read(async |connection| connection.client.query(find, &[&lease.number, &version]).await)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Replaces the sealed key ring that was read with this version.
    pub(crate) fn replace_key_ring(&mut self, sealed: &[u8], seen: i64) -> Result<(), StoreError> {
        self.session.change(async |connection: &Connection| {
            Mark::of_database(connection).await?.may_change()?;
            let client = &connection.client;
            let raise = "UPDATE version SET n = n + 1 WHERE of_what = 'keys' AND n = $1";
            if client.execute(raise, &[&seen]).await.map_err(StoreError::Database)? == 0 {
                return Err(StoreError::ChangedElsewhere);
            }
            let put = client.execute("UPDATE key_ring SET sealed = $1", &[&sealed]).await;
            put.map(drop).map_err(StoreError::Database)
        })
    }

    /// What the trees of other nodes are like: number, entries, root.
    pub(crate) fn other_trees(&mut self, lease: &Lease) -> Result<Vec<(i64, i64, Vec<u8>)>, StoreError> {
        let find = "
            SELECT node.number, block.size, block.root FROM node
            JOIN block ON block.node = node.number
              AND block.seq = (SELECT max(last.seq) FROM block AS last WHERE last.node = node.number)
            WHERE node.number <> $1 ORDER BY node.number";
        let rows = self.session.read(async |connection: &Connection| {
            connection.client.query(&connection.prepared(find).await?, &[&lease.number]).await
        })?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    /// How many nodes gave a sign of life.
    pub(crate) fn alive(&mut self) -> Result<i64, StoreError> {
        let count = "SELECT count(*) FROM node
                     WHERE alive_until >= (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT";
        let row = self.session.read(async |connection: &Connection| {
            connection.client.query_one(&connection.prepared(count).await?, &[]).await
        })?;
        Ok(row.get(0))
    }

    /// Gives up what this node has and its sign of life: it ends in order.
    pub(crate) fn leave(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let (number, epoch) = (lease.number, lease.epoch());
        let left = self.session.transaction(async |connection: &Connection| {
            let run = async {
                let client = &connection.client;
                client.query(FENCE, &[&number, &epoch, &0_i64]).await?;
                let give_back = "
                    INSERT INTO purse SELECT kind, id, remains FROM slice WHERE node = $1 AND remains > 0
                    ORDER BY kind, id ON CONFLICT (kind, id) DO UPDATE SET free = purse.free + excluded.free";
                client.execute(give_back, &[&number]).await?;
                let empty = "UPDATE slice SET remains = 0 WHERE node = $1 AND remains > 0";
                client.execute(empty, &[&number]).await
            };
            run.await.map(drop).map_err(StoreError::Database)
        });
        left.map_err(|error| fenced(error, lease, epoch))
    }
}

fn key(row: &Row) -> KeyedRef {
    KeyedRef::try_from(row.get::<_, &[u8]>(0)).unwrap_or_default()
}

/// A division by zero is the fence's. When the writer took another epoch meanwhile, nothing is wrong: it
/// is as if others had been in the way.
fn fenced(error: StoreError, lease: &Lease, epoch: i64) -> StoreError {
    match error {
        StoreError::Database(cause) if cause.code() == Some(&SqlState::DIVISION_BY_ZERO) => {
            if lease.epoch() == epoch { StoreError::Fenced } else { StoreError::ChangedElsewhere }
        }
        other => other,
    }
}
