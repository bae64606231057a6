//! The problems of servers in the log: each once, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::CacheError;

/// The most kinds of notices that are remembered, and the most characters of one.
const KINDS_MAX: usize = 100;
const KIND_LEN: usize = 32;

#[derive(Default)]
pub(super) struct Troubles {
    /// The problem of each server that was logged last.
    servers: Mutex<BTreeMap<Arc<str>, Trouble>>,
    /// Kinds of notices that were passed over.
    unknown: Mutex<BTreeSet<String>>,
}

enum Trouble {
    Unreachable,
    /// The server refused this command.
    Refusing(String),
}

impl Troubles {
    /// Logs that a notice was passed over: the first one of each kind as a warning.
    pub(super) fn unknown_notice(&self, id: &str, kind: &str) {
        if self.is_new_kind(kind) {
            tracing::warn!(
                id,
                kind,
                "a notice in the cache is passed over: it is not one that this version knows"
            );
        } else {
            tracing::debug!(id, kind, "a notice in the cache is passed over");
        }
    }

    fn is_new_kind(&self, kind: &str) -> bool {
        let mut unknown = self.unknown.lock();
        unknown.len() < KINDS_MAX && unknown.insert(kind.chars().take(KIND_LEN).collect())
    }

    /// Logs that a server can't be reached.
    pub(super) fn unreachable(&self, server: &Arc<str>, error: &CacheError) {
        self.log(server, error, Trouble::Unreachable);
    }

    /// Logs that a server refuses a command.
    pub(super) fn refused(&self, server: &Arc<str>, error: &CacheError, command: String) {
        self.log(server, error, Trouble::Refusing(command));
    }

    fn log(&self, server: &Arc<str>, error: &CacheError, trouble: Trouble) {
        let mut troubles = self.servers.lock();
        if !troubles.contains_key(server) {
            troubles.insert(Arc::clone(server), trouble);
            drop(troubles);
            tracing::warn!("the cache is away: {error}");
        }
    }

    /// There is a connection to the server.
    pub(super) fn reached(&self, server: &str) {
        let mut troubles = self.servers.lock();
        if matches!(troubles.get(server), Some(Trouble::Unreachable)) {
            troubles.remove(server);
            drop(troubles);
            tracing::info!("the cache is back: {server}");
        }
    }

    /// There are connections to all servers; those that are not among them any more were replaced.
    pub(super) fn all_reached(&self, servers: &str) {
        let mut troubles = self.servers.lock();
        let before = troubles.len();
        troubles.retain(|_, trouble| matches!(trouble, Trouble::Refusing(_)));
        if troubles.len() < before {
            drop(troubles);
            tracing::info!("the cache is back: {servers}");
        }
    }

    /// The command that the server has refused, if any.
    pub(super) fn refused_command(&self, server: &str) -> Option<String> {
        match self.servers.lock().get(server) {
            Some(Trouble::Refusing(command)) => Some(command.clone()),
            _ => None,
        }
    }

    /// The server executes that command again.
    pub(super) fn served(&self, server: &str) {
        let ended = self.servers.lock().remove(server);
        if ended.is_some() {
            tracing::info!("the cache is back: {server}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_replaced_is_no_trouble_any_more() {
        let troubles = Troubles::default();
        let [lost, full] = ["lost", "full"].map(Arc::from);
        let error = CacheError::Away("it is away".into());
        troubles.unreachable(&lost, &error);
        troubles.refused(&full, &error, "XADD".into());
        troubles.all_reached("all");
        assert!(!troubles.servers.lock().contains_key(&lost));
        assert_eq!(troubles.refused_command(&full).as_deref(), Some("XADD"));
        troubles.served(&full);
        assert_eq!(troubles.refused_command(&full), None);
    }

    #[test]
    fn each_kind_of_notice_is_named_once() {
        let troubles = Troubles::default();
        assert!(troubles.is_new_kind("other"));
        assert!(!troubles.is_new_kind("other"));
        let long = "x".repeat(2 * KIND_LEN);
        assert!(troubles.is_new_kind(&long));
        assert!(
            !troubles.is_new_kind(&long[1..]),
            "only its beginning counts"
        );
        for number in 0..2 * KINDS_MAX {
            troubles.is_new_kind(&number.to_string());
        }
        assert_eq!(troubles.unknown.lock().len(), KINDS_MAX);
    }
}
