//! The columns of a site in which character sets matter: info hashes and prefixes.

use super::fault::MysqlResult;
use super::session::MysqlSession;
use crate::storage::Finding;
use crate::storage::sql::catalogue::SqlColumn;
use crate::storage::sql::header::Dialect;

/// Characters of a whitelist prefix.
const PREFIX_MAX: u64 = 20;
/// Bytes of an info hash.
const HASH_BYTES: u64 = 20;
/// Characters of a column that holds an info hash as hexadecimal digits.
const HEX_DIGITS: u64 = 40;

/// Hashes can be read from text in `latin1`, but bytes are simpler.
pub(super) async fn hashes(
    session: &mut MysqlSession<'_>,
    columns: &[SqlColumn],
    findings: &mut Vec<Finding>,
) -> MysqlResult<()> {
    for column in columns {
        let charset = column.charset.as_deref().unwrap_or("ascii");
        if charset == "ascii" || column.short_of(HEX_DIGITS).is_none() {
            continue;
        }
        // It loses blanks at the end.
        let is_char = column.type_name() == "char";
        let shown = column.named();
        let is_latin1 = charset == "latin1";
        if is_latin1 || charset.starts_with("utf8") {
            // A conversion would put zeros in place of blanks that such a column has lost.
            if is_latin1 && !is_char {
                findings.push(Finding::note(
                    format!("{shown} is text ({charset}): it works, bytes are safer"),
                    to_bytes(session, column, "").await?,
                ));
            }
            continue;
        }
        let problem =
            format!("{shown} is text in {charset}: hashes with a byte above 127 can't be read");
        let hint = if is_char {
            format!(
                "add a column BINARY(20), fill it with CAST(RPAD(`{name}`, 20, ' ') AS BINARY) where \
                 `{name}` <> '', and give it this one's name",
                name = column.name
            )
        } else {
            to_bytes(session, column, " (which keeps the bytes as they are)").await?
        };
        findings.push(Finding::problem(problem, hint));
    }
    Ok(())
}

/// How to convert a column of hashes to bytes. `BINARY(20)` pads shorter values with zeros, which makes a
/// wrong hash look valid, and all empty ones equal; so these are fixed first.
async fn to_bytes(
    session: &mut MysqlSession<'_>,
    column: &SqlColumn,
    remark: &str,
) -> MysqlResult<String> {
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
    if empty > 0 {
        return Ok(if column.is_nullable {
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
    let altered = column.altered(Dialect::Mysql, "BINARY(20)");
    Ok(format!("{altered}{remark}"))
}

/// A key may take prefixes for the same that Mika distinguishes.
pub(super) async fn prefixes(
    session: &mut MysqlSession<'_>,
    column: &SqlColumn,
    findings: &mut Vec<Finding>,
) -> MysqlResult<()> {
    let (Some(charset), Some(width)) = (&column.charset, column.width) else {
        return Ok(());
    };
    let sql = "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() \
        AND table_name = ? AND column_name = ? AND non_unique = 0 LIMIT 1";
    let params = [column.table.as_str().into(), column.name.as_str().into()];
    if column.collation.ends_with("_bin") || session.exec(sql, &params).await?.is_empty() {
        return Ok(());
    }
    let kind = format!(
        "VARCHAR({}) CHARACTER SET {charset} COLLATE {charset}_bin",
        width.max(PREFIX_MAX)
    );
    findings.push(Finding::note(
        format!(
            "the key of {} takes capitals and small letters for the same ({}): of -LT and -lt only one can be there",
            column.named(),
            column.collation
        ),
        column.altered(Dialect::Mysql, &kind),
    ));
    Ok(())
}
