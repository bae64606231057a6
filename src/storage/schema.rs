//! Schemas: how a web application's own tables are read and written, as named statements.
//!
//! A schema is one file of `src/storage/schemas`. A line `-- name: users` begins the statement of that
//! name; where one name holds several statements with a `;` between them, they are run in order.
//! `:after` is a parameter, and `{rows}` stands for the rows of a call, as a table that can be joined.
//! `storage.statements` of the config replaces single ones.

use std::collections::BTreeMap;

use super::migrate::Migration;
use super::{StorageConfig, StorageError};
use crate::base::suggest::nearest;

/// Begins a statement in a schema's file.
const NAME: &str = "-- name:";
/// Stands for the rows of a call in a statement.
const ROWS: &str = "{rows}";

/// A schema of this crate, for one driver.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: &'static str,
    /// The file of named statements.
    pub(super) statements: &'static str,
    /// Prefix of the names of Mika's own tables `peers` and `history`.
    pub(super) prefix: &'static str,
    pub(super) migrations: &'static [Migration],
}

/// The parameters and the result of a named statement.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    /// The parameters that it may use.
    params: &'static str,
    /// The columns of `{rows}`; none for a statement without.
    pub(super) rows: &'static str,
    /// The columns of its result, in this order.
    pub(super) columns: &'static str,
    /// Whether it may be empty, if the database does not support it.
    optional: bool,
}

pub(super) static USERS: Call = Call::new("users").with("after limit").gives(USER_COLUMNS);
pub(super) static USER: Call = Call::new("user").with("id").gives(USER_COLUMNS);
pub(super) static USERS_NAMED: Call = Call::new("users_named")
    .with("username")
    .gives(USER_COLUMNS);
pub(super) static USER_OF_PASSKEY: Call = Call::new("user_of_passkey").with("passkey").gives("id");
pub(super) static USERS_KNOWN: Call = Call::new("users_known").of("id").gives("id");
pub(super) static TORRENTS: Call = Call::new("torrents")
    .with("after limit")
    .gives(TORRENT_COLUMNS);
pub(super) static TORRENT: Call = Call::new("torrent").with("id").gives(TORRENT_COLUMNS);
pub(super) static TORRENTS_OF_HASHES: Call = Call::new("torrents_of_hashes")
    .of("info_hash")
    .gives("id info_hash info_hash_v2");
pub(super) static TORRENTS_KNOWN: Call = Call::new("torrents_known").of("id").gives("id");
pub(super) static WHITELIST: Call = Call::new("whitelist").gives("peer_id vstring");
pub(super) static FEED: Call = Call::new("feed")
    .with("after limit")
    .gives("seq kind key age")
    .optional();
pub(super) static FIND_USERS: Call = Call::new("find_users")
    .with("pattern id enabled")
    .gives(USER_COLUMNS);
pub(super) static COUNT_USERS: Call = Call::new("count_users")
    .with("pattern id enabled")
    .gives("count");
pub(super) static FIND_TORRENTS: Call = Call::new("find_torrents")
    .with("pattern id enabled")
    .gives(TORRENT_COLUMNS);
pub(super) static COUNT_TORRENTS: Call = Call::new("count_torrents")
    .with("pattern id enabled")
    .gives("count");
pub(super) static ADD_USER: Call = Call::new("add_user").with("id passkey username");
pub(super) static UPDATE_USER: Call =
    Call::new("update_user").with("id passkey username enabled can_leech uploaded downloaded");
pub(super) static ADD_TORRENT: Call =
    Call::new("add_torrent").with("id info_hash info_hash_v2 release_name");
pub(super) static UPDATE_TORRENT: Call =
    Call::new("update_torrent").with("id release_name enabled has_reason reason multi_up multi_dn");
