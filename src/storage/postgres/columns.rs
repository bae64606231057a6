//! The columns of a site: whether Mika's values fit, and whether theirs can be read.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::cells::{base, is_text};
use super::fault::PostgresFault;
use super::session::{PostgresSession, with_params};
use crate::storage::Finding;
use crate::storage::sql::calls::{self, Call};
use crate::storage::sql::cells::Cell;
use crate::storage::sql::statements::mentions;
use crate::storage::unusable::plural;

/// Characters of a generated passkey, and the maximum.
const PASSKEY_MADE: i64 = 32;
const PASSKEY_MAX: i64 = 64;
/// Characters of a whitelist prefix.
const PREFIX_MAX: i64 = 20;
/// Characters of an info hash as hexadecimal digits.
const HEX_DIGITS: i64 = 40;

/// A column of a table in the result of a statement.
struct SiteColumn {
    table: String,
    name: String,
    of: Type,
    /// The type as SQL.
    shown: String,
    /// Characters, if there is a limit.
    width: Option<i64>,
}

pub(super) async fn inspect(
    session: &mut PostgresSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    texts(session, findings).await?;
    hashes(session, findings).await?;
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
    session: &mut PostgresSession<'_>,
    add: &'static Call,
    what: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    let sql = "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid \
        WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid) AND a.attnum > 0 \
        AND c.relnamespace <> 'pg_catalog'::regnamespace \
        AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' \
        ORDER BY c.relname, a.attnum";
    let rows = session.query(sql, &[]).await?;
    let statements = session.statements_of(add);
    let mut by_table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows.iter() {
        let (table, column) = (row.text(0), row.text(1));
        if mentions(statements, &table) && !mentions(statements, &column) {
            by_table.entry(table).or_default().push(column);
        }
    }
    for (table, columns) in by_table {
        let (noun, verb) = plural(columns.len(), ("column", "has"), ("columns", "have"));
        let names: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
        findings.push(Finding::note(
            format!(
                "adding {what} by mika-manage or the API will fail: the {noun} {} of `{table}` {verb} no \
                 default and can't be NULL",
                names.join(", ")
            ),
            format!(
                "give it a default (ALTER TABLE {table} ALTER {} SET DEFAULT …), or put a \
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
    session: &mut PostgresSession<'_>,
    call: &'static Call,
    name: &str,
) -> Result<Option<SiteColumn>, PostgresFault> {
    let names = call.columns.split_whitespace();
    let place = names.into_iter().position(|column| column == name);
    let (Some(place), Some(statement)) = (place, session.statements_of(call).first()) else {
        return Ok(None);
    };
    let prepared = session.prepare(&with_params(statement, "").0).await?;
    let Some(result) = prepared.columns().get(place) else {
        return Ok(None);
    };
    let (Some(table), Some(number)) = (result.table_oid(), result.column_id()) else {
        return Ok(None);
    };
    let sql = "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypmod - 4 \
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid \
        WHERE a.attrelid = $1 AND a.attnum = $2";
    let params = [Cell::Int(table.into()), Cell::Int(number.into())];
    let rows = session.query(sql, &params).await?;
    Ok(rows.first().map(|row| SiteColumn {
        table: row.text(0),
        name: row.text(1),
        of: base(result.type_()).clone(),
        shown: row.text(2),
        width: row.integer(3).filter(|width| *width > 0),
    }))
}

/// Passkeys and prefixes.
async fn texts(
    session: &mut PostgresSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    if let Some(column) = column(session, &calls::USERS, "passkey").await?
        && let Some(width) = column.short_of(PASSKEY_MADE)
    {
        findings.push(Finding::problem(
            format!(
                "{} holds {width} characters, and the passkeys that Mika makes have {PASSKEY_MADE}",
                column.named()
            ),
            column.altered(&format!("varchar({PASSKEY_MAX})")),
        ));
    }
    if let Some(column) = column(session, &calls::WHITELIST, "peer_id").await?
        && let Some(width) = column.short_of(PREFIX_MAX)
    {
        findings.push(Finding::note(
            format!(
                "{} holds {width} characters, and a prefix may have {PREFIX_MAX}",
                column.named()
            ),
            column.altered(&format!("varchar({PREFIX_MAX})")),
        ));
    }
    Ok(())
}

/// Hashes can be read from hexadecimal digits, but bytes are shorter.
async fn hashes(
    session: &mut PostgresSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    for name in ["info_hash", "info_hash_v2"] {
        let Some(column) = column(session, &calls::TORRENTS, name).await? else {
            continue;
        };
        if let Some(width) = column.short_of(HEX_DIGITS) {
            findings.push(Finding::problem(
                format!(
                    "{} holds {width} characters, and an info hash has {HEX_DIGITS} hexadecimal digits",
                    column.named()
                ),
                column.altered(&format!("char({HEX_DIGITS})")),
            ));
        } else if column.of != Type::BYTEA && !is_text(&column.of) {
            findings.push(Finding::problem(
                format!("{} is {}, and not bytes", column.named(), column.shown),
                column.altered("bytea"),
            ));
        }
    }
    Ok(())
}

/// Columns for credit that are too small for totals.
async fn totals(
    session: &mut PostgresSession<'_>,
    (read, credit): (&'static Call, &'static Call),
    names: &[&str],
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    for name in names {
        let Some(column) = column(session, read, name).await? else {
            continue;
        };
        let is_small = [Type::INT2, Type::INT4, Type::FLOAT4].contains(&column.of);
        if is_small && mentions(session.statements_of(credit), &column.table) {
            findings.push(Finding::problem(
                format!(
                    "{} is {}: a total of bytes or seconds does not fit",
                    column.named(),
                    column.shown
                ),
                column.altered("bigint"),
            ));
        }
    }
    Ok(())
}

// === impl SiteColumn ===

impl SiteColumn {
    fn named(&self) -> String {
        format!("the column `{}` of `{}`", self.name, self.table)
    }

    /// The characters that it holds, if it is text and holds fewer than that.
    fn short_of(&self, wanted: i64) -> Option<i64> {
        self.width
            .filter(|width| is_text(&self.of) && *width < wanted)
    }

    fn altered(&self, kind: &str) -> String {
        let Self { table, name, .. } = self;
        format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {kind}")
    }
}
