//! Which tables statements use, and the privileges that they need on them, as far as their words show it.

use std::collections::{BTreeMap, BTreeSet};

use super::statements::{Piece, Statement, has_word};

/// Tables with the privileges that statements need on them.
pub(super) type TableUses = BTreeMap<String, BTreeSet<&'static str>>;

/// Words that stand before the name of a table.
const BEFORE_TABLE: [&str; 4] = ["from", "join", "straight_join", "using"];

/// Words that end a table's alias, where there is none.
const NO_ALIAS: &str = "set where on join left inner straight_join order group limit for \
    returning values select";

/// Stands for the rows of a call.
const ROWS: &str = "{rows}";

/// Collects the tables of statements.
pub(super) fn of<'s>(statements: impl Iterator<Item = &'s Statement>) -> TableUses {
    let mut uses = TableUses::new();
    for statement in statements {
        let text = text_of(statement);
        Words(words(&text)).collect(&mut uses);
    }
    uses
}

fn text_of(statement: &Statement) -> String {
    let pieces = statement.pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.as_str(),
        Piece::Rows => ROWS,
        Piece::Param(_) | Piece::Values => " ? ",
    });
    pieces.collect()
}

/// The words of SQL: names with their qualifiers and quotes, and single characters that separate.
fn words(sql: &str) -> Vec<&str> {
    let is_part =
        |char: char| char.is_alphanumeric() || matches!(char, '_' | '.' | '"' | '`' | '{' | '}');
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let end = if is_part(first) {
            rest.find(|char| !is_part(char)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(end);
        words.extend((!word.trim().is_empty()).then_some(word));
        rest = after;
    }
    words
}

/// The words of one statement.
struct Words<'s>(Vec<&'s str>);

impl<'s> Words<'s> {
    fn is(&self, at: usize, word: &str) -> bool {
        self.0
            .get(at)
            .is_some_and(|it| it.eq_ignore_ascii_case(word))
    }

    fn is_one_of(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    /// Whether all of these follow each other anywhere.
    fn has(&self, wanted: &[&str]) -> bool {
        (0..self.0.len()).any(|at| wanted.iter().zip(at..).all(|(word, at)| self.is(at, word)))
    }

    /// The name of a table at that place; none for the rows, a query, a function or a name of this statement's own.
    fn table(&self, at: usize) -> Option<&'s str> {
        let name = *self.0.get(at)?;
        let is_name =
            name.starts_with(|char: char| char.is_alphabetic() || matches!(char, '_' | '"' | '`'));
        let is_keyword = self.is_one_of(at, &["lateral", "dual", "select", "only"]);
        let is_own = self.has(&[name, "as", "("]) && self.has(&["with"]);
        let is_column = name
            .split_once('.')
            .is_some_and(|(alias, _)| self.is_alias(alias));
        (is_name && !is_keyword && !is_own && !is_column).then_some(name)
    }

    fn is_alias(&self, name: &str) -> bool {
        (0..self.0.len())
            .any(|at| self.is_one_of(at, &BEFORE_TABLE) && self.alias(at + 1) == Some(name))
    }

