//! What is said of the tables that a schema's file says to follow, or does not.

use super::calls;
use super::header::{Dialect, FollowedTable, RowKind};
use super::statements::{Piece, Schema, Statement, Statements, is_file};
use crate::storage::Finding;

/// The finding for a followed table that lacks something; `file` is the schema's name.
pub(super) fn lacking(file: &str, table: &FollowedTable, problem: &str) -> Finding {
    let FollowedTable { line, table, .. } = table;
    Finding::problem(
        format!("{file}:{line}: \"follow {table}\" does not fit the database: {problem}"),
        "correct that line, or the table",
    )
}

/// The finding for a followed table that is not there.
pub(super) fn missing(schema: &Schema, table: &FollowedTable) -> Finding {
    let problem = match schema.dialect {
        Dialect::Sqlite => "the table is missing",
        Dialect::Mysql | Dialect::Postgres => {
            "the table is missing, or Mika's account may not see it"
        }
    };
    lacking(schema.name, table, problem)
}

/// The finding for a missing table that a file says to follow; none for another table.
pub(super) fn absent(schema: &Schema, table: &str) -> Option<Finding> {
    of_table(schema, table).map(|table| missing(schema, table))
}

/// What to do where a table can't have triggers, if a file says to follow it.
pub(super) fn unfollow(schema: &Schema, table: &str) -> Option<String> {
    let FollowedTable { line, .. } = of_table(schema, table)?;
    let file = schema.name;
    Some(format!(
        "take the line {file}:{line} out, or follow the table behind; without it, changes are noticed at a reload \
         or restart only"
    ))
}

fn of_table<'s>(schema: &'s Schema, table: &str) -> Option<&'s FollowedTable> {
    let mut followed = schema.followed.iter().filter(|_| is_file(schema.name));
    followed.find(|it| it.table.eq_ignore_ascii_case(table))
}

/// Notes for what a schema's file does not follow.
pub(super) fn unfollowed(schema: &Schema, statements: &Statements) -> Vec<Finding> {
    let kinds = [
        (
            RowKind::User,
            "users",
            "user by KEY: COLUMN, …",
            &calls::USERS,
        ),
        (
            RowKind::Torrent,
            "torrents",
            "torrent by KEY: COLUMN, …",
            &calls::TORRENTS,
        ),
        (RowKind::Client, "clients", "whitelist", &calls::WHITELIST),
    ];
    let mut notes = Vec::new();
    let late = "are not followed: they are noticed at a reload or restart only";
    for (kind, rows, form, call) in kinds {
        if !schema.followed.iter().any(|table| table.kind == kind) {
            notes.push(Finding::note(
                format!("changes of {rows} {late}"),
                format!("put a line into the head of the file: -- follow TABLE as {form}"),
            ));
            continue;
        }
        let is_of_site = |table: &&str| !schema.owns(table) && of_table(schema, table).is_none();
        for table in read_by(statements.of(call)).filter(is_of_site) {
            let place = statements.place(call);
            notes.push(Finding::note(
                format!("changes of {table}, which the statement {place} reads, {late}"),
                format!("unless it has totals only, put a line into the head of the file: -- follow {table} as {form}"),
            ));
        }
    }
    notes
}

/// The tables that statements read, as far as their words show it.
fn read_by(statements: &[Statement]) -> impl Iterator<Item = &str> {
    let words = statements.iter().flat_map(|statement| {
        let texts = statement.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Param(_) | Piece::Rows | Piece::Values => None,
        });
        texts.flat_map(str::split_whitespace)
    });
    let words: Vec<&str> = words.collect();
    let is_before = |word: &str| {
        ["from", "join", "straight_join"]
            .into_iter()
            .any(|it| word.eq_ignore_ascii_case(it))
    };
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut tables: Vec<&str> = Vec::new();
    for pair in words.windows(2).filter(|pair| is_before(pair[0])) {
        let table = pair[1].trim_end_matches([',', ')']);
        let is_word = ["lateral", "dual"]
            .iter()
            .any(|it| table.eq_ignore_ascii_case(it));
        if table.chars().all(is_part) && !table.is_empty() && !is_word && !tables.contains(&table) {
            tables.push(table);
        }
    }
    tables.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sql::place::StatementPlace;
    use crate::storage::sql::statements::split;

    #[test]
    fn the_tables_that_a_statement_reads_are_found() {
        let sql = "SELECT EXTRACT(DAY FROM m.since), t.a FROM members m\nLEFT JOIN tokens AS t ON t.id = m.id \
            JOIN LATERAL (SELECT 1) AS l ON true \
            join (SELECT 1 FROM bans) b JOIN members x WHERE id > :after";
        let statement = Statement {
            call: &calls::USERS,
            place: StatementPlace::new(calls::USERS.name, None),
            pieces: split(sql).remove(0),
        };
        let tables: Vec<&str> = read_by(std::slice::from_ref(&statement)).collect();
        assert_eq!(tables, ["members", "tokens", "bans"]);
    }
}
