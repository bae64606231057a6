//! Info hashes in a site's columns: bytes or text. Written values and lookups need the column's form.

use mysql_async::Column;

use super::cells::BINARY;
use super::fault::MysqlResult;
use super::session::MysqlSession;
use crate::storage::sql::cells::{Cell, SqlRow};
use crate::storage::sql::database::HashForm;
use crate::storage::sql::statements::Statement;

/// Columns of the statement `torrents` with info hashes.
const FIRST: usize = 1;
const SECOND: usize = 2;
/// Characters of an info hash in hexadecimal digits.
const HEX_DIGITS: u64 = 40;

/// A text column that a statement reads, as the database describes it.
struct TextColumn {
    charset: String,
    collation: String,
    /// Characters that it holds.
    width: u64,
}

/// How the two columns of info hashes in the result of `torrents` hold them.
pub(super) async fn forms(
    session: &mut MysqlSession<'_>,
    torrents: &Statement,
) -> MysqlResult<[HashForm; 2]> {
    let columns = session.described(torrents).await?;
    let mut forms = [HashForm::Bytes, HashForm::Bytes];
    for (form, place) in forms.iter_mut().zip([FIRST, SECOND]) {
        if let Some(column) = columns.get(place)
            && let Some(text) = text_column(session, column).await?
        {
            *form = HashForm::Text {
                is_hex: text.width >= HEX_DIGITS,
                literal: format!(
                    "CONVERT(_utf8mb4 X'{{}}' USING {}) COLLATE {}",
                    text.charset, text.collation
                ),
            };
        }
    }
    Ok(forms)
}

/// The text column behind a column of a result; none for bytes and expressions.
async fn text_column(
    session: &mut MysqlSession<'_>,
    column: &Column,
) -> MysqlResult<Option<TextColumn>> {
    if column.character_set() == BINARY || column.column_type().is_numeric_type() {
        return Ok(None);
    }
    let sql = "SELECT character_set_name, collation_name, character_maximum_length \
        FROM information_schema.columns \
        WHERE table_schema = ? AND table_name = ? AND column_name = ?";
    let (schema, table, name) = (
        column.schema_str(),
        column.org_table_str(),
        column.org_name_str(),
    );
    let params = [&schema, &table, &name].map(|text| Cell::Text(text));
    let rows = session.exec(sql, &params).await?;
    let described = rows.first().filter(|row| !row.is_null(0));
    Ok(described.map(|row: SqlRow<'_>| TextColumn {
        charset: row.text(0),
        collation: row.text(1),
        width: row.total(2),
    }))
}