    /// What a table is called in the statement.
    fn alias(&self, table: usize) -> Option<&'s str> {
        let name = *self.0.get(table)?;
        let at = if self.is(table + 1, "as") {
            table + 2
        } else {
            table + 1
        };
        let alias = self
            .0
            .get(at)
            .filter(|word| word.starts_with(|char: char| char.is_alphabetic() || char == '_'));
        let alias = alias.filter(|word| !has_word(NO_ALIAS, word));
        Some(alias.copied().unwrap_or(name))
    }

    /// Whether an UPDATE of several tables sets a column of the one with that alias, or a SELECT locks its rows.
    fn writes(&self, alias: &str) -> bool {
        let is_update = self.is(0, "update");
        let is_set = |at: usize| {
            let column = self.0[at].split_once('.');
            let is_first = at > 0 && self.is_one_of(at - 1, &["set", ","]);
            column.is_some_and(|(table, _)| table == alias) && is_first && self.is(at + 1, "=")
        };
        let is_locked = |at: usize| {
            let locks = self.is(at, "for") && self.is_one_of(at + 1, &["share", "update"]);
            locks && (!self.is(at + 2, "of") || self.is(at + 3, alias))
        };
        let mut places = 0..self.0.len();
        places.any(|at| is_update && is_set(at) || is_locked(at))
    }

    fn collect(&self, uses: &mut TableUses) {
        let mut add = |table: Option<&str>, privileges: &[&'static str]| {
            if let Some(table) = table {
                uses.entry(table.to_owned()).or_default().extend(privileges);
            }
        };
        let is_upsert = self.has(&["do", "update"]) || self.has(&["key", "update"]);
        for at in 0..self.0.len() {
            if self.is(at, "into") {
                add(self.table(at + 1), &["INSERT"]);
                if is_upsert {
                    add(self.table(at + 1), &["SELECT", "UPDATE"]);
                }
            } else if self.is(at, "update")
                && (at == 0 || !self.is_one_of(at - 1, &["do", "key", "for"]))
            {
                add(self.table(at + 1), &["SELECT", "UPDATE"]);
            } else if self.is(at, "from") && at > 0 && self.is(at - 1, "delete") {
                add(self.table(at + 1), &["DELETE", "SELECT"]);
            } else if self.is_one_of(at, &BEFORE_TABLE) && !self.is(at + 2, "(") {
                add(self.table(at + 1), &["SELECT"]);
                if self.alias(at + 1).is_some_and(|alias| self.writes(alias)) {
                    add(self.table(at + 1), &["UPDATE"]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls;
    use super::super::place::StatementPlace;
    use super::super::statements::split;
    use super::*;

    fn uses(sql: &str) -> Vec<String> {
        let statement = Statement {
            call: &calls::USERS,
            place: StatementPlace::new(calls::USERS.name, None),
            pieces: split(sql).remove(0),
        };
        let uses = of([&statement].into_iter()).into_iter();
        uses.map(|(table, names)| {
            format!(
                "{table}: {}",
                names.into_iter().collect::<Vec<_>>().join(", ")
            )
        })
        .collect()
    }

    #[test]
    fn the_tables_that_a_statement_reads_are_found() {
        let sql = "SELECT EXTRACT(DAY FROM m.since), t.a FROM members m\nLEFT JOIN tokens AS t ON t.id = m.id \
            JOIN LATERAL (SELECT 1) AS l ON true \
            join (SELECT 1 FROM site.bans) b JOIN \"Ranks\" x WHERE id > :after";
        let wanted = [
            "\"Ranks\": SELECT",
            "members: SELECT",
            "site.bans: SELECT",
            "tokens: SELECT",
        ];
        assert_eq!(uses(sql), wanted);
        let sql = "WITH last AS (SELECT id FROM seen) SELECT id FROM {rows} AS w JOIN last ON true JOIN unnest(a) ON true";
        assert_eq!(uses(sql), ["seen: SELECT"]);
        assert_eq!(uses("SELECT '', '' FROM DUAL WHERE false"), [""; 0]);
    }

    #[test]
    fn the_tables_that_a_statement_writes_are_told_from_those_it_reads() {
        let cases: [(&str, &[&str]); 7] = [
            (
                "UPDATE members AS site SET up = site.up + credit.uploaded FROM {rows} AS credit, x WHERE site.id = credit.id",
                &["members: SELECT, UPDATE"],
            ),
            (
                "UPDATE {rows} AS credit STRAIGHT_JOIN members m ON m.id = credit.id JOIN ranks ON ranks.id = m.rank \
                 SET m.up = m.up + credit.uploaded, m.down = m.down + credit.downloaded",
                &["members: SELECT, UPDATE", "ranks: SELECT"],
            ),
            (
                "INSERT INTO stats AS s (id, up) SELECT credit.id, credit.up FROM {rows} AS credit \
                 ON CONFLICT (id) DO UPDATE SET up = s.up + EXCLUDED.up",
                &["stats: INSERT, SELECT, UPDATE"],
            ),
            (
                "INSERT INTO stats (id) SELECT id FROM {rows} AS c ON DUPLICATE KEY UPDATE stats.up = stats.up + c.up",
                &["stats: INSERT, SELECT, UPDATE"],
            ),
            (
                "INSERT INTO members (id) VALUES (:id)",
                &["members: INSERT"],
            ),
            (
                "DELETE FROM clients WHERE prefix = :peer_id",
                &["clients: DELETE, SELECT"],
            ),
            (
                "SELECT a.id FROM {rows} AS w JOIN torrents AS a ON a.id = w.id LEFT JOIN notes ON notes.id = a.id \
                 FOR SHARE OF a",
                &["notes: SELECT", "torrents: SELECT, UPDATE"],
            ),
        ];
        for (sql, wanted) in cases {
            assert_eq!(uses(sql), wanted, "{sql}");
        }
    }
}
