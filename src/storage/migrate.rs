//! Migrations: the numbered SQL files of `migrations/`, and which of them a database has.

use super::{Storage, StorageError, StorageResult};

/// The migration that gives the database its identity. Idempotent; creates what is missing.
pub(super) const IDENTITY: &str = "0003_identity";

/// One SQL file, compiled in.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The file's name without its extension, such as `0001_init`.
    pub name: &'static str,
    pub sql: &'static str,
}

/// One migration that this version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The file's name without its extension, such as `0001_init`.
    pub name: &'static str,
    pub applied: bool,
}

/// The migrations of a folder below `migrations`, in order; all folders have the same ones.
macro_rules! migrations {
    ($folder:literal) => {
        &[
            Migration {
                name: "0001_init",
                sql: include_str!(concat!("../../migrations/", $folder, "/0001_init.sql")),
            },
            Migration {
                name: "0002_sessions",
                sql: include_str!(concat!("../../migrations/", $folder, "/0002_sessions.sql")),
            },
            Migration {
                name: IDENTITY,
                sql: include_str!(concat!("../../migrations/", $folder, "/0003_identity.sql")),
            },
        ]
    };
}

pub const SQLITE: &[Migration] = migrations!("sqlite");

pub const POSTGRES: &[Migration] = migrations!("postgres");

/// The tables that the schema batter needs beside those of a site.
pub const POSTGRES_BATTER: &str = include_str!("../../migrations/postgres/batter/0001_init.sql");

pub const MYSQL: &[Migration] = migrations!("mysql");

pub const MYSQL_2015: &[Migration] = migrations!("mysql/mika-2015");

/// The migrations of `known` that are missing in `applied`. An error if the database has others: an older
/// Mika must not write to the tables of a newer one.
pub fn status(known: &[Migration], applied: &[String]) -> StorageResult<Vec<MigrationStatus>> {
    let newer = applied.iter().find(|name| {
        !known
            .iter()
            .any(|migration| migration.name == name.as_str())
    });
    if let Some(name) = newer {
        return Err(StorageError::Broken(format!(
            "the database was made by a newer Mika (it has migration {name}): install that version"
        )));
    }
    Ok(known
        .iter()
        .map(|migration| MigrationStatus {
            name: migration.name,
            applied: applied.iter().any(|name| name == migration.name),
        })
        .collect())
}

/// Tables of Mika's own whose names have a prefix in some schemas.
const PREFIXED: [&str; 2] = ["peers", "history"];

/// The part of a migration that makes or changes Mika's own tables, which have this prefix: its statements, with an
/// empty line after each. What is about the tables of a site is left out, and so are triggers on them.
pub(super) fn own_tables(sql: &str, prefix: &str) -> String {
    let mut own = String::new();
    for part in sql.split("\n\n").filter(|part| is_own(part)) {
        let mut rest = part;
        while let Some(start) = rest.find(is_word) {
            let end = rest[start..].find(|char| !is_word(char));
            let end = end.map_or(rest.len(), |length| start + length);
            own.push_str(&rest[..start]);
            if PREFIXED.contains(&&rest[start..end]) {
                own.push_str(prefix);
            }
            own.push_str(&rest[start..end]);
            rest = &rest[end..];
        }
        own.push_str(rest);
        own.push_str("\n\n");
    }
    own
}

/// Whether a part of a migration is about Mika's own tables.
fn is_own(part: &str) -> bool {
    let mut lines = part
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|char| !is_word(char));
    let is_about_site = |word: &str| ["users", "torrents", "whitelist"].contains(&word);
    let mut tables = words.clone();
    let makes_trigger_of_site =
        first.contains("TRIGGER") && !words.any(|word| word.starts_with("mika_feed"));
    !first.is_empty()
        && !tables.any(is_about_site)
        && !makes_trigger_of_site
        && !is_site_function(first)
}

/// Whether a line begins a function of a trigger on a table of the site.
fn is_site_function(line: &str) -> bool {
    let name = line.strip_prefix("CREATE OR REPLACE FUNCTION ");
    name.is_some_and(|name| !name.starts_with("mika_feed"))
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The statements of a migration. An empty line ends one, because triggers and functions have several `;`.
pub(super) fn statements(migration: &Migration) -> impl Iterator<Item = String> {
    let parts = migration.sql.split("\n\n").map(|part| {
        part.lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect::<Vec<_>>()
            .join("\n")
            .trim()
            .trim_end_matches(';')
            .to_owned()
    });
    parts.filter(|statement| !statement.is_empty())
}

/// The tables that migrations make, each with its columns.
pub(super) fn tables(migrations: &[Migration]) -> Vec<(String, Vec<String>)> {
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    for statement in migrations.iter().flat_map(statements) {
        if let Some(table) = made_table(&statement) {
            let words = statement.lines().skip(1);
            let words = words.filter_map(|line| line.split_whitespace().next());
            // Keys and the end of the statement begin with other characters.
            let is_column = |word: &&str| {
                word.starts_with(|char: char| char.is_ascii_lowercase() || char == '`')
            };
            let columns = words.filter(is_column).map(|word| word.trim_matches('`'));
            tables.push((table.into(), columns.map(Into::into).collect()));
        }
        for (table, column) in statement.lines().filter_map(added_column) {
            let known = tables.iter_mut().find(|(name, _)| name == table);
            if let Some((_, columns)) = known {
                columns.push(column.into());
            }
        }
    }
    tables
}

/// The table that a statement makes.
pub(super) fn made_table(statement: &str) -> Option<&str> {
    let rest = statement.strip_prefix("CREATE TABLE ")?;
    let rest = rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest);
    Some(rest.split_once(" (")?.0)
}

