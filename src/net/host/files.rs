//! The limit of open files, and the connections that it allows.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that a process needs in addition to its clients' connections: those of the API, the
/// listeners, the log, the database.
pub const OTHER_FILES: u64 = 512;

/// The limits of open files; none means that there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// The soft limit.
    pub current: Option<u64>,
    /// The hard limit, up to which the process may raise it.
    pub maximum: Option<u64>,
}

impl FileLimit {
    /// The limit of this process.
    pub fn read() -> Self {
        let limit = getrlimit(Resource::Nofile);
        Self {
            current: limit.current,
            maximum: limit.maximum,
        }
    }

    /// How many of `connections` there are files for; at least one.
    pub fn room_for(self, connections: u32) -> usize {
        let room = self
            .current
            .map_or(u64::MAX, |current| current.saturating_sub(OTHER_FILES));
        u64::from(connections).min(room).max(1) as usize
    }
}

/// Files that a process with that many connections needs.
pub fn needed(connections: u32) -> u64 {
    u64::from(connections) + OTHER_FILES
}

/// Raises the limit for that many connections, as far as the system allows. Returns the new limit.
pub fn raise(connections: u32) -> FileLimit {
    let wanted = needed(connections);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        // If that is refused, the limit is unchanged, and read below.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    FileLimit::read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        let of = |current| FileLimit {
            current,
            maximum: None,
        };
        assert_eq!(of(None).room_for(16_384), 16_384);
        assert_eq!(of(Some(65_536)).room_for(16_384), 16_384);
        assert_eq!(of(Some(1024)).room_for(16_384), 512);
        assert_eq!(of(Some(16)).room_for(16_384), 1);
    }
}
