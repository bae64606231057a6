//! The columns of a site: whether Mika's values fit, and whether theirs can be read.

use std::collections::BTreeMap;

use crate::storage::Finding;
use crate::storage::sql::calls::{self, Call};
use crate::storage::sql::catalogue::{SqlColumn, column_of};
use crate::storage::sql::database::SqlResult;
use crate::storage::sql::header::Dialect;
use crate::storage::sql::job::Job;
use crate::storage::sql::statements::{has_word, mentions};
use crate::storage::unusable::plural;

/// Characters of a generated passkey, and the maximum.
const PASSKEY_MADE: u64 = 32;
const PASSKEY_MAX: u64 = 64;
/// Characters of a whitelist prefix.
const PREFIX_MAX: u64 = 20;

/// Types that are too small for a total, or no numbers.
const SMALL: &str = "tinyint smallint mediumint int integer float real char varchar";

pub(super) async fn look(
    job: &mut Job<'_>,
    dialect: Dialect,
    findings: &mut Vec<Finding>,
) -> SqlResult<()> {
    if let Some(column) = column_of(job, &calls::USERS, "passkey").await?
        && let Some(width) = column.short_of(PASSKEY_MADE)
    {
        findings.push(Finding::problem(
            format!(
                "{} holds {width} characters, and the passkeys that Mika makes have {PASSKEY_MADE}",
                column.named()
            ),
            column.altered(dialect, &column.text_type(dialect, PASSKEY_MAX)),
        ));
    }
    let hashes = hashes(job).await?;
    let prefix = column_of(job, &calls::WHITELIST, "peer_id").await?;
    if let Some(column) = &prefix
        && let Some(width) = column.short_of(PREFIX_MAX)
    {
        findings.push(Finding::note(
            format!(
                "{} holds {width} characters, and a prefix may have {PREFIX_MAX}",
                column.named()
            ),
            column.altered(dialect, &column.text_type(dialect, PREFIX_MAX)),
        ));
    }
    let session = job.session();
    findings.extend(session.look_at_forms(&hashes, prefix.as_ref()).await?);
    let users = (&calls::USERS, &calls::CREDIT_USERS);
    let torrents = (&calls::TORRENTS, &calls::CREDIT_TORRENTS);
    let of_users = ["uploaded", "downloaded", "seed_time"];
    totals(job, dialect, users, &of_users, findings).await?;
    totals(job, dialect, torrents, &of_users[..2], findings).await?;
    unfilled(job, dialect, findings).await
}

/// The columns of info hashes.
async fn hashes(job: &mut Job<'_>) -> SqlResult<Vec<SqlColumn>> {
    let mut hashes = Vec::new();
    for name in ["info_hash", "info_hash_v2"] {
        hashes.extend(column_of(job, &calls::TORRENTS, name).await?);
    }
    Ok(hashes)
}

/// The finding for info hashes that are text in one column and bytes in the other, where these can't be compared.
pub(super) async fn unlike_hashes(
    job: &mut Job<'_>,
    dialect: Dialect,
) -> SqlResult<Option<Finding>> {
    if dialect != Dialect::Postgres {
        return Ok(None);
    }
    let hashes = hashes(job).await?;
    let text = hashes.iter().find(|column| column.charset.is_some());
    let bytes = hashes.iter().find(|column| column.kind == "bytea");
    Ok(text.zip(bytes).map(|(text, bytes)| {
        let to_bytes = format!("bytea USING decode({}, 'hex')", text.name);
        Finding::problem(
            format!(
                "{} is text and {} is bytes: torrents can't be found by their info hashes",
                text.named(),
                bytes.named()
            ),
            text.altered(dialect, &to_bytes),
        )
    }))
}

/// Columns for credit that are too small for totals.
async fn totals(
    job: &mut Job<'_>,
    dialect: Dialect,
    (read, credit): (&'static Call, &'static Call),
    names: &[&str],
    findings: &mut Vec<Finding>,
) -> SqlResult<()> {
    for name in names {
        let Some(column) = column_of(job, read, name).await? else {
            continue;
        };
        let is_small = has_word(SMALL, column.type_name());
        if is_small && mentions(job.statements_of(credit), &column.table) {
            findings.push(Finding::problem(
                format!(
                    "{} is {}: a total of bytes or seconds does not fit",
                    column.named(),
                    column.kind
                ),
                column.altered(dialect, column.total_type(dialect)),
            ));
        }
    }
    Ok(())
}

/// Columns that require a value which a statement that adds a row does not give.
async fn unfilled(
    job: &mut Job<'_>,
    dialect: Dialect,
    findings: &mut Vec<Finding>,
) -> SqlResult<()> {
    let rows = job.call(&calls::COLUMNS_TO_FILL, &[]).await?;
    for (add, what) in [
        (&calls::ADD_USER, "users"),
        (&calls::ADD_TORRENT, "torrents"),
    ] {
        let statements = job.statements_of(add);
        let mut by_table: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows.iter() {
            let (table, column) = (row.text(0), row.text(1));
            if mentions(statements, &table) && !mentions(statements, &column) {
                by_table.entry(table).or_default().push(column);
            }
        }
        for (table, columns) in by_table {
            let names: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
            let quote = quote(dialect);
            let (noun, verb) = plural(columns.len(), ("column", "has"), ("columns", "have"));
            findings.push(Finding::note(
                format!(
                    "adding {what} by mika-manage or the API will fail: the {noun} {} of `{table}` {verb} no \
                     default and can't be NULL",
                    names.join(", ")
                ),
                format!(
                    "give it a default (ALTER TABLE {quote}{table}{quote} ALTER {quote}{}{quote} SET DEFAULT …), or \
                     put a statement that sets it into {}",
                    columns[0],
                    job.place(add).remedy()
                ),
            ));
        }
    }
    Ok(())
}

/// What stands around a name in a statement for people.
fn quote(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Mysql => "`",
        Dialect::Postgres | Dialect::Sqlite => "",
    }
}

impl SqlColumn {
    /// The statement that changes its type and keeps its other attributes.
    pub(in crate::storage) fn altered(&self, dialect: Dialect, kind: &str) -> String {
        let Self { table, name, .. } = self;
        if dialect != Dialect::Mysql {
            return format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {kind}");
        }
        let null = if self.is_nullable { "NULL" } else { "NOT NULL" };
        let default = self.default.as_deref().map(quoted);
        let default = default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
        format!("ALTER TABLE `{table}` MODIFY `{name}` {kind} {null}{default}")
    }

    fn text_type(&self, dialect: Dialect, width: u64) -> String {
        match (dialect, &self.charset) {
            (Dialect::Mysql, Some(charset)) => {
                let collation = &self.collation;
                format!("VARCHAR({width}) CHARACTER SET {charset} COLLATE {collation}")
            }
            _ => format!("varchar({width})"),
        }
    }

    fn total_type(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Mysql if self.kind.contains("unsigned") => "BIGINT UNSIGNED",
            Dialect::Mysql => "BIGINT",
            Dialect::Postgres | Dialect::Sqlite => "bigint",
        }
    }
}

/// A default as SQL: MariaDB shows it so, MySQL shows the bare text.
fn quoted(default: &str) -> String {
    let is_sql = default.starts_with('\'') || default.parse::<f64>().is_ok() || default == "NULL";
    if is_sql {
        return default.to_owned();
    }
    format!("'{}'", default.replace('\'', "''"))
}
