//! Errors of the server that a value causes: the column, as far as the server says it, and the reason.

use tokio_postgres::error::{DbError, SqlState};

use super::fault::PostgresFault;
use crate::storage::StorageError;
use crate::storage::sql::statements::{Statement, mentions};
use crate::storage::values::{Misfit, RefusedValue};

/// Why a value is refused, if that is the error.
pub(super) fn refused(error: &DbError) -> Option<RefusedValue> {
    let named = |name: Option<&str>| name.map(ToOwned::to_owned);
    Some(RefusedValue {
        table: named(error.table()),
        column: named(error.column()),
        why: misfit(error.code())?,
    })
}

/// The error for a parameter that its type can't hold.
pub(super) fn of_parameter(name: &str, why: Misfit) -> StorageError {
    let refused = RefusedValue {
        table: None,
        column: Some(name.to_owned()),
        why,
    };
    StorageError::Invalid(refused.to_string())
}

/// The fault of a named statement. A column that it does not set needs a default.
pub(super) fn with_default(fault: PostgresFault, statement: &Statement) -> PostgresFault {
    if let Some(RefusedValue {
        table: Some(table),
        column: Some(column),
        why: Misfit::Missing,
    }) = fault.refused()
        && !mentions(std::slice::from_ref(statement), &column)
    {
        let statement = statement.place.clone();
        return PostgresFault::NoDefault {
            table,
            column,
            statement,
        };
    }
    fault.within(statement)
}

fn misfit(state: &SqlState) -> Option<Misfit> {
    Some(match *state {
        SqlState::STRING_DATA_RIGHT_TRUNCATION => Misfit::TooLong {
            limit: None,
            has: None,
        },
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE => Misfit::OutOfRange,
        SqlState::INVALID_TEXT_REPRESENTATION
        | SqlState::INVALID_BINARY_REPRESENTATION
        | SqlState::INVALID_DATETIME_FORMAT => Misfit::WrongType,
        SqlState::CHARACTER_NOT_IN_REPERTOIRE | SqlState::UNTRANSLATABLE_CHARACTER => {
            Misfit::Characters { charset: None }
        }
        SqlState::NOT_NULL_VIOLATION => Misfit::Missing,
        SqlState::FOREIGN_KEY_VIOLATION => Misfit::Reference,
        SqlState::CHECK_VIOLATION
        | SqlState::EXCLUSION_VIOLATION
        | SqlState::RAISE_EXCEPTION
        | SqlState::WITH_CHECK_OPTION_VIOLATION => Misfit::Rule,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_from_other_causes() {
        assert_eq!(misfit(&SqlState::NOT_NULL_VIOLATION), Some(Misfit::Missing));
        assert_eq!(misfit(&SqlState::RAISE_EXCEPTION), Some(Misfit::Rule));
        assert_eq!(misfit(&SqlState::UNIQUE_VIOLATION), None);
        assert_eq!(misfit(&SqlState::UNDEFINED_TABLE), None);
    }
}
