//! Errors of Redis, mapped to [`CacheError`]s with the cause and the remedy.

use redis::{ErrorKind, RedisError, ServerError};

use super::keys;
use crate::cache::CacheError;

/// Why a command failed.
#[derive(Debug)]
pub(super) struct RedisFault {
    pub(super) error: CacheError,
    /// Whether the connection is broken, or leads to the wrong server.
    pub(super) is_lost: bool,
    /// Whether the server, or the slot in a cluster, takes no commands at all for the moment.
    pub(super) is_absent: bool,
}

/// The failed command, without secrets.
pub(super) struct Failed<'a> {
    pub(super) command: &'a str,
    pub(super) key: Option<&'a str>,
}

/// Whether a key has the wrong type for the command.
pub(super) fn is_wrong_type(error: &ServerError) -> bool {
    error.code() == "WRONGTYPE"
}

/// Whether the user lacks a permission.
pub(super) fn is_denied(error: &ServerError) -> bool {
    error.code() == "NOPERM"
}

// === impl RedisFault ===

impl RedisFault {
    pub(super) fn away(server: &str, text: &str) -> Self {
        Self {
            error: CacheError::Away(format!("{server}: {text}")),
            is_lost: false,
            is_absent: false,
        }
    }

    pub(super) fn absent(server: &str, text: &str) -> Self {
        Self {
            is_absent: true,
            ..Self::away(server, text)
        }
    }

    pub(super) fn broken(server: &str, text: &str) -> Self {
        Self {
            error: CacheError::Broken(format!("{server}: {text}")),
            is_lost: false,
            is_absent: false,
        }
    }

    pub(super) fn lost(server: &str, text: &str) -> Self {
        Self {
            is_lost: true,
            ..Self::absent(server, text)
        }
    }

    /// For a broken or failed connection.
    pub(super) fn of_link(server: &str, error: &RedisError) -> Self {
        let detail = error.detail().unwrap_or_default();
        if detail.contains("max number of clients") {
            return Self::lost(server, TOO_MANY);
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::broken(server, WRONG_PASSWORD),
            // Without a login, SELECT is the first command.
            ErrorKind::Server(_) if detail.contains("Authentication required") => {
                Self::broken(server, NO_PASSWORD)
            }
            ErrorKind::Server(_) if error.to_string().contains("refused to switch database") => {
                Self::broken(
                    server,
                    &format!("it refuses the database number of cache.url: {detail}"),
                )
            }
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let errors = error.clone().into_server_errors();
                match errors.as_ref().and_then(|errors| errors.first()) {
                    Some((_, error)) => Self::of_reply(
                        server,
                        error,
                        &Failed {
                            command: "connecting",
                            key: None,
                        },
                    ),
                    None => Self::lost(server, &error.to_string()),
                }
            }
            ErrorKind::Io | ErrorKind::Parse => Self::lost(server, &error.to_string()),
            // Such as a database number that the server does not have.
            _ => Self::broken(server, &error.to_string()),
        }
    }

    /// For an error reply.
    pub(super) fn of_reply(server: &str, error: &ServerError, failed: &Failed<'_>) -> Self {
        let detail = error.details().unwrap_or_default();
        let away = |text: &str| Self::away(server, text);
        let broken = |text: &str| Self::broken(server, text);
        match error.code() {
            "LOADING" => Self::absent(server, "it loads its data"),
            "OOM" => away("it has used up its memory: raise maxmemory, or give it more"),
            "MISCONF" => away("it can't save to its disk and refuses writes: see its log"),
            "BUSY" => away("a script keeps it busy: SCRIPT KILL ends that"),
            "NOREPLICAS" => away("it has too few replicas to accept writes"),
            "CLUSTERDOWN" => Self::absent(
                server,
                "the cluster is down, or no master serves this slot: see CLUSTER INFO",
            ),
            "TRYAGAIN" => away("the cluster is moving the slot"),
            "READONLY" => Self::lost(
                server,
                "it is a replica and read-only: cache.url has to name the master, or the sentinels",
            ),
            "UNBLOCKED" => Self::lost(server, "it is a replica now"),
            "MASTERDOWN" => Self::lost(server, "it is a replica whose master is gone"),
            "ERR" if detail.contains("max number of clients") => Self::lost(server, TOO_MANY),
            "NOAUTH" => broken(NO_PASSWORD),
            "WRONGPASS" => broken(WRONG_PASSWORD),
            "NOPERM" => broken(&format!(
                "its user lacks a permission for {failed}: docs/redis.md lists the commands"
            )),
            "WRONGTYPE" => broken(&format!(
                "{failed}: the key holds another type of value: rename or delete it, or give Mika \
                 a database of its own in cache.url"
            )),
            "MOVED" | "ASK" => broken(
                "it is part of a Redis Cluster: write cache.url as redis+cluster://HOST:PORT,HOST:PORT",
            ),
            "DENIED" => broken("its protected mode keeps others out: set a password, or bind it"),
            "ERR" if detail.starts_with("unknown") => broken(&format!(
                "it does not know {failed}: Mika needs Redis 6.2 or newer, or Valkey"
            )),
            code => broken(&format!("{failed}: {code} {detail}")),
        }
    }
}

const TOO_MANY: &str = "it has too many clients: raise maxclients";
const NO_PASSWORD: &str = "it wants a password: put it into cache.url, with a ':' before it: \
    redis://:PASSWORD@HOST";
const WRONG_PASSWORD: &str = "it refuses the user or the password of cache.url";

// === impl Failed ===

impl std::fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.command)?;
        match self.key {
            Some(key) => write!(f, " {}", keys::shown(key)),
            None => Ok(()),
        }
    }
}
