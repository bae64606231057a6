//! Errors of the server and of connections, mapped to [`StorageError`]s with the cause and the remedy.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};
use tokio_rustls::rustls;

use super::refused::refused;
use super::rights;
use crate::storage::StorageError;
use crate::storage::sql::database::{Complaint, FaultKind, Lacking, SqlFault, late, masked};
use crate::storage::sql::place::StatementPlace;
use crate::storage::sql::statements::Statement;
use crate::storage::values::RefusedValue;

/// Why a job on a connection failed.
#[derive(Debug)]
pub(super) enum PostgresFault {
    /// The statement, if it is a named one.
    Sql(Error, Option<StatementPlace>),
    /// No answer in time.
    Late,
    /// The server takes no writes.
    Standby,
    /// A column of the site's that needs a value, and its table.
    NoDefault {
        table: String,
        column: String,
        statement: StatementPlace,
    },
    Storage(StorageError),
}

/// What a job gives, or why it failed.
pub(super) type PostgresResult<T> = Result<T, PostgresFault>;

/// The remedy for a server that can't be written to.
pub(super) const STANDBY_HINT: &str = "name the primary server in storage.url, or all of them with commas between: \
    the one that takes writes is used";

/// The remedy for connections that are not the server's own.
const POOLER_HINT: &str = "name the server itself in storage.url, or a pooler that keeps a session for each \
    connection";

/// What stands around names and values in the server's texts, in any language.
const QUOTES: &str = "'\"«»‹›„“”‘’‚`";

/// What the client library says of a server without TLS.
const NO_TLS_OFFERED: &str = "server does not support TLS";

impl PostgresFault {
    pub(super) fn broken(text: impl Into<String>) -> Self {
        Self::Storage(StorageError::Broken(text.into()))
    }

    pub(super) fn no_tls(place: &str, error: &anyhow::Error) -> Self {
        Self::broken(no_tls(place, &error.to_string()))
    }

    /// The same fault of a named statement, if that can be replaced.
    pub(super) fn within(self, statement: &Statement) -> Self {
        match self {
            Self::Sql(error, _) if !statement.call.own => {
                Self::Sql(error, Some(statement.place.clone()))
            }
            other => other,
        }
    }

    fn db(&self) -> Option<&DbError> {
        match self {
            Self::Sql(error, _) => error.as_db_error(),
            _ => None,
        }
    }

    fn is(&self, states: &[SqlState]) -> bool {
        self.db().is_some_and(|error| states.contains(error.code()))
    }

    /// Whether the server has refused a statement, and the connection is as good as before.
    pub(super) fn is_of_server(&self) -> bool {
        self.db().is_some() && !self.is_lost()
    }

    /// Whether a statement failed, and not what Mika did with its result: the server takes no other in the
    /// transaction.
    pub(super) fn is_of_statement(&self) -> bool {
        !matches!(self, Self::Storage(_))
    }

    /// Why a value was refused, if that is the cause.
    pub(super) fn refused(&self) -> Option<RefusedValue> {
        refused(self.db()?)
    }

    /// Whether Mika's account lacks a privilege.
    pub(super) fn is_denied(&self) -> bool {
        self.is(&[SqlState::INSUFFICIENT_PRIVILEGE])
    }

    /// Whether a lock was waited for in vain.
    pub(super) fn is_locked(&self) -> bool {
        self.is(&[SqlState::LOCK_NOT_AVAILABLE])
    }

    /// What the server says of a statement, if that is the cause.
    fn complaint(&self) -> Option<Box<Complaint>> {
        let error = self.db().filter(|_| !self.is_lost())?;
        let about = match *error.code() {
            SqlState::UNDEFINED_TABLE => Lacking::Table,
            SqlState::UNDEFINED_COLUMN => Lacking::Column,
            SqlState::INSUFFICIENT_PRIVILEGE => {
                let table = rights::denied(error.message());
                Lacking::Privilege(table.map(|table| (String::new(), table)))
            }
            _ => Lacking::Other,
        };
        let text = told(error);
        Some(Box::new(Complaint { about, text }))
    }

    /// Whether another host may do better.
    pub(super) fn is_of_this_host(&self) -> bool {
        match self {
            Self::Late | Self::Standby => true,
            Self::Sql(error, _) => match error.as_db_error() {
                Some(error) => is_passing(error.code()),
                None => tls_error(error).is_none(),
            },
            Self::NoDefault { .. } | Self::Storage(_) => false,
        }
    }

