//! Errors of the server and of connections, mapped to [`StorageError`]s with the cause and the remedy.

use std::time::Duration;

use mysql_async::{DriverError, Error, IoError, ServerError};
use tokio::time::error::Elapsed;

use super::refused::refused;
use super::rights::denied;
use super::url;
use crate::storage::StorageError;
use crate::storage::sql::check::NO_FEED;
use crate::storage::sql::database::{Complaint, FaultKind, Lacking, SqlFault, late, masked};
use crate::storage::sql::place::StatementPlace;
use crate::storage::sql::statements::Statement;
use crate::storage::values::RefusedValue;

/// Why a job on a connection failed.
#[derive(Debug)]
pub(super) enum MysqlFault {
    /// The statement, if it is a named one.
    Sql(Error, Option<StatementPlace>),
    /// No answer in time.
    Late,
    /// One of several servers takes no writes, and why.
    NoWriter(&'static str),
    Storage(StorageError),
}

/// What a job gives, or why it failed.
pub(super) type MysqlResult<T> = Result<T, MysqlFault>;

// Codes of both MySQL and MariaDB, unless one is named.
const TOO_MANY_CONNECTIONS: u16 = 1040;
/// The last two are for a locked account in MySQL and MariaDB.
const ACCESS_DENIED: [u16; 6] = [1044, 1045, 1142, 1143, 3118, 4151];
const UNKNOWN_DATABASE: u16 = 1049;
const UNKNOWN_COLUMN: u16 = 1054;
const AMBIGUOUS_COLUMN: u16 = 1052;
const SHUTDOWN: u16 = 1053;
/// Galera: the node is not in the primary component of its cluster, or not ready yet.
const NOT_READY: u16 = 1047;
/// Galera: the cluster did not take a transaction, or it is not known whether it did.
const UNDECIDED: u16 = 1180;
const DUPLICATE: u16 = 1062;
const SYNTAX: u16 = 1064;
const UNKNOWN_TABLE: u16 = 1146;
const NO_SUCH_TRIGGER: u16 = 1360;
/// `init_connect` of the server failed, so it ended the connection.
const INIT_CONNECT_FAILED: u16 = 1184;
/// The account lacks a global privilege.
const PRIVILEGE_MISSING: u16 = 1227;
/// A variable that does not exist, is read-only, or does not take the value.
const NO_VARIABLE: [u16; 3] = [1193, 1231, 1238];
/// The account of a trigger is deleted.
const NO_DEFINER: u16 = 1449;
const NOT_A_TABLE: u16 = 1347;
const KEY_TOO_LONG: u16 = 1071;
const PACKET_TOO_LARGE: u16 = 1153;
const TOO_MANY_OF_USER: [u16; 2] = [1203, 1226];
const LOCK_WAIT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const READ_ONLY: [u16; 3] = [1290, 1792, 1836];
const NO_DEFAULT: u16 = 1364;
const TRIGGER_AND_BINLOG: u16 = 1419;
const BINLOG_FORMAT: u16 = 1665;
/// A lock that `NOWAIT` met; MariaDB has [`LOCK_WAIT`] for it.
const LOCKED_MYSQL: u16 = 3572;
/// Disk full, out of memory, interrupted, killed, too slow, or of Galera: a retry may succeed.
const PASSING: [u16; 15] = [
    1021, 1028, 1037, 1038, 1041, 1114, 1317, 1158, 1159, 1160, 1161, KILLED, 1969, NOT_READY,
    UNDECIDED,
];
/// MariaDB: an administrator ended the connection.
const KILLED: u16 = 1927;
const TOO_SLOW_MYSQL: u16 = 3024;

impl MysqlFault {
    pub(super) fn broken(text: impl Into<String>) -> Self {
        Self::Storage(StorageError::Broken(text.into()))
    }