pub(super) static MOVE_TORRENT: Call = Call::new("move_torrent").with("id new_id").optional();
pub(super) static REMOVE_TORRENTS: Call = Call::new("remove_torrents").of("id unused").optional();
pub(super) static ADD_CLIENT: Call = Call::new("add_client").with("peer_id vstring");
pub(super) static REMOVE_CLIENT: Call = Call::new("remove_client").with("peer_id");
pub(super) static WIPE_USERS: Call = Call::new("wipe_users").with("after last");
pub(super) static WIPE_TORRENTS: Call = Call::new("wipe_torrents").with("after last");
pub(super) static FIX_USERS: Call = Call::new("mend_users").of("id");
pub(super) static FIX_TORRENTS: Call = Call::new("mend_torrents").of("id");
pub(super) static CREDIT_USERS: Call =
    Call::new("credit_users").of("id uploaded downloaded snatches announces seed_time");
pub(super) static CREDIT_TORRENTS: Call =
    Call::new("credit_torrents").of("id uploaded downloaded snatches announces seeders leechers");
pub(super) static CREDIT_SNATCHES: Call = Call::new("credit_snatches").of("id snatches");
pub(super) static ADD_SNATCHED: Call = Call::new("add_snatched")
    .of("info_hash snatches")
    .optional();

const USER_COLUMNS: &str = "id passkey username enabled can_leech uploaded downloaded snatches \
    announces seed_time";
const TORRENT_COLUMNS: &str = "id info_hash info_hash_v2 release_name enabled reason multi_up \
    multi_dn seeders leechers snatches announces uploaded downloaded";

/// Every named statement.
pub(super) static CALLS: [&Call; 31] = [
    &USERS,
    &USER,
    &USERS_NAMED,
    &USER_OF_PASSKEY,
    &USERS_KNOWN,
    &TORRENTS,
    &TORRENT,
    &TORRENTS_OF_HASHES,
    &TORRENTS_KNOWN,
    &WHITELIST,
    &FEED,
    &FIND_USERS,
    &COUNT_USERS,
    &FIND_TORRENTS,
    &COUNT_TORRENTS,
    &ADD_USER,
    &UPDATE_USER,
    &ADD_TORRENT,
    &UPDATE_TORRENT,
    &MOVE_TORRENT,
    &REMOVE_TORRENTS,
    &ADD_CLIENT,
    &REMOVE_CLIENT,
    &WIPE_USERS,
    &WIPE_TORRENTS,
    &FIX_USERS,
    &FIX_TORRENTS,
    &CREDIT_USERS,
    &CREDIT_TORRENTS,
    &CREDIT_SNATCHES,
    &ADD_SNATCHED,
];

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// The parameter of that name, without its colon.
    Param(String),
    Rows,
}

/// The statements of a schema, with the replacements of the config.
#[derive(Debug)]
pub(super) struct Statements {
    by_name: BTreeMap<&'static str, Vec<Vec<Piece>>>,
}

// === impl Schema ===

impl Schema {
    /// Whether a table of that name is Mika's own, and credit is counted from it.
    pub(super) fn owns(&self, table: &str) -> bool {
        let named = |name: &str| table.eq_ignore_ascii_case(&format!("{}{name}", self.prefix));
        named("peers") || named("history") || table.starts_with("mika_")
    }
}

/// The schema that `config` names.
pub(super) fn chosen(
    built_in: &'static [Schema],
    config: &StorageConfig,
) -> Result<&'static Schema, StorageError> {
    let found = built_in.iter().find(|schema| schema.name == config.schema);
    found.ok_or_else(|| {
        let known: Vec<&str> = built_in.iter().map(|schema| schema.name).collect();
        StorageError::Broken(format!(
            "storage.schema: there is no schema {:?}; there are: {}. For another web application \
             choose the nearest and put its own statements into storage.statements",
            config.schema,
            known.join(", ")
        ))
    })
}

// === impl Call ===

impl Call {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            params: "",
            rows: "",
            columns: "",
            optional: false,
        }
    }

    const fn with(mut self, params: &'static str) -> Self {
        self.params = params;
        self
    }

    const fn of(mut self, rows: &'static str) -> Self {
        self.rows = rows;
        self
    }

    const fn gives(mut self, columns: &'static str) -> Self {
        self.columns = columns;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// How many columns its result has.
    pub(super) fn width(&self) -> usize {
        self.columns.split_whitespace().count()
    }
}

