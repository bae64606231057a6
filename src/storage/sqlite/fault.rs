//! Errors of SQLite, mapped to [`StorageError`]s with the cause and the remedy.

use rusqlite::{Error, ErrorCode, ffi};

use crate::storage::StorageError;
use crate::storage::sql::database::{Complaint, FaultKind, Lacking, SqlFault};
use crate::storage::values::{Misfit, RefusedValue};

/// Why a job on a connection failed.
#[derive(Debug)]
pub(super) enum SqliteFault {
    Sql(Error),
    Storage(StorageError),
}

impl SqliteFault {
    pub(super) fn broken(text: impl Into<String>) -> Self {
        Self::Storage(StorageError::Broken(text.into()))
    }

    /// Whether a constraint or a trigger of the site refuses a row.
    pub(super) fn is_constraint(&self) -> bool {
        let Self::Sql(error) = self else {
            return false;
        };
        error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
    }

    /// Whether a row with the same unique value exists already.
    fn is_duplicate(&self) -> bool {
        let Self::Sql(Error::SqliteFailure(error, _)) = self else {
            return false;
        };
        let unique = [
            ffi::SQLITE_CONSTRAINT_UNIQUE,
            ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            ffi::SQLITE_CONSTRAINT_ROWID,
        ];
        unique.contains(&error.extended_code)
    }

    /// The columns of the violated unique key, such as `users.username`.
    fn duplicate_key(&self) -> Option<String> {
        match self {
            Self::Sql(Error::SqliteFailure(_, Some(text))) if self.is_duplicate() => {
                Some(text.rsplit_once(": ")?.1.to_owned())
            }
            _ => None,
        }
    }

    /// Why a value was refused, if that is the cause.
    fn refused(&self) -> Option<RefusedValue> {
        match self {
            Self::Sql(error) => refused(error),
            Self::Storage(_) => None,
        }
    }

    /// What the engine can do about it; the error names the database by `path`.
    pub(super) fn into_sql_fault(self, path: &str) -> SqlFault {
        let kind = if let Some(key) = self.duplicate_key() {
            FaultKind::Duplicate(key)
        } else if let Some(value) = self.refused() {
            FaultKind::Refused(Box::new(value))
        } else {
            FaultKind::Final
        };
        SqlFault {
            kind,
            complaint: self.complaint(),
            error: self.explain(path),
        }
    }

    /// What SQLite says of a statement, without its text, if that is the cause.
    fn complaint(&self) -> Option<Box<Complaint>> {
        let text = match self {
            Self::Sql(Error::SqlInputError { msg, .. }) => msg,
            Self::Sql(Error::SqliteFailure(failure, Some(msg)))
                if failure.code == ErrorCode::Unknown =>
            {
                msg
            }
            _ => return None,
        };
        let about = if text.starts_with("no such table") {
            Lacking::Table
        } else if text.starts_with("no such column") {
            Lacking::Column
        } else {
            Lacking::Other
        };
        let text = text.clone();
        Some(Box::new(Complaint { about, text }))
    }

    /// The error to show, naming the database by `path`.
    pub(super) fn explain(self, path: &str) -> StorageError {
        match self {
            Self::Storage(error) => error,
            Self::Sql(error) => explain(&error, path),
        }
    }
}

impl From<Error> for SqliteFault {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StorageError> for SqliteFault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A value refused by a constraint of the site. SQLite names the column for some of them.
fn refused(error: &Error) -> Option<RefusedValue> {
    let Error::SqliteFailure(error, text) = error else {
        return None;
    };
    let too_long = Misfit::TooLong {
        limit: None,
        has: None,
    };
    let why = match error.extended_code {
        ffi::SQLITE_CONSTRAINT_NOTNULL => Misfit::Missing,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Misfit::Reference,
        ffi::SQLITE_CONSTRAINT_CHECK
        | ffi::SQLITE_CONSTRAINT_TRIGGER
        | ffi::SQLITE_CONSTRAINT_FUNCTION
        | ffi::SQLITE_CONSTRAINT_VTAB => Misfit::Rule,
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => Misfit::WrongType,
        ffi::SQLITE_TOOBIG => too_long,
        _ => return None,
    };
    // "NOT NULL constraint failed: users.email", "cannot store TEXT value in INTEGER column users.id"
    let named = text
        .as_deref()
        .and_then(|text| text.rsplit(' ').next())
        .and_then(|name| name.split_once('.'));
    let is_name = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let named = named.filter(|(table, column)| is_name(table) && is_name(column));
    Some(RefusedValue {
        table: named.map(|(table, _)| table.to_owned()),
        column: named.map(|(_, column)| column.to_owned()),
        why,
    })
}

/// Texts of SQLite name tables and columns but never values, so they may be shown.
fn explain(error: &Error, path: &str) -> StorageError {
    if let Some(refused) = refused(error) {
        return StorageError::Invalid(refused.to_string());
    }
    let (code, text) = match error {
        Error::SqliteFailure(error, text) => {
            let text = text.clone().unwrap_or_else(|| error.to_string());
            (error.code, text)
        }
        Error::SqlInputError { error, msg, .. } => (error.code, msg.clone()),
        other => return StorageError::Broken(format!("{path}: {other}")),
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            StorageError::Away(format!("{path} is locked by another program"))
        }
        ErrorCode::DiskFull => StorageError::Away(format!(
            "the disk that holds {path} is full: free some space"
        )),
        ErrorCode::SystemIoFailure => {
            StorageError::Away(format!("{path}: {text}: is the disk full or failing?"))
        }
        ErrorCode::CannotOpen | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted => {
            StorageError::Away(format!("{path}: {text}"))
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StorageError::Broken(format!(
            "{path} is read-only: let Mika's user write to the file and its folder"
        )),
        ErrorCode::NotADatabase => StorageError::Broken(format!(
            "{path} is not an SQLite database: name another file in storage.url"
        )),
        ErrorCode::DatabaseCorrupt => StorageError::Broken(format!(
            "{path} is damaged ({text}): restore a backup, or save what can be read with \
             sqlite3's .recover"
        )),
        _ if text.starts_with("no such table") || text.starts_with("no such column") => {
            StorageError::Broken(format!("{path}: {text}: run mika-manage migrate"))
        }
        _ => StorageError::Broken(format!("{path}: {text}")),
    }
}