    /// The server's answer, if it refused a statement or a connection.
    fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Sql(Error::Server(error), _) => Some(error),
            _ => None,
        }
    }

    fn code(&self) -> Option<u16> {
        self.server().map(|error| error.code)
    }

    /// Why a value was refused, if that is the cause.
    fn refused(&self) -> Option<RefusedValue> {
        refused(self.server()?)
    }

    /// The name of the violated unique key.
    fn duplicate_key(&self) -> Option<String> {
        let error = self.server().filter(|error| error.code == DUPLICATE)?;
        let key = error.message.rsplit_once("for key ")?.1;
        let key = key.trim_matches(['\'', '`', '.']);
        Some(key.rsplit_once('.').map_or(key, |(_, key)| key).to_owned())
    }

    /// Whether an account lacks a privilege or is deleted: Mika's, or that of a trigger.
    pub(super) fn is_by_account(&self) -> bool {
        self.code() == Some(NO_DEFINER) || self.is_denied()
    }

    /// Whether a column is missing.
    pub(super) fn is_no_column(&self) -> bool {
        self.code() == Some(UNKNOWN_COLUMN)
    }

    /// Whether the server is read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.code().is_some_and(|code| READ_ONLY.contains(&code))
    }

    /// Whether there is no such trigger; the server says so even if the account may not see triggers.
    pub(super) fn is_no_trigger(&self) -> bool {
        self.code() == Some(NO_SUCH_TRIGGER)
    }

    /// Whether a variable does not exist or may not be set by this account.
    pub(super) fn is_no_variable(&self) -> bool {
        let code = self.code();
        self.lacks_privilege() || code.is_some_and(|code| NO_VARIABLE.contains(&code))
    }

    /// Whether the account lacks a privilege.
    pub(super) fn lacks_privilege(&self) -> bool {
        self.code() == Some(PRIVILEGE_MISSING)
    }

    /// Whether Mika's own account lacks a privilege.
    pub(super) fn is_denied(&self) -> bool {
        self.code()
            .is_some_and(|code| ACCESS_DENIED.contains(&code))
    }

    /// Whether `NOWAIT` met a locked row.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self.code(), Some(LOCK_WAIT | LOCKED_MYSQL))
    }

    /// Whether a new connection is needed: this one is lost, in an unknown state, or older than a GRANT.
    pub(super) fn wants_new_link(&self) -> bool {
        match self {
            Self::Sql(Error::Server(error), _) => {
                error.code == SHUTDOWN
                    || PASSING.contains(&error.code)
                    || ACCESS_DENIED.contains(&error.code)
                    // Another server may have become the writable one.
                    || READ_ONLY.contains(&error.code)
                    // The binary log format of a session does not change.
                    || error.code == BINLOG_FORMAT
            }
            Self::Late | Self::NoWriter(_) | Self::Sql(..) => true,
            Self::Storage(_) => false,
        }
    }

    /// Whether another host may do better.
    pub(super) fn is_of_this_host(&self) -> bool {
        let codes = [TOO_MANY_CONNECTIONS, SHUTDOWN, INIT_CONNECT_FAILED];
        match self.code() {
            Some(code) => {
                codes.contains(&code) || TOO_MANY_OF_USER.contains(&code) || PASSING.contains(&code)
            }
            None => self.is_lost() || matches!(self, Self::Late | Self::NoWriter(_)),
        }
    }

    /// Whether the connection ended, or has outdated settings, so that a new one may succeed.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Sql(
                Error::Io(IoError::Io(_)) | Error::Driver(DriverError::ConnectionClosed),
                _,
            ) => true,
            _ => matches!(
                self.code(),
                Some(SHUTDOWN | KILLED | BINLOG_FORMAT | NOT_READY | UNDECIDED)
            ),
        }
    }

    /// The fault with the name of the statement, if it is a schema's: its text can be replaced in the config.
    pub(super) fn within(self, statement: &Statement) -> Self {
        match self {
            Self::Sql(error, _) if !statement.call.own => {
                Self::Sql(error, Some(statement.place.clone()))
            }
            other => other,
        }
    }

    fn kind(&self) -> FaultKind {
        if let Some(key) = self.duplicate_key() {
            return FaultKind::Duplicate(key);
        }
        match self.server() {
            Some(error) if [LOCK_WAIT, DEADLOCK, DUPLICATE].contains(&error.code) => {
                FaultKind::Collision
            }
            Some(error) if error.code == NO_DEFAULT => {
                FaultKind::NoDefault(error.message.trim_end_matches('.').to_owned())
            }
            _ if self.is_lost() => FaultKind::Lost,
            _ => self.refused().map_or(FaultKind::Final, |refused| {
                FaultKind::Refused(Box::new(refused))
            }),
        }
    }

    /// What the server says of a statement, if that is the cause.
    pub(super) fn complaint(&self) -> Option<Box<Complaint>> {
        let error = self.server().filter(|_| !self.is_lost())?;
        let about = match error.code {
            UNKNOWN_TABLE => Lacking::Table,
            UNKNOWN_COLUMN => Lacking::Column,
            _ if is_denial(error) => Lacking::Privilege(denied(&error.message)),
            _ => Lacking::Other,
        };
        let text = lack(error);
        Some(Box::new(Complaint { about, text }))
    }

    /// The fault as the engine has it.
    pub(super) fn told(self, place: &str, time_limit: Duration) -> SqlFault {
        SqlFault {
            kind: self.kind(),
            complaint: self.complaint(),
            error: self.explain(place, time_limit),
        }
    }

    /// The error to show; `place` is the URL without its password.
    pub(super) fn explain(self, place: &str, time_limit: Duration) -> StorageError {
        match self {
            Self::Storage(error) => error,
            Self::Late => late(place, time_limit),
            Self::NoWriter(why) => StorageError::Away(format!(
                "{place}: no server takes writes now; one of them {why}"
            )),
            Self::Sql(Error::Server(error), statement) => {
                explain(&error, place, statement.as_ref())
            }
            Self::Sql(Error::Io(IoError::Tls(error)), _) => StorageError::Broken(format!(
                "{place}: no TLS: {error}: see require_ssl and verify_ca in docs/sql.md"
            )),
            Self::Sql(Error::Io(IoError::Io(error)), _) => {
                StorageError::Away(format!("{place} can't be reached: {error}"))
            }
            Self::Sql(Error::Url(_), _) => url::none(),
            Self::Sql(Error::Driver(error), _) => driver(&error, place),
            Self::Sql(Error::Other(error), _) => StorageError::Away(format!("{place}: {error}")),
        }
    }
}

