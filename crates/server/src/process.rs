//! What the process forbids itself before it reads a key: nobody may look into it, and it leaves no core.
//! And what it allows itself: as many files as its connections need.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// No core dump, and no other process of the same user may attach to this one or read its memory.
pub fn hide_memory() -> anyhow::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// Files that are open beside connections: databases, their logs and readers, a few of each core.
const OTHER_FILES: u64 = 512;

/// Allows the process the files that so many connections need, as far as the system lets it. Gives how
/// many connections there can be.
pub fn allow_connections(wanted: usize) -> usize {
    let needed = wanted as u64 + OTHER_FILES;
    let is = getrlimit(Resource::Nofile);
    let most = is.maximum.unwrap_or(u64::MAX);
    if is.current.is_some_and(|current| current < needed) {
        // Where it is refused, the limit is what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(needed.min(most)), ..is });
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(16);
    if connections < wanted {
        tracing::warn!(
            files,
            "http.connections_max is {wanted}, but this process may open only {files} files, so it takes \
             {connections} connections at once; raise the limit (LimitNOFILE= of the unit, `ulimit -Hn`)"
        );
    }
    connections.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_look_into_the_process() {
        hide_memory().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let core = rustix::process::getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    }

    #[test]
    fn connections_are_no_more_than_files() {
        assert_eq!(allow_connections(100), 100);
        let most = getrlimit(Resource::Nofile).maximum;
        let all = allow_connections(usize::MAX >> 1);
        assert!(most.is_none_or(|most| all as u64 + OTHER_FILES <= most || all == 16));
        assert_eq!(getrlimit(Resource::Nofile).current, most, "raised as far as it goes");
    }
}
