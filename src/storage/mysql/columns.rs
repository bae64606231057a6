//! The columns of a site: whether Mika's values fit, and whether theirs can be read.

use std::collections::BTreeMap;

use mysql_async::Column;
use mysql_async::consts::ColumnType;

use super::fault::MysqlFault;
use super::hashes::{TextColumn, text_column};
use super::session::MysqlSession;
use crate::storage::Finding;
use crate::storage::sql::calls::{self, Call};
use crate::storage::sql::cells::SqlRow;
use crate::storage::sql::statements::mentions;
use crate::storage::unusable::plural;

/// Characters of a generated passkey, and the maximum.
const PASSKEY_MADE: u64 = 32;
const PASSKEY_MAX: u64 = 64;
/// Characters of a whitelist prefix.
const PREFIX_MAX: u64 = 20;
/// Bytes of an info hash.
const HASH_BYTES: u64 = 20;
/// Characters of a column that holds an info hash as hexadecimal digits.
const HEX_DIGITS: u64 = 40;

pub(super) async fn inspect(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    passkeys(session, findings).await?;
    hashes(session, findings).await?;
    prefixes(session, findings).await?;
    let users = (&calls::USERS, &calls::CREDIT_USERS);
    totals(
        session,
        users,
        &["uploaded", "downloaded", "seed_time"],
        findings,
    )
    .await?;
    let torrents = (&calls::TORRENTS, &calls::CREDIT_TORRENTS);
    totals(session, torrents, &["uploaded", "downloaded"], findings).await?;
    unfilled(session, &calls::ADD_USER, "users", findings).await?;
    unfilled(session, &calls::ADD_TORRENT, "torrents", findings).await
}

/// Columns that require a value which a statement does not give.
async fn unfilled(
    session: &mut MysqlSession<'_>,
    add: &'static Call,
    what: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    // An ENUM without a default gets its first value.
    let sql = "SELECT table_name, column_name FROM information_schema.columns \
        WHERE table_schema = DATABASE() AND is_nullable = 'NO' AND column_default IS NULL \
        AND extra NOT LIKE '%auto_increment%' AND COALESCE(generation_expression, '') = '' \
        AND data_type <> 'enum' ORDER BY table_name, ordinal_position";
    let rows = session.query(sql).await?;
    let statements = session.statements_of(add);
    let mut by_table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows.iter() {
        let (table, column) = (row.text(0), row.text(1));
        if mentions(statements, &table) && !mentions(statements, &column) {
            let columns = by_table.entry(table).or_default();
            columns.push(format!("`{column}`"));
        }
    }
    for (table, columns) in by_table {
        let (noun, verb) = plural(columns.len(), ("column", "has"), ("columns", "have"));
        findings.push(Finding::note(
            format!(
                "adding {what} by mika-manage or the API will fail: the {noun} {} of `{table}` {verb} no \
                 default and can't be NULL",
                columns.join(", ")
            ),
            format!(
                "give it a default (ALTER TABLE `{table}` ALTER {} SET DEFAULT …), or put a \
                 statement that sets it into {}",
                columns[0],
                session.statements.place(add).remedy()
            ),
        ));
    }
    Ok(())
}

/// The column of that name in the result of a statement.
async fn column(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    name: &str,
) -> Result<Option<Column>, MysqlFault> {
    let place = call
        .columns
        .split_whitespace()
        .position(|column| column == name);
    let (Some(place), Some(statement)) = (place, session.statements_of(call).first()) else {
        return Ok(None);
    };
    let columns = session.described(statement).await?;
    Ok(columns.get(place).cloned())
}

async fn text(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    name: &str,
) -> Result<Option<TextColumn>, MysqlFault> {
    match column(session, call, name).await? {
        Some(column) => text_column(session, &column).await,
        None => Ok(None),
    }
}

async fn passkeys(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    let Some(column) = text(session, &calls::USERS, "passkey").await? else {
        return Ok(());
    };
    if column.width < PASSKEY_MADE {
        let kind = format!("VARCHAR({PASSKEY_MAX})");
        findings.push(Finding::problem(
            format!(
                "{} holds {} characters, and the passkeys that Mika makes have {PASSKEY_MADE}",
                column.shown(),
                column.width
            ),
            column.altered(session, &column.in_charset(&kind)).await?,
        ));
    }
    Ok(())
}