// === impl Statements ===

impl Statements {
    pub(super) fn new(
        schema: &Schema,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, StorageError> {
        let own = named(schema.statements);
        if let Some(name) = overrides.keys().find(|name| call(name).is_none()) {
            let names = CALLS.map(|call| call.name);
            let hint = match nearest(name, names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are: {}", names.join(", ")),
            };
            return Err(StorageError::Broken(format!(
                "storage.statements: there is no statement {name:?}: {hint}"
            )));
        }
        let mut by_name = BTreeMap::new();
        for call in CALLS {
            let text = match overrides.get(call.name) {
                Some(text) => text.as_str(),
                None => own.get(call.name).map_or("", String::as_str),
            };
            by_name.insert(call.name, checked(call, text)?);
        }
        Ok(Self { by_name })
    }

    /// The statements of a name, in the order in which they are run. Empty if there is nothing to do.
    pub(super) fn of(&self, call: &Call) -> &[Vec<Piece>] {
        self.by_name.get(call.name).map_or(&[], Vec::as_slice)
    }
}

/// Whether the words of these statements include that table or column.
pub(super) fn mentions(statements: &[Vec<Piece>], name: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '$';
    let mut words = statements
        .iter()
        .flatten()
        .filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Param(_) | Piece::Rows => None,
        })
        .flat_map(|text| text.split(|char| !is_part(char)));
    words.any(|word| word.eq_ignore_ascii_case(name))
}

fn call(name: &str) -> Option<&'static Call> {
    CALLS.into_iter().find(|call| call.name == name)
}