    /// Whether a new connection is needed: this one is lost, or in an unknown state.
    pub(super) fn wants_new_link(&self) -> bool {
        match self {
            Self::Sql(error, _) => match error.as_db_error() {
                Some(error) => {
                    self.is_lost() || *error.code() == SqlState::READ_ONLY_SQL_TRANSACTION
                }
                None => true,
            },
            Self::Late | Self::Standby => true,
            Self::NoDefault { .. } | Self::Storage(_) => false,
        }
    }

    /// Whether the connection ended, or does not fit the server any more, so that a new one may succeed.
    fn is_lost(&self) -> bool {
        match self {
            Self::Sql(error, _) => match error.as_db_error() {
                Some(error) => {
                    let ended = [
                        SqlState::ADMIN_SHUTDOWN,
                        SqlState::CRASH_SHUTDOWN,
                        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                        SqlState::INVALID_SQL_STATEMENT_NAME,
                    ];
                    error.code().code().starts_with("08")
                        || ended.contains(error.code())
                        || is_outdated(error)
                }
                None => error.is_closed() || find::<io::Error>(error).is_some(),
            },
            _ => false,
        }
    }

    /// What the engine can do about it.
    fn kind(&self) -> FaultKind {
        if let Self::NoDefault { table, column, .. } = self {
            return FaultKind::NoDefault(no_default(table, column));
        }
        if let Some(error) = self
            .db()
            .filter(|error| *error.code() == SqlState::UNIQUE_VIOLATION)
        {
            return FaultKind::Duplicate(error.constraint().unwrap_or_default().to_owned());
        }
        let collisions = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        match self.refused() {
            Some(refused) => FaultKind::Refused(Box::new(refused)),
            None if self.is(&collisions) => FaultKind::Collision,
            None if self.is_lost() => FaultKind::Lost,
            None => FaultKind::Final,
        }
    }

    /// The fault as the engine has it. `place` is the URL without its password.
    pub(super) fn told(self, place: &str, time_limit: Duration) -> SqlFault {
        SqlFault {
            kind: self.kind(),
            complaint: self.complaint(),
            error: self.explain(place, time_limit),
        }
    }

    /// The error to show.
    pub(super) fn explain(self, place: &str, time_limit: Duration) -> StorageError {
        match self {
            Self::Storage(error) => error,
            Self::Late => late(place, time_limit),
            Self::Standby => StorageError::Away(format!(
                "{place} takes no writes now, it is a standby: {STANDBY_HINT}"
            )),
            Self::NoDefault {
                table,
                column,
                statement,
            } => StorageError::Broken(format!(
                "{place}: {}{}: give it one, or set it in {}",
                no_default(&table, &column),
                statement.at(),
                statement.remedy()
            )),
            Self::Sql(error, statement) => match error.as_db_error() {
                Some(error) => explain(error, place, statement.as_ref(), time_limit),
                None => unanswered(&error, place),
            },
        }
    }
}

impl From<Error> for PostgresFault {
    fn from(error: Error) -> Self {
        Self::Sql(error, None)
    }
}

/// The answer did not come in time.
impl From<Elapsed> for PostgresFault {
    fn from(_: Elapsed) -> Self {
        Self::Late
    }
}

impl From<StorageError> for PostgresFault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A cause of that type.
fn find<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    error.source().and_then(|cause| cause.downcast_ref::<T>())
}

/// Why there is no TLS, if that is the cause.
fn tls_error(error: &Error) -> Option<&rustls::Error> {
    let cause = find::<io::Error>(error)?.get_ref()?;
    cause.downcast_ref::<rustls::Error>()
}

fn no_tls(place: &str, problem: &str) -> String {
    format!("{place}: no TLS: {problem}: see sslmode and sslrootcert in docs/sql.md")
}

fn no_default(table: &str, column: &str) -> String {
    format!("the column `{column}` of `{table}` has no default and can't be NULL")
}

/// Whether the server can't take a connection or a statement now, but later, or another server can.
fn is_passing(state: &SqlState) -> bool {
    let passing = [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN];
    passing.contains(state)
        || ["08", "53", "58"]
            .iter()
            .any(|class| state.code().starts_with(class))
}

/// Whether a prepared statement is older than a change of its tables.
fn is_outdated(error: &DbError) -> bool {
    // The only one of these that a site's ALTER TABLE brings about, whatever the server's language.
    *error.code() == SqlState::FEATURE_NOT_SUPPORTED
        && error
            .routine()
            .is_some_and(|routine| routine == "RevalidateCachedQuery")
}