/// Hashes can be read from text in `latin1`, but bytes are simpler.
async fn hashes(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    for name in ["info_hash", "info_hash_v2"] {
        let Some(column) = text(session, &calls::TORRENTS, name).await? else {
            continue;
        };
        if column.width >= HEX_DIGITS || column.charset == "ascii" {
            continue;
        }
        let shown = column.shown();
        let (is_latin1, is_utf8) = (
            column.charset == "latin1",
            column.charset.starts_with("utf8"),
        );
        if is_latin1 || is_utf8 {
            // A conversion would put zeros in place of blanks that such a column has lost.
            if is_latin1 && !column.is_char {
                findings.push(Finding::note(
                    format!(
                        "{shown} is text ({}): it works, bytes are safer",
                        column.charset
                    ),
                    to_bytes(session, &column, "").await?,
                ));
            }
            continue;
        }
        let problem = format!(
            "{shown} is text in {}: hashes with a byte above 127 can't be read",
            column.charset
        );
        let hint = if column.is_char {
            format!(
                "add a column BINARY(20), fill it with CAST(RPAD(`{name}`, 20, ' ') AS BINARY) where \
                 `{name}` <> '', and give it this one's name",
                name = column.name
            )
        } else {
            to_bytes(session, &column, " (which keeps the bytes as they are)").await?
        };
        findings.push(Finding::problem(problem, hint));
    }
    Ok(())
}

/// How to convert a column of hashes to bytes. `BINARY(20)` pads shorter values with zeros, which makes a
/// wrong hash look valid, and all empty ones equal; so these are fixed first.
async fn to_bytes(
    session: &mut MysqlSession<'_>,
    column: &TextColumn,
    remark: &str,
) -> Result<String, MysqlFault> {
    let (table, name) = (&column.table, &column.name);
    let sql = format!(
        "SELECT COALESCE(SUM(LENGTH(`{name}`) = 0), 0), \
         COALESCE(SUM(LENGTH(`{name}`) NOT IN (0, {HASH_BYTES})), 0) FROM `{table}`"
    );
    let rows = session.query(&sql).await?;
    let count = |place| rows.first().map_or(0, |row| row.total(place));
    let (empty, wrong) = (count(0), count(1));
    if wrong > 0 {
        return Ok(format!(
            "correct the rows named below first ({wrong} of `{table}` have hashes that are not \
             {HASH_BYTES} bytes), then run the check again for the ALTER TABLE"
        ));
    }
    let known = described(session, table, name).await?;
    if empty > 0 {
        let is_nullable = known.as_ref().is_some_and(|column| column.is_nullable);
        return Ok(if is_nullable {
            format!(
                "UPDATE `{table}` SET `{name}` = NULL WHERE LENGTH(`{name}`) = 0, then run the check \
                 again for the ALTER TABLE"
            )
        } else {
            format!(
                "first give the rows of `{table}` whose `{name}` is empty ({empty}) a hash, or let the \
                 column be NULL and write NULL there; then run the check again for the ALTER TABLE"
            )
        });
    }
    let altered = column.altered(session, "BINARY(20)").await?;
    Ok(format!("{altered}{remark}"))
}

async fn prefixes(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    let Some(column) = text(session, &calls::WHITELIST, "peer_id").await? else {
        return Ok(());
    };
    let shown = column.shown();
    if column.width < PREFIX_MAX {
        let kind = format!("VARCHAR({PREFIX_MAX})");
        findings.push(Finding::note(
            format!(
                "{shown} holds {} characters, and a prefix may have {PREFIX_MAX}",
                column.width
            ),
            column.altered(session, &column.in_charset(&kind)).await?,
        ));
    }
    if !column.collation.ends_with("_bin") && is_unique(session, &column).await? {
        let kind = format!(
            "VARCHAR({}) CHARACTER SET {charset} COLLATE {charset}_bin",
            column.width.max(PREFIX_MAX),
            charset = column.charset
        );
        findings.push(Finding::note(
            format!(
                "the key of {shown} takes capitals and small letters for the same ({}): of -LT and \
                 -lt only one can be there",
                column.collation
            ),
            column.altered(session, &kind).await?,
        ));
    }
    Ok(())
}

