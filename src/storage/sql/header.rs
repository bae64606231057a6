//! The head of a schema's file: what it is based on, and which tables of the site are followed. The triggers that
//! follow them are made from it.
//!
//! ```sql
//! -- based on: mika
//! -- prefix: mika_
//! -- follow users as user by id: passkey, username, banned
//! -- follow torrents as torrent by id: info_hash, name
//! -- follow allowed_clients as whitelist
//! ```

use strum::IntoStaticStr;

use super::keywords;
use super::statements::NAME;

/// Prefix of Mika's own tables beside those of a site, unless a schema says another.
const PREFIX: &str = "mika_";

/// What the head of a schema's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaHead {
    /// The schema whose statements are used where the file has none.
    pub based_on: Option<String>,
    /// Prefix of the names of Mika's own tables `peers` and `history`.
    pub prefix: String,
    pub followed: Vec<FollowedTable>,
}

/// A line of a file that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLine {
    /// From 1.
    pub line: usize,
    pub problem: String,
}

/// A table of the site whose changes are written to the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedTable {
    /// The line of the file that says so, from 1.
    pub line: usize,
    pub table: String,
    pub kind: RowKind,
    /// The column with the id of a user or torrent; empty for clients.
    pub key: String,
    /// The columns whose changes matter to the tracker.
    pub columns: Vec<String>,
}

/// What the rows of a followed table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    User,
    Torrent,
    Client,
}

/// A language of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Mysql,
    Postgres,
    Sqlite,
}

/// What a row does that a trigger is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
enum RowEvent {
    Insert,
    Update,
    Delete,
}

// === impl SchemaHead ===

impl SchemaHead {
    /// The head of a file; an error with the line that can't be understood.
    pub fn read(file: &str) -> Result<Self, WrongLine> {
        let mut head = Self {
            based_on: None,
            prefix: PREFIX.into(),
            followed: Vec::new(),
        };
        let mut is_head = true;
        for (text, line) in file.lines().zip(1..) {
            is_head &= !text.starts_with(NAME);
            let wrong = |problem: String| WrongLine {
                line,
                problem: format!("{text:?} can't be understood: {problem}"),
            };
            if let Some(problem) = keywords::problem(text, is_head) {
                return Err(wrong(problem));
            }
            let Some(text) = text.strip_prefix("-- ").filter(|_| is_head) else {
                continue;
            };
            if let Some(name) = text.strip_prefix(keywords::BASED_ON) {
                head.based_on = Some(name.trim().to_owned());
            } else if let Some(prefix) = text.strip_prefix(keywords::PREFIX) {
                let prefix = named(prefix.trim());
                head.prefix = prefix.ok_or_else(|| wrong("it is no name".into()))?;
            } else if let Some(table) = text.strip_prefix(keywords::FOLLOW) {
                let followed = FollowedTable::read(line, table).map_err(wrong)?;
                head.followed.push(followed);
            }
        }
        Ok(head)
    }
}

/// A name of a table or column, which needs no quotes.
fn named(name: &str) -> Option<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    (!name.is_empty() && name.chars().all(is_part)).then(|| name.to_owned())
}

// === impl FollowedTable ===

