//! Credit into the tables of a site, which may not take all of it.
//!
//! A column too small for a total, a constraint or a trigger of the site that refuses a row: none of
//! these may keep the credit of everybody else from being written, and none may pass unseen. So a
//! statement that fails for a value is tried again with half of its rows, down to the row that is
//! refused. Of that row each total grows as far as its column goes, as the server does without strict mode;
//! if it is refused even then, it is left out. Either way the log says which row it was and what was to be
//! added, once it is committed.

use super::fault::Fault;
use super::link::Session;
use super::rows::Rows;
use super::settings::SQL_MODE;
use crate::storage::schema::Call;

/// Adds these rows by a named statement of credit.
pub(super) async fn write(
    session: &mut Session<'_>,
    call: &'static Call,
    rows: &Rows,
) -> Result<(), Fault> {
    for portion in rows.portions() {
        // Halves that are still to be written, the first one last.
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

/// Writes all of these rows, or none; then why not, if a value is the cause.
async fn try_to_write(
    session: &mut Session<'_>,
    call: &'static Call,
    rows: &Rows,
) -> Result<Option<Fault>, Fault> {
    // A statement undoes itself; several need a point to go back to.
    let is_several = session.statements_of(call).len() > 1;
    if is_several {
        session.run("SAVEPOINT credit").await?;
    }
    match session.call_with(call, rows).await {
        Ok(_) => Ok(None),
        Err(fault) if fault.refused().is_some() => {
            if is_several {
                session.run("ROLLBACK TO SAVEPOINT credit").await?;
            }
            Ok(Some(fault))
        }
        Err(fault) => Err(fault),
    }
}

/// Writes the one row as far as it goes.
async fn write_what_fits(
    session: &mut Session<'_>,
    call: &'static Call,
    row: &Rows,
    fault: Fault,
) -> Result<(), Fault> {
    let problem = fault.refused().map(|refused| refused.to_string());
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
        None => "the totals that did not fit stopped at the largest number of their column",
        Some(_) => "the row was left out",
    };
    session.notes.push(format!(
        "{}: {}: {what}; to be added were ({}) = ({})",
        call.name,
        problem.unwrap_or_default(),
        call.rows.replace(' ', ", "),
        row.first()
    ));
    Ok(())
}
