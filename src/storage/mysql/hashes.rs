//! Info hashes in a site's columns: bytes or text. Reading needs only the row itself (`cells`); written
//! values and lookups need the column's form.

use mysql_async::consts::ColumnType;
use mysql_async::{Column, Value};

use super::cells::{BINARY, MysqlCells};
use super::fault::MysqlFault;
use super::link::MysqlSession;
use crate::base::ids::InfoHash;
use crate::storage::schema;
use crate::storage::values::text_of_hash;

/// Columns of the statement `torrents` with info hashes.
const FIRST: usize = 1;
const SECOND: usize = 2;
/// Hexadecimal digits of an info hash.
const HEX_DIGITS: u64 = 40;

/// How a column holds info hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bytes,
    /// The bytes as characters, or their hexadecimal digits.
    Text {
        charset: String,
        collation: String,
        is_hex: bool,
    },
}

/// The forms of a torrent's two info hashes.
#[derive(Clone, Debug)]
pub(super) struct Forms {
    pub(super) first: Form,
    pub(super) second: Form,
}

/// A text column that a statement reads, as the database describes it.
pub(super) struct TextColumn {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) charset: String,
    pub(super) collation: String,
    /// Characters that it holds.
    pub(super) width: u64,
    /// Whether it is a `CHAR`, which loses blanks at the end.
    pub(super) is_char: bool,
}

// === impl Forms ===

impl Forms {
    pub(super) async fn of(session: &mut MysqlSession<'_>) -> Result<Self, MysqlFault> {
        let columns = session.described(&schema::TORRENTS).await?;
        let mut forms = [Form::Bytes, Form::Bytes];
        for (form, place) in forms.iter_mut().zip([FIRST, SECOND]) {
            if let Some(column) = columns.get(place)
                && let Some(text) = text_column(session, column).await?
            {
                *form = Form::Text {
                    is_hex: text.width >= HEX_DIGITS,
                    charset: text.charset,
                    collation: text.collation,
                };
            }
        }
        let [first, second] = forms;
        Ok(Self { first, second })
    }
}

// === impl Form ===

impl Form {
    /// The parameter with which a hash is written.
    pub(super) fn value(&self, hash: &InfoHash) -> Value {
        match self {
            Self::Bytes => Value::Bytes(hash.0.to_vec()),
            Self::Text { is_hex: true, .. } => hash.to_string().into(),
            Self::Text { is_hex: false, .. } => text_of_hash(hash).into(),
        }
    }

    /// The texts as which the column may hold a hash, none if it holds bytes. They are SQL expressions
    /// with which a join can use the column's index.
    pub(super) fn texts(&self, hash: &InfoHash) -> Vec<String> {
        let Self::Text {
            charset,
            collation,
            is_hex,
        } = self
        else {
            return Vec::new();
        };
        let texts = if *is_hex {
            let digits = hash.to_string();
            let capitals = digits.to_ascii_uppercase();
            vec![digits, capitals]
        } else {
            vec![text_of_hash(hash)]
        };
        let sql = |text: String| {
            let bytes: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            let bytes = bytes.concat();
            format!("CONVERT(_utf8mb4 X'{bytes}' USING {charset}) COLLATE {collation}")
        };
        texts.into_iter().map(sql).collect()
    }
}

/// The text column behind a column of a result; none for bytes and expressions.
pub(super) async fn text_column(
    session: &mut MysqlSession<'_>,
    column: &Column,
) -> Result<Option<TextColumn>, MysqlFault> {
    if column.character_set() == BINARY || is_number(column.column_type()) {
        return Ok(None);
    }
    let sql = "SELECT character_set_name, collation_name, character_maximum_length, data_type \
        FROM information_schema.columns \
        WHERE table_schema = ? AND table_name = ? AND column_name = ?";
    let params = [
        column.schema_str(),
        column.org_table_str(),
        column.org_name_str(),
    ];
    let params = params.map(|text| text.as_ref().into()).to_vec();
    let rows = session.exec(sql, params).await?;
    let described = rows
        .first()
        .map(MysqlCells)
        .filter(|cells| !cells.is_null(0));
    Ok(described.map(|cells| TextColumn {
        table: column.org_table_str().into_owned(),
        name: column.org_name_str().into_owned(),
        charset: cells.text(0),
        collation: cells.text(1),
        width: cells.total(2),
        is_char: cells.text(3).eq_ignore_ascii_case("char"),
    }))
}

fn is_number(kind: ColumnType) -> bool {
    kind.is_numeric_type()
}