impl From<Error> for MysqlFault {
    fn from(error: Error) -> Self {
        Self::Sql(error, None)
    }
}

/// The answer did not come in time.
impl From<Elapsed> for MysqlFault {
    fn from(_: Elapsed) -> Self {
        Self::Late
    }
}

impl From<StorageError> for MysqlFault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn driver(error: &DriverError, place: &str) -> StorageError {
    match error {
        DriverError::ConnectionClosed | DriverError::PoolDisconnected => {
            StorageError::Away(format!("{place} closed the connection"))
        }
        DriverError::NoClientSslFlagFromServer => StorageError::Broken(format!(
            "{place} offers no TLS: configure it there, or leave require_ssl out of storage.url"
        )),
        DriverError::UnknownAuthPlugin { name } => StorageError::Broken(format!(
            "{place} wants the authentication {name}, which Mika does not know: give its user \
             mysql_native_password or caching_sha2_password"
        )),
        DriverError::MysqlOldPasswordDisabled | DriverError::CleartextPluginDisabled => {
            StorageError::Broken(format!("{place}: {error}"))
        }
        DriverError::PacketTooLarge => packet(place),
        // Other texts may quote a value of a row.
        DriverError::StmtParamsMismatch { .. } => StorageError::Broken(format!("{place}: {error}")),
        _ => StorageError::Away(format!("{place} answered what can't be understood")),
    }
}

fn packet(place: &str) -> StorageError {
    StorageError::Broken(format!(
        "{place}: max_allowed_packet is too small: set it to 1M at least"
    ))
}