/// The table and the column that a line of a statement adds to it.
pub(super) fn added_column(line: &str) -> Option<(&str, &str)> {
    let (table, rest) = line
        .strip_prefix("ALTER TABLE ")?
        .split_once(" ADD COLUMN ")?;
    let rest = rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest);
    Some((table, rest.split_whitespace().next()?))
}

/// The name and the text of the function that a statement makes.
pub(super) fn made_function(statement: &str) -> Option<(&str, &str)> {
    let rest = statement.strip_prefix("CREATE OR REPLACE FUNCTION ")?;
    Some((rest.split('(').next()?, statement.split("$$").nth(1)?))
}

/// The [`IDENTITY`] among `known`.
pub(super) fn identity(known: &[Migration]) -> Option<&Migration> {
    known.iter().find(|migration| migration.name == IDENTITY)
}

/// Makes sure that all tables exist. Those of an embedded database, which is Mika's own, are created; for a
/// server, which others use too, the error asks to run the migration. Returns the names of the
/// migrations that it applied.
pub async fn prepare(storage: &dyn Storage) -> StorageResult<Vec<String>> {
    if storage.is_embedded() {
        return storage.migrate().await;
    }
    let migrations = storage.migrations().await?;
    if migrations.iter().all(|migration| migration.applied) {
        return Ok(Vec::new());
    }
    let text = "tables are missing; create them with: mika-manage migrate";
    Err(StorageError::Broken(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_part_has_mikas_tables_and_nothing_of_a_site() {
        for migrations in [SQLITE, POSTGRES, MYSQL] {
            let all: String = migrations
                .iter()
                .map(|migration| own_tables(migration.sql, "t_"))
                .collect();
            for table in [
                "t_peers",
                "t_history",
                "mika_journal",
                "mika_feed",
                "mika_identity",
            ] {
                assert!(all.contains(&format!("{table} (")), "{table}: {all}");
            }
            assert!(all.contains("t_peers ADD COLUMN"), "{all}");
            for site in [
                "mika_users",
                "mika_torrents",
                "mika_whitelist",
                "TABLE users",
            ] {
                assert!(!all.contains(site), "{site}: {all}");
            }
        }
    }

    #[test]
    fn pending_ones_are_named_and_unknown_ones_refused() {
        assert!(!status(SQLITE, &[]).unwrap()[0].applied);
        assert!(status(SQLITE, &["0001_init".into()]).unwrap()[0].applied);
        let error = status(SQLITE, &["9999_later".into()]).unwrap_err();
        assert!(error.to_string().contains("9999_later"));
    }

    #[test]
    fn each_statement_of_mysql_can_be_repeated() {
        assert!(statements(&MYSQL[0]).count() > 20);
        for migration in MYSQL.iter().chain(MYSQL_2015) {
            let all: Vec<String> = statements(migration).collect();
            for (before, statement) in all.iter().zip(all.iter().skip(1)) {
                if let Some(trigger) = statement.strip_prefix("CREATE TRIGGER ") {
                    let name = trigger.split(' ').next().unwrap();
                    assert_eq!(*before, format!("DROP TRIGGER IF EXISTS {name}"));
                } else {
                    let is_safe = [
                        "CREATE TABLE IF NOT EXISTS",
                        "DROP TRIGGER IF EXISTS",
                        "INSERT IGNORE INTO mika_identity (one, id) VALUES (1, ",
                    ];
                    // A column that is there is left alone.
                    let is_one_column =
                        added_column(statement).is_some() && !statement.contains(',');
                    assert!(
                        is_one_column || is_safe.iter().any(|begin| statement.starts_with(begin)),
                        "{statement}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_tables_that_migrations_make_are_known() {
        for migrations in [SQLITE, POSTGRES, MYSQL] {
            let tables = tables(migrations);
            let of = |table: &str| &tables.iter().find(|(name, _)| name == table).unwrap().1;
            assert_eq!((tables[0].0.as_str(), tables[0].1.len()), ("users", 10));
            assert!(of("mika_feed").starts_with(&["seq".into(), "kind".into(), "key".into()]));
            assert!(of("peers").contains(&"sessions".into()));
            assert!(of("history").ends_with(&["seeded_from".into(), "seeded_until".into()]));
            assert_eq!(*of("mika_identity"), ["one", "id"]);
        }
    }
}
