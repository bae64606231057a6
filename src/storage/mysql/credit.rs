//! Writes credit to the tables of a site, which may refuse some of it.
//!
//! A column that is too small for a total, or a constraint or trigger of the site that refuses a row, must
//! not block the credit of all others, and must not go unnoticed. So a statement that fails for a value is
//! retried with half of its rows, down to the refused row. The totals of that row are clamped to their
//! columns, as the server does without strict mode; if it is refused even then, it is skipped. Either way
//! the row and its credit are logged after the commit.

use super::fault::MysqlFault;
use super::link::MysqlSession;
use super::rows::RowsSql;
use super::settings::SQL_MODE;
use crate::storage::schema::{self, Call};

/// Adds these rows by a named statement of credit.
pub(super) async fn write(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    rows: &RowsSql,
) -> Result<(), MysqlFault> {
    for portion in rows.portions() {
        // A stack of the parts still to be written, the first on top.
        let mut parts = vec![portion];
        while let Some(part) = parts.pop() {
            let Some(fault) = try_to_write(session, call, &part).await? else {
                continue;
            };
            if part.len() > 1 {
                let [first, second] = part.halves();
                parts.extend([second, first]);
            } else {
                write_what_fits(session, call, &part, fault).await?;
            }
        }
    }
    Ok(())
}

/// Writes all of these rows, or none; returns why not, if a value is the cause.
async fn try_to_write(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    rows: &RowsSql,
) -> Result<Option<MysqlFault>, MysqlFault> {
    // A failed statement is rolled back by itself; several need a savepoint.
    let is_several = session.statements_of(call).len() > 1;
    if is_several {
        session.run("SAVEPOINT credit").await?;
    }
    match session.call_with(call, rows).await {
        Ok(_) => Ok(None),
        Err(fault) if fault.refused_row().is_some() || is_other_key(&fault, call) => {
            if is_several {
                session.run("ROLLBACK TO SAVEPOINT credit").await?;
            }
            Ok(Some(fault))
        }
        Err(fault) => Err(fault),
    }
}

/// An added torrent may violate a unique key of the site's.
fn is_other_key(fault: &MysqlFault, call: &'static Call) -> bool {
    call.name == schema::ADD_SNATCHED.name && fault.duplicate_key().is_some()
}

/// Writes the one row, clamped to its columns.
async fn write_what_fits(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    row: &RowsSql,
    fault: MysqlFault,
) -> Result<(), MysqlFault> {
    if fault.duplicate_key().is_some() {
        // The site may have added that torrent just now: then the batch is retried, and finds it.
        let known = session
            .call_with_columns(&schema::TORRENTS_OF_HASHES, call.rows, row)
            .await?;
        if !known.is_empty() {
            return Err(fault);
        }
    }
    let key = fault.duplicate_key();
    let problem = match key {
        Some(key) => format!("another row has the same value in the key `{key}`"),
        None => fault.refused_row().unwrap_or_default(),
    };
    session.is_lenient = true;
    session
        .run("SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION'")
        .await?;
    let left_out = try_to_write(session, call, row).await;
    session
        .run(&format!("SET SESSION sql_mode = '{SQL_MODE}'"))
        .await?;
    session.is_lenient = false;
    let what = match left_out? {
        None => "what fits was written, a total as far as its column goes",
        Some(_) => "the row was left out",
    };
    session.notes.push(format!(
        "{}: {}: {what}; to be added were ({}) = ({})",
        call.name,
        problem,
        call.rows.replace(' ', ", "),
        row.first()
    ));
    Ok(())
}