/// Texts of the server may quote values such as passkeys; only those that name tables and columns are shown.
fn explain(error: &ServerError, place: &str, statement: Option<&StatementPlace>) -> StorageError {
    let text = error.message.trim_end_matches('.');
    let sets = statement.map_or_else(|| "storage.statements".into(), StatementPlace::remedy);
    let (at, remedy) = match statement {
        Some(statement) => (
            statement.at(),
            format!("run mika-manage migrate, or fix {}", statement.remedy()),
        ),
        None => (String::new(), "run mika-manage migrate".into()),
    };
    let said = format!("{place}: {text}{at}");
    let broken = |text: String| StorageError::Broken(text);
    match error.code {
        TOO_MANY_CONNECTIONS => StorageError::Away(format!(
            "{place} has too many connections (max_connections)"
        )),
        code if TOO_MANY_OF_USER.contains(&code) => {
            StorageError::Away(format!("{place} allows its user no more for now: {text}"))
        }
        SHUTDOWN => StorageError::Away(format!("{place} is shutting down")),
        LOCK_WAIT | LOCKED_MYSQL => {
            StorageError::Away(format!("{place}: rows are locked by another program{at}"))
        }
        DEADLOCK => StorageError::Away(format!("{place}: deadlock with another program{at}")),
        code if READ_ONLY.contains(&code) => {
            StorageError::Away(format!("{place} is read-only now: {READ_ONLY_HINT}"))
        }
        code if PASSING.contains(&code) || code == TOO_SLOW_MYSQL => StorageError::Away(said),
        code if ACCESS_DENIED.contains(&code) => broken(format!(
            "{said}: see storage.url, and the privileges in docs/sql.md"
        )),
        UNKNOWN_DATABASE => broken(format!(
            "{place}: {text}: create it, or name another in storage.url"
        )),
        UNKNOWN_TABLE | UNKNOWN_COLUMN | AMBIGUOUS_COLUMN => broken(format!("{said}: {remedy}")),
        DUPLICATE => broken(format!("{place}: a row with the same key exists{at}")),
        PACKET_TOO_LARGE => packet(place),
        NO_DEFAULT => broken(format!("{said}: give it one, or set it in {sets}")),
        NO_DEFINER => broken(format!(
            "{said}: a trigger, view or function runs as an account that is gone: \
             mika-manage check says which trigger"
        )),
        INIT_CONNECT_FAILED => StorageError::Away(format!(
            "{place} ended the connection: its init_connect failed: see its error log"
        )),
        NOT_A_TABLE => broken(format!(
            "{place}: {text}: a view can't have triggers: {NO_FEED}"
        )),
        KEY_TOO_LONG => broken(format!(
            "{said}: set innodb_default_row_format = dynamic on the server"
        )),
        PRIVILEGE_MISSING => broken(format!("{said}: see the privileges in docs/sql.md")),
        TRIGGER_AND_BINLOG => broken(format!(
            "{place}: triggers need log_bin_trust_function_creators = 1 (or the SUPER privilege) \
             while the binary log is on, and in a Galera cluster on each node: as an administrator run \
             SET GLOBAL log_bin_trust_function_creators = 1, then mika-manage migrate again"
        )),
        BINLOG_FORMAT => broken(format!(
            "{place}: binlog_format = STATEMENT does not go with READ COMMITTED: {BINLOG_HINT}"
        )),
        SYNTAX => broken(format!("{place}: the SQL is wrong{at}: {text}")),
        _ if let Some(refused) = refused(error) => broken(format!("{place}: {refused}{at}")),
        code => {
            let text = masked(text, "'\"");
            broken(format!("{place}: {text}{at} (error {code})"))
        }
    }
}

/// The remedy for a read-only server.
pub(super) const READ_ONLY_HINT: &str = "name the writable server in storage.url, or, if this is meant \
    to be it, as an administrator: SET GLOBAL read_only = 0";

/// The remedy for an unsafe binary log format.
pub(super) const BINLOG_HINT: &str = "as an administrator: SET GLOBAL binlog_format = 'ROW' (or \
    'MIXED'), and the same in the server's options file";

/// Whether the account of a trigger is deleted.
pub(super) fn is_no_definer(error: &ServerError) -> bool {
    error.code == NO_DEFINER
}

/// Whether the account lacks a privilege.
pub(super) fn is_denial(error: &ServerError) -> bool {
    ACCESS_DENIED.contains(&error.code)
}

/// What a statement lacks: the server's text if it names tables and columns.
fn lack(error: &ServerError) -> String {
    let is_named = [UNKNOWN_TABLE, UNKNOWN_COLUMN, AMBIGUOUS_COLUMN, SYNTAX].contains(&error.code)
        || is_denial(error);
    if is_named {
        return error.message.trim_end_matches('.').to_owned();
    }
    format!("error {}: {}", error.code, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> ServerError {
        ServerError {
            code,
            message: message.into(),
            state: "HY000".into(),
        }
    }

    fn shown(code: u16, message: &str) -> String {
        explain(&error(code, message), "db", None).to_string()
    }

    #[test]
    fn no_number_is_without_words_and_no_value_is_shown() {
        for (code, message) in [
            (1296, "Got error 'my-passkey' from NDB"),
            (
                1366,
                "Incorrect string value: 'my-passkey' for column `d`.`t`.`c` at row 1",
            ),
            (1292, "Truncated incorrect DOUBLE value: 'my-passkey'"),
            (1062, "Duplicate entry 'my-passkey' for key 'users.passkey'"),
            (9999, "Something \"my-passkey\" is wrong"),
        ] {
            let text = shown(code, message);
            assert!(!text.contains("my-passkey"), "{text}");
            assert!(text.split_whitespace().count() > 4, "{text}");
        }
        assert_eq!(
            shown(9999, "No such 'thing' here"),
            "db: No such '…' here (error 9999)"
        );
    }

    #[test]
    fn the_key_of_a_duplicate_is_named() {
        let key =
            |message: &str| MysqlFault::from(Error::Server(error(1062, message))).duplicate_key();
        assert_eq!(
            key("Duplicate entry 'x for key y' for key 'users.username'").unwrap(),
            "username"
        );
        assert_eq!(
            key("Duplicate entry 'x' for key 'PRIMARY'").unwrap(),
            "PRIMARY"
        );
    }
}