/// The statements of a file by their names, without the comments.
fn named(file: &str) -> BTreeMap<&str, String> {
    let mut statements = BTreeMap::new();
    let mut current = None;
    for line in file.lines() {
        if let Some(name) = line.strip_prefix(NAME) {
            current = Some(name.trim());
        } else if let (Some(name), false) = (current, line.starts_with("--")) {
            let text: &mut String = statements.entry(name).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    statements
}

/// The pieces of a statement; an error if it uses a parameter that the call does not have.
fn checked(call: &Call, text: &str) -> Result<Vec<Vec<Piece>>, StorageError> {
    let wrong = |problem: String| {
        StorageError::Broken(format!("storage.statements.{}: {problem}", call.name))
    };
    let statements = split(text);
    if statements.is_empty() && !call.optional {
        return Err(wrong("it is empty, and Mika can't do without it".into()));
    }
    if statements.len() > 1 && !call.columns.is_empty() {
        return Err(wrong("it must be a single SELECT".into()));
    }
    let mut has_rows = false;
    for piece in statements.iter().flatten() {
        match piece {
            Piece::Param(name) if !call.params.split_whitespace().any(|param| param == name) => {
                let known = match call.params {
                    "" => "it has none".into(),
                    params => format!("it has :{}", params.replace(' ', ", :")),
                };
                return Err(wrong(format!("there is no parameter :{name}: {known}")));
            }
            Piece::Rows if call.rows.is_empty() => {
                return Err(wrong(format!("it is not given any {ROWS}")));
            }
            Piece::Rows => has_rows = true,
            Piece::Param(_) | Piece::Text(_) => {}
        }
    }
    if !has_rows && !call.rows.is_empty() && !statements.is_empty() {
        return Err(wrong(format!(
            "it needs {ROWS}, the rows to work on: a table with the columns {}",
            call.rows.replace(' ', ", ")
        )));
    }
    Ok(statements)
}

/// The statements of a text and their pieces. Parameters in quotes and comments are not recognised.
pub(super) fn split(sql: &str) -> Vec<Vec<Piece>> {
    let mut statements = Vec::new();
    let mut current = Vec::new();
    let mut text = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\'' | '"' | '`' => quoted(rest, first),
            '-' if rest.starts_with("-- ") => {
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
                text.push('\n');
                continue;
            }
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            ';' => {
                finish(&mut statements, &mut current, &mut text);
                rest = &rest[1..];
                continue;
            }
            '{' if rest.starts_with(ROWS) => {
                take(&mut current, &mut text);
                current.push(Piece::Rows);
                rest = &rest[ROWS.len()..];
                continue;
            }
            // A cast of Postgres, or an assignment of MySQL.
            ':' if rest.starts_with("::") || rest.starts_with(":=") => 2,
            ':' => {
                let name = word(&rest[1..]);
                if !name.is_empty() {
                    take(&mut current, &mut text);
                    current.push(Piece::Param(name.to_owned()));
                    rest = &rest[1 + name.len()..];
                    continue;
                }
                1
            }
            other => other.len_utf8(),
        };
        text.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    finish(&mut statements, &mut current, &mut text);
    statements
}

/// Bytes of the quoted text at the start of `sql`; a doubled quote begins another one.
fn quoted(sql: &str, quote: char) -> usize {
    sql[1..].find(quote).map_or(sql.len(), |end| end + 2)
}

fn word(sql: &str) -> &str {
    let end = sql.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &sql[..end.unwrap_or(sql.len())]
}

fn take(pieces: &mut Vec<Piece>, text: &mut String) {
    if !text.is_empty() {
        pieces.push(Piece::Text(std::mem::take(text)));
    }
}

fn finish(statements: &mut Vec<Vec<Piece>>, pieces: &mut Vec<Piece>, text: &mut String) {
    if text.trim().is_empty() && pieces.is_empty() {
        text.clear();
        return;
    }
    let end = text.trim_end().len();
    text.truncate(end);
    take(pieces, text);
    statements.push(std::mem::take(pieces));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Schema = Schema {
        name: "nothing",
        statements: "",
        prefix: "",
        migrations: &[],
    };

    fn error(schema: &Schema, overrides: &[(&str, &str)]) -> String {
        let overrides = overrides
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let result = Statements::new(schema, &overrides.collect());
        result
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn statements_come_apart_at_semicolons_and_parameters() {
        let text = "SELECT ':no' , \"a;b\", `x:y`, a::int /* :none; */ -- :not this;\n \
                    WHERE id > :after AND {rows};\n;UPDATE x";
        let statements = split(text);
        assert_eq!(statements.len(), 2);
        let params: Vec<&Piece> = statements[0]
            .iter()
            .filter(|piece| !matches!(piece, Piece::Text(_)))
            .collect();
        assert_eq!(params, [&Piece::Param("after".into()), &Piece::Rows]);
        assert_eq!(statements[1], [Piece::Text("UPDATE x".into())]);
        assert!(split(" ;\n; -- nothing").is_empty());
        assert_eq!(split("it's cut off").len(), 1);
    }

    #[test]
    fn a_file_is_read_by_names() {
        let statements =
            named("-- A file.\n-- name: a\n-- columns: x\nSELECT 1\n\n-- name: b\nSELECT 2");
        assert_eq!(statements["a"].trim(), "SELECT 1");
        assert_eq!(statements["b"].trim(), "SELECT 2");
    }

    #[test]
    fn what_can_not_work_is_told() {
        let hint = error(&NOTHING, &[("user_named", "SELECT 1")]);
        assert!(hint.contains("did you mean \"users_named\"?"), "{hint}");
        assert!(error(&NOTHING, &[]).contains("storage.statements.users: it is empty"));
        let params = error(&NOTHING, &[("users", "SELECT :aftr")]);
        assert!(
            params.contains("no parameter :aftr: it has :after, :limit"),
            "{params}"
        );
        let two = error(&NOTHING, &[("users", "SELECT 1; SELECT 2")]);
        assert!(two.contains("single SELECT"), "{two}");
        let rows = error(&NOTHING, &[("users", "SELECT {rows}")]);
        assert!(rows.contains("not given any {rows}"), "{rows}");
    }
}