/// An error that is not the server's answer to a statement.
fn unanswered(error: &Error, place: &str) -> StorageError {
    if let Some(error) = tls_error(error) {
        return StorageError::Broken(no_tls(place, &error.to_string()));
    }
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if cause == NO_TLS_OFFERED {
        return StorageError::Broken(format!(
            "{place} offers no TLS: configure it there, or leave sslmode out of storage.url"
        ));
    }
    if error.is_closed() {
        return StorageError::Away(format!("{place} closed the connection"));
    }
    if let Some(error) = find::<io::Error>(error) {
        return match error.kind() {
            io::ErrorKind::Unsupported => StorageError::Broken(format!(
                "{place} wants a login that Mika does not know: {error}"
            )),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                StorageError::Away(format!("{place} answered what can't be understood"))
            }
            _ => StorageError::Away(format!("{place} can't be reached: {error}")),
        };
    }
    match error.to_string().as_str() {
        text @ ("invalid configuration" | "authentication error") => {
            StorageError::Broken(format!("{place}: {text}: {cause}: see storage.url"))
        }
        // Other texts may quote a value of a row.
        _ => StorageError::Away(format!("{place} answered what can't be understood")),
    }
}

/// Texts of the server may quote values such as passkeys; only those that name tables and columns are shown.
fn explain(
    error: &DbError,
    place: &str,
    statement: Option<&StatementPlace>,
    time_limit: Duration,
) -> StorageError {
    let text = told(error);
    let (at, remedy) = match statement {
        Some(statement) => (
            statement.at(),
            format!("run mika-manage migrate, or fix {}", statement.remedy()),
        ),
        None => (String::new(), "run mika-manage migrate".into()),
    };
    let broken = |text: String| StorageError::Broken(text);
    let away = |text: String| StorageError::Away(text);
    let code = error.code();
    match *code {
        SqlState::QUERY_CANCELED => late(place, time_limit),
        SqlState::TOO_MANY_CONNECTIONS => away(format!("{place} has too many connections: {text}")),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => {
            away(format!("{place} is shutting down, or ended the connection"))
        }
        SqlState::CANNOT_CONNECT_NOW => away(format!("{place} is starting or shutting down")),
        SqlState::LOCK_NOT_AVAILABLE => {
            away(format!("{place}: rows are locked by another program{at}"))
        }
        SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => {
            away(format!("{place}: deadlock with another program{at}"))
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => away(format!(
            "{place} takes no writes now, it is a standby: {STANDBY_HINT}"
        )),
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            broken(format!("{place}: {text}: see storage.url"))
        }
        SqlState::INSUFFICIENT_PRIVILEGE => broken(format!(
            "{place}: {text}{at}: see storage.url, and the privileges in docs/sql.md"
        )),
        SqlState::INVALID_CATALOG_NAME => broken(format!(
            "{place}: {text}: create it, or name another in storage.url"
        )),
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::UNDEFINED_FUNCTION => {
            broken(format!("{place}: {text}{at}: {remedy}"))
        }
        SqlState::UNIQUE_VIOLATION => {
            broken(format!("{place}: a row with the same key exists{at}"))
        }
        SqlState::INVALID_SQL_STATEMENT_NAME => {
            broken(format!("{place}: {text}{at}: {POOLER_HINT}"))
        }
        _ if is_passing(code) => away(format!("{place}: {text}{at} (error {})", code.code())),
        _ if is_outdated(error) => away(format!("{place}: its tables were changed just now{at}")),
        _ if let Some(refused) = refused(error) => broken(format!("{place}: {refused}{at}")),
        _ if is_about_sql(code) => broken(format!("{place}: the SQL is wrong{at}: {text}")),
        _ => broken(format!("{place}: {text}{at} (error {})", code.code())),
    }
}

/// Whether the server found the text of a statement wrong, which has no values.
fn is_about_sql(state: &SqlState) -> bool {
    state.code().starts_with("42")
}

/// The text of an error, without what may be a value. Its other fields, which quote rows, are never shown.
fn told(error: &DbError) -> String {
    let text = error.message();
    let code = error.code().code();
    let names_only = ["42", "28", "3D", "3F", "53"];
    if names_only.iter().any(|class| code.starts_with(class)) {
        text.to_owned()
    } else {
        masked(text, QUOTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quotation_is_shown() {
        assert_eq!(masked("No such 'thing' here", QUOTES), "No such '…' here");
        assert_eq!(masked("ungültig: »my-key« da", QUOTES), "ungültig: '…' da");
        assert_eq!(masked("cut \"off", QUOTES), "cut '…'");
    }

    #[test]
    fn states_are_told_apart_by_their_classes() {
        assert!(is_passing(&SqlState::TOO_MANY_CONNECTIONS));
        assert!(is_passing(&SqlState::DISK_FULL));
        assert!(!is_passing(&SqlState::INVALID_PASSWORD));
        assert!(is_about_sql(&SqlState::SYNTAX_ERROR));
        assert!(!is_about_sql(&SqlState::UNIQUE_VIOLATION));
    }
}