impl FollowedTable {
    /// Reads `TABLE as KIND by KEY: COLUMN, …`.
    fn read(line: usize, text: &str) -> Result<Self, String> {
        let form =
            "write: follow TABLE as user|torrent by KEY: COLUMN, …, or: follow TABLE as whitelist";
        let (head, columns) = text.split_once(':').unwrap_or((text, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        let (table, kind, key) = match words[..] {
            [table, "as", "user", "by", key] => (table, RowKind::User, key),
            [table, "as", "torrent", "by", key] => (table, RowKind::Torrent, key),
            [table, "as", "whitelist"] => (table, RowKind::Client, ""),
            _ => return Err(form.into()),
        };
        let columns = columns.split(',').map(str::trim);
        let columns: Option<Vec<String>> =
            columns.filter(|name| !name.is_empty()).map(named).collect();
        let is_right = key.is_empty() || named(key).is_some();
        if text.contains(['"', '`']) {
            return Err("a table or column whose name needs quotes can't be followed".into());
        }
        if table.contains('.') {
            return Err(format!(
                "write {table:?} without its schema, and put that into the search path of Mika's account"
            ));
        }
        match (named(table), columns) {
            (Some(table), Some(columns))
                if is_right && (kind == RowKind::Client) == columns.is_empty() =>
            {
                Ok(Self {
                    line,
                    table,
                    kind,
                    key: key.into(),
                    columns,
                })
            }
            _ => Err(form.into()),
        }
    }

    /// The triggers in that dialect, as a migration makes them: with an empty line after each statement. `peers` is the
    /// table of Mika's own from which the peers of a deleted row go; none for a table that only adds to another one.
    pub fn triggers(&self, dialect: Dialect, peers: Option<&str>) -> String {
        let mut sql = String::new();
        for event in [RowEvent::Insert, RowEvent::Update, RowEvent::Delete] {
            let table = &self.table;
            let word: &str = event.into();
            let name = format!("mika_{table}_{}", word.to_ascii_lowercase());
            let body = self.body(dialect, event, peers);
            let create = format!("CREATE TRIGGER {name} AFTER {word} ON {table}");
            let trigger = match dialect {
                Dialect::Mysql => format!(
                    "DROP TRIGGER IF EXISTS {name};\n\n{create} FOR EACH ROW\nBEGIN\n{body}END;\n\n"
                ),
                Dialect::Sqlite => format!("{create} BEGIN\n{body}END;\n\n"),
                Dialect::Postgres => format!(
                    "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n\
                     SET search_path FROM CURRENT AS $$\nBEGIN\n{body}    RETURN NULL;\nEND\n$$;\n\n\
                     {create} FOR EACH ROW\nEXECUTE FUNCTION {name}();\n\n"
                ),
            };
            sql += &trigger;
        }
        sql
    }

    /// A statement that fails if the table or one of the columns is missing.
    pub fn probe(&self) -> String {
        let columns = self.columns.iter().map(String::as_str);
        let key = [self.key.as_str()]
            .into_iter()
            .filter(|key| !key.is_empty());
        let columns: Vec<&str> = key.chain(columns).collect();
        let columns = if columns.is_empty() {
            "1".into()
        } else {
            columns.join(", ")
        };
        format!("SELECT {columns} FROM {} WHERE 1 = 0", self.table)
    }

    fn body(&self, dialect: Dialect, event: RowEvent, peers: Option<&str>) -> String {
        let (old, new) = match dialect {
            Dialect::Sqlite => ("old", "new"),
            Dialect::Mysql | Dialect::Postgres => ("OLD", "NEW"),
        };
        let Self { key, .. } = self;
        let (kind, owner) = match self.kind {
            RowKind::User => ("user", "user_id"),
            RowKind::Torrent => ("torrent", "torrent_id"),
            RowKind::Client => {
                let entry = entry(dialect, "VALUES ('whitelist', 0)");
                return format!("    {entry};\n");
            }
        };
        let note = |row: &str| entry(dialect, &format!("VALUES ('{kind}', {row}.{key})"));
        match event {
            RowEvent::Insert => format!("    {};\n", note(new)),
            RowEvent::Delete => {
                let delete = peers.map_or_else(String::new, |peers| {
                    format!("    DELETE FROM {peers} WHERE {owner} = {old}.{key};\n")
                });
                format!("{delete}    {};\n", note(old))
            }
            RowEvent::Update => {
                let columns = self.columns.iter().map(String::as_str);
                let all: Vec<&str> = [key.as_str()].into_iter().chain(columns).collect();
                let moved = when(dialect, &[key], kind, old, old, new, key);
                moved + &when(dialect, &all, kind, new, old, new, key)
            }
        }
    }
}

/// The insertion of an entry into the feed.
fn entry(dialect: Dialect, values: &str) -> String {
    let key = if dialect == Dialect::Mysql {
        "`key`"
    } else {
        "key"
    };
    format!("INSERT INTO mika_feed (kind, {key}) {values}")
}

/// An entry for the row `noted`, if one of these columns differs. They are compared as bytes, because most
/// collations of MySQL take A for a.
fn when(
    dialect: Dialect,
    columns: &[&str],
    kind: &str,
    noted: &str,
    old: &str,
    new: &str,
    key: &str,
) -> String {
    let differs = |column: &&str| match dialect {
        Dialect::Mysql => {
            format!("NOT (CAST({old}.{column} AS BINARY) <=> CAST({new}.{column} AS BINARY))")
        }
        Dialect::Postgres => format!("{old}.{column} IS DISTINCT FROM {new}.{column}"),
        Dialect::Sqlite => format!("{old}.{column} IS NOT {new}.{column}"),
    };
    let condition: Vec<String> = columns.iter().map(differs).collect();
    let condition = condition.join("\n        OR ");
    if dialect == Dialect::Sqlite {
        let entry = entry(dialect, &format!("SELECT '{kind}', {noted}.{key}"));
        return format!("    {entry}\n        WHERE {condition};\n");
    }
    let entry = entry(dialect, &format!("VALUES ('{kind}', {noted}.{key})"));
    format!("    IF {condition} THEN\n        {entry};\n    END IF;\n")
}

/// The first sentence of a schema's file, which says what it is for.
pub fn summary(file: &str) -> String {
    let comment = file.lines().map_while(|line| line.strip_prefix("--"));
    let is_text = |line: &&str| !keywords::is_instruction(line.trim());
    let lines: Vec<&str> = comment.take_while(is_text).map(str::trim).collect();
    let text = lines.join(" ");
    let end = text.find(". ").map_or(text.len(), |end| end + 1);
    text[..end].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "-- A forum of ours.\n-- based on: mika\n-- prefix: t_\n\
        -- follow members as user by uid: secret, name\n-- follow files as torrent by id: hash\n\
        -- follow clients as whitelist\n-- name: users\n-- follow no one\nSELECT 1\n";

    #[test]
    fn the_head_of_a_file_is_read() {
        let head = SchemaHead::read(FILE).unwrap();
        assert_eq!(head.based_on.as_deref(), Some("mika"));
        assert_eq!((&*head.prefix, head.followed.len()), ("t_", 3));
        let members = &head.followed[0];
        assert_eq!((&*members.table, &*members.key), ("members", "uid"));
        assert_eq!(members.columns, ["secret", "name"]);
        assert_eq!(head.followed[2].kind, RowKind::Client);
        assert_eq!((members.line, head.followed[2].line), (4, 6));
        assert_eq!(summary(FILE), "A forum of ours.");
        assert_eq!(
            summary("-- For a site\n-- of ours. And\n-- more"),
            "For a site of ours."
        );
        assert_eq!(SchemaHead::read("").unwrap().prefix, "mika_");
    }

    #[test]
    fn a_line_that_is_wrong_is_shown_with_its_form() {
        for line in [
            "-- folow members as user by id: secret",
            "-- follow members as user: secret",
            "-- follow members as user by id",
            "-- follow app.files as torrent by id: hash",
            "-- follow members as friend by id: x",
            "-- follow members; DROP TABLE x as user by id: x",
            "-- follow members as user by id: a'b",
            "-- follow members as user by id: \"passKey\"",
            "-- prefix: a-b",
        ] {
            let wrong = SchemaHead::read(&format!("-- Ours.\n{line}")).unwrap_err();
            assert_eq!(wrong.line, 2);
            assert!(wrong.problem.contains(&format!("{line:?}")), "{wrong:?}");
        }
    }

    #[test]
    fn triggers_note_the_rows_that_changed() {
        let head = SchemaHead::read(FILE).unwrap();
        let mysql = head.followed[0].triggers(Dialect::Mysql, Some("t_peers"));
        assert!(
            mysql.contains(
                "CREATE TRIGGER mika_members_insert AFTER INSERT ON members FOR EACH ROW"
            )
        );
        assert!(mysql.contains("DELETE FROM t_peers WHERE user_id = OLD.uid;"));
        assert!(mysql.contains("VALUES ('user', NEW.uid)"));
        let sqlite = head.followed[2].triggers(Dialect::Sqlite, Some("t_peers"));
        assert_eq!(sqlite.matches("VALUES ('whitelist', 0)").count(), 3);
        let postgres = head.followed[1].triggers(Dialect::Postgres, None);
        assert!(
            postgres.contains(
                "AFTER UPDATE ON files FOR EACH ROW\nEXECUTE FUNCTION mika_files_update();"
            )
        );
        assert!(postgres.contains("OLD.hash IS DISTINCT FROM NEW.hash"));
        assert!(!postgres.contains("DELETE FROM"));
    }
}
