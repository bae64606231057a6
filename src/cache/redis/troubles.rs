//! The problems of servers in the log: each once, and its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::CacheError;

/// The problem of each server that was logged last.
#[derive(Default)]
pub(super) struct Troubles(Mutex<BTreeMap<Arc<str>, Trouble>>);

enum Trouble {
    Unreachable,
    /// The server refused this command.
    Refusing(String),
}

impl Troubles {
    /// Logs that a server can't be reached.
    pub(super) fn unreachable(&self, server: &Arc<str>, error: &CacheError) {
        self.log(server, error, Trouble::Unreachable);
    }

    /// Logs that a server refuses a command.
    pub(super) fn refused(&self, server: &Arc<str>, error: &CacheError, command: String) {
        self.log(server, error, Trouble::Refusing(command));
    }

    fn log(&self, server: &Arc<str>, error: &CacheError, trouble: Trouble) {
        let mut troubles = self.0.lock();
        if !troubles.contains_key(server) {
            troubles.insert(Arc::clone(server), trouble);
            drop(troubles);
            tracing::warn!("the cache is away: {error}");
        }
    }

    /// There is a connection to the server.
    pub(super) fn reached(&self, server: &str) {
        let mut troubles = self.0.lock();
        if matches!(troubles.get(server), Some(Trouble::Unreachable)) {
            troubles.remove(server);
            drop(troubles);
            tracing::info!("the cache is back: {server}");
        }
    }

    /// There are connections to all servers; those that are not among them any more were replaced.
    pub(super) fn all_reached(&self, servers: &str) {
        let mut troubles = self.0.lock();
        let before = troubles.len();
        troubles.retain(|_, trouble| matches!(trouble, Trouble::Refusing(_)));
        if troubles.len() < before {
            drop(troubles);
            tracing::info!("the cache is back: {servers}");
        }
    }

    /// The command that the server has refused, if any.
    pub(super) fn refused_command(&self, server: &str) -> Option<String> {
        match self.0.lock().get(server) {
            Some(Trouble::Refusing(command)) => Some(command.clone()),
            _ => None,
        }
    }

    /// The server executes that command again.
    pub(super) fn served(&self, server: &str) {
        let ended = self.0.lock().remove(server);
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
        assert!(!troubles.0.lock().contains_key(&lost));
        assert_eq!(troubles.refused_command(&full).as_deref(), Some("XADD"));
        troubles.served(&full);
        assert_eq!(troubles.refused_command(&full), None);
    }
}