async fn is_unique(
    session: &mut MysqlSession<'_>,
    column: &TextColumn,
) -> Result<bool, MysqlFault> {
    let sql = "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() \
        AND table_name = ? AND column_name = ? AND non_unique = 0 LIMIT 1";
    let params = [column.table.as_str().into(), column.name.as_str().into()];
    Ok(!session.exec(sql, &params).await?.is_empty())
}

/// Columns for credit that are too small for totals.
async fn totals(
    session: &mut MysqlSession<'_>,
    (read, credit): (&'static Call, &'static Call),
    names: &[&str],
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    for name in names {
        let Some(column) = column(session, read, name).await? else {
            continue;
        };
        let (table, name) = (column.org_table_str(), column.org_name_str());
        let is_small = matches!(
            column.column_type(),
            ColumnType::MYSQL_TYPE_TINY
                | ColumnType::MYSQL_TYPE_SHORT
                | ColumnType::MYSQL_TYPE_INT24
                | ColumnType::MYSQL_TYPE_LONG
                | ColumnType::MYSQL_TYPE_FLOAT
                | ColumnType::MYSQL_TYPE_VAR_STRING
                | ColumnType::MYSQL_TYPE_STRING
        );
        if name.is_empty() || !is_small || !mentions(session.statements_of(credit), &table) {
            continue;
        }
        let Some(known) = described(session, &table, &name).await? else {
            continue;
        };
        let is_unsigned = known.kind.contains("unsigned");
        let kind = if is_unsigned {
            "BIGINT UNSIGNED"
        } else {
            "BIGINT"
        };
        findings.push(Finding::problem(
            format!(
                "the column `{name}` of `{table}` is {}: a total of bytes or seconds does not fit",
                known.kind
            ),
            known.altered(&table, &name, kind),
        ));
    }
    Ok(())
}

/// The attributes to repeat when a column gets another type.
struct Described {
    kind: String,
    is_nullable: bool,
    /// As in an `ALTER TABLE`; none without a default.
    default: Option<String>,
}

async fn described(
    session: &mut MysqlSession<'_>,
    table: &str,
    column: &str,
) -> Result<Option<Described>, MysqlFault> {
    let sql = "SELECT column_type, is_nullable, column_default FROM information_schema.columns \
        WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?";
    let rows = session.exec(sql, &[table.into(), column.into()]).await?;
    let described = |row: SqlRow<'_>| Described {
        kind: row.text(0),
        is_nullable: row.text(1) == "YES",
        default: (!row.is_null(2)).then(|| quoted(&row.text(2))),
    };
    Ok(rows.first().map(described))
}

/// A default as SQL: MariaDB shows it so, MySQL shows the bare text.
fn quoted(default: &str) -> String {
    let is_sql = default.starts_with('\'') || default.parse::<f64>().is_ok() || default == "NULL";
    if is_sql {
        return default.to_owned();
    }
    format!("'{}'", default.replace('\'', "''"))
}

// === impl Described ===

impl Described {
    fn altered(&self, table: &str, column: &str, kind: &str) -> String {
        let null = if self.is_nullable { "NULL" } else { "NOT NULL" };
        let default = match &self.default {
            Some(default) => format!(" DEFAULT {default}"),
            None => String::new(),
        };
        format!("ALTER TABLE `{table}` MODIFY `{column}` {kind} {null}{default}")
    }
}

// === impl TextColumn ===

impl TextColumn {
    fn shown(&self) -> String {
        format!("the column `{}` of `{}`", self.name, self.table)
    }

    fn in_charset(&self, kind: &str) -> String {
        let (charset, collation) = (&self.charset, &self.collation);
        format!("{kind} CHARACTER SET {charset} COLLATE {collation}")
    }

    /// The statement that changes its type and keeps its other attributes.
    async fn altered(
        &self,
        session: &mut MysqlSession<'_>,
        kind: &str,
    ) -> Result<String, MysqlFault> {
        let known = described(session, &self.table, &self.name).await?;
        Ok(match known {
            Some(known) => known.altered(&self.table, &self.name, kind),
            None => format!("ALTER TABLE `{}` MODIFY `{}` {kind}", self.table, self.name),
        })
    }
}
