//! Parses errors of the server that a value causes: the column and the reason.

use mysql_async::ServerError;

use crate::storage::values::{Misfit, RefusedValue};

/// Why a value is refused, if that is the error. The codes are those of both servers.
pub(super) fn refused(error: &ServerError) -> Option<RefusedValue> {
    let too_long = Misfit::TooLong {
        limit: None,
        has: None,
    };
    let why = match error.code {
        1406 | 1441 => too_long,
        1264 | 1690 => Misfit::OutOfRange,
        1366 if error.message.contains("string value") => Misfit::Characters { charset: None },
        1265 | 1292 | 1366 | 1411 | 3140 => Misfit::WrongType,
        1267 | 1270 | 1271 | 1300 | 3854 | 3988 => Misfit::Characters { charset: None },
        1048 | 1263 => Misfit::Missing,
        1216 | 1217 | 1451 | 1452 => Misfit::Reference,
        1369 | 1644 | 3819 | 4025 => Misfit::Rule,
        _ => return None,
    };
    let (table, column) = column_of(&error.message);
    Some(RefusedValue { table, column, why })
}

/// Table and column in a text of the server: `column 'name'`, or column `db`.`table`.`name`.
fn column_of(message: &str) -> (Option<String>, Option<String>) {
    let Some(at) = message.to_ascii_lowercase().rfind("column ") else {
        return (None, None);
    };
    let rest = &message[at + "column ".len()..];
    let names: Vec<&str> = match rest.chars().next() {
        Some('\'') => rest[1..].split('\'').take(1).collect(),
        Some('`') => {
            let end = rest.find(' ').unwrap_or(rest.len());
            rest[..end].split('`').skip(1).step_by(2).collect()
        }
        _ => Vec::new(),
    };
    let named = |back: usize| {
        let name = names.iter().rev().nth(back);
        name.map(|name| (*name).to_owned())
    };
    (named(1), named(0))
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

    #[test]
    fn the_column_of_a_refused_value_is_found() {
        let column = |code, message: &str| {
            let refused = refused(&error(code, message)).unwrap();
            (refused.table, refused.column.unwrap())
        };
        assert_eq!(
            column(1406, "Data too long for column 'passkey' at row 1"),
            (None, "passkey".into())
        );
        let text = "Incorrect string value: '\\xF0\\x9F column' for column `mika`.`users`.`username` at row 1";
        assert_eq!(
            column(1366, text),
            (Some("users".into()), "username".into())
        );
        assert_eq!(
            column(1048, "Column 'vstring' cannot be null"),
            (None, "vstring".into())
        );
    }
}
