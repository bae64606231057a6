//! The limit of open files, and the connections that it allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs in addition to its clients' connections: those of the API, the
/// listeners, the log, the database.
pub const OTHER_FILES: u64 = 512;

/// The limits of open files of this process: the soft one, and the hard one, up to which the process may
/// raise it.
pub fn limit() -> Rlimit {
    getrlimit(Resource::Nofile)
}

/// How many of `connections` there are files for under a soft limit; at least one.
pub fn room_for(connections: u32, limit: Option<u64>) -> usize {
    let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(OTHER_FILES));
    u64::from(connections).min(room).max(1) as usize
}

/// Files that a process with that many connections needs.
pub fn needed(connections: u32) -> u64 {
    u64::from(connections) + OTHER_FILES
}

/// Raises the limit for that many connections, as far as the system allows. Returns the new limit.
pub fn raise(connections: u32) -> Rlimit {
    let wanted = needed(connections);
    let mut limit = limit();
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        // If that is refused, the limit is unchanged, and read below.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    self::limit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!(room_for(16_384, None), 16_384);
        assert_eq!(room_for(16_384, Some(65_536)), 16_384);
        assert_eq!(room_for(16_384, Some(1024)), 512);
        assert_eq!(room_for(16_384, Some(16)), 1);
    }
}
