//! What is said of the tables that a schema's file says to follow, or does not.

use super::calls;
use super::catalogue::SqlTable;
use super::header::{Dialect, FollowedTable, RowKind};
use super::statements::{Schema, Statements, is_file};
use super::uses;
use crate::storage::Finding;

/// The finding for a followed table that lacks something; `file` is the schema's name.
pub(super) fn lacking(file: &str, table: &FollowedTable, problem: &str) -> Finding {
    let FollowedTable { line, table, .. } = table;
    Finding::problem(
        format!("{file}:{line}: \"follow {table}\" does not fit the database: {problem}"),
        "correct that line, or the table",
    )
}

/// What is said of ids that are no integers.
pub(super) const NO_INTEGER: &str = "and Mika needs an integer up to 4294967295";

/// The finding for a followed table whose key has that type, such as `uuid`.
pub(super) fn no_integer(file: &str, table: &FollowedTable, kind: &str) -> Finding {
    let problem = format!("its KEY {} is {kind}, {NO_INTEGER}", table.key);
    Finding {
        hint: "give the table an integer of its own for Mika, see UUID in docs/schemas.md".into(),
        ..lacking(file, table, &problem)
    }
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
pub(super) fn unfollowed(
    schema: &Schema,
    statements: &Statements,
    tables: &[SqlTable],
) -> Vec<Finding> {
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
        let is_of_site = |table: &&String| !schema.owns(table) && of_table(schema, table).is_none();
        let read = uses::of(statements.of(call).iter());
        for table in read.keys().filter(is_of_site) {
            let place = statements.place(call);
            let is_it = |it: &&SqlTable| it.name.eq_ignore_ascii_case(table);
            let hint = if tables.iter().find(is_it).is_some_and(|it| it.is_view) {
                "a view can't be followed: follow the tables behind it that have the KEY".to_owned()
            } else {
                format!(
                    "unless it has totals only, put a line into the head of the file: -- follow {table} as {form}"
                )
            };
            notes.push(Finding::note(
                format!("changes of {table}, which the statement {place} reads, {late}"),
                hint,
            ));
        }
    }
    notes
}
