//! The last applied batch of each journal.

use super::super::calls;
use super::super::cells::SqlRows;
use super::super::database::SqlResult;
use super::super::job::Job;
use crate::storage::settle::clamp;

/// All journals, with the number of the last batch of each.
pub(in crate::storage::sql) async fn journals(job: &mut Job<'_>) -> SqlResult<Vec<(String, u64)>> {
    let rows = job.call(&calls::JOURNALS, &[]).await?;
    Ok(rows.iter().map(|row| (row.text(0), row.total(1))).collect())
}

/// Gives up missing batches up to `number`.
pub(in crate::storage::sql) async fn begin_at(
    job: &mut Job<'_>,
    journal: &str,
    number: u64,
) -> SqlResult<()> {
    let params = [("node", journal.into()), ("applied", clamp(number).into())];
    job.call(&calls::RAISE_APPLIED, &params).await?;
    Ok(())
}

/// Forgets a journal's number if it is still this one.
pub(in crate::storage::sql) async fn forget(
    job: &mut Job<'_>,
    journal: &str,
    number: u64,
) -> SqlResult<bool> {
    let params = [("node", journal.into()), ("applied", clamp(number).into())];
    let gone = job.call(&calls::FORGET_JOURNAL, &params).await?.changed;
    Ok(gone > 0)
}

/// Waits for an open transaction of the same journal, whose process may be gone.
pub(in crate::storage::sql) async fn last_applied(
    job: &mut Job<'_>,
    journal: &str,
) -> SqlResult<u64> {
    let rows = job
        .call(&calls::APPLIED, &[("node", journal.into())])
        .await?;
    Ok(number(&rows).unwrap_or(0))
}

/// The number, locked until the end of this transaction.
pub(super) async fn applied_for_update(job: &mut Job<'_>, journal: &str) -> SqlResult<u64> {
    let params = [("node", journal.into())];
    if let Some(applied) = number(&job.call(&calls::APPLIED, &params).await?) {
        return Ok(applied);
    }
    // A missing row can't be locked: two first batches would both count.
    job.call(&calls::INSERT_JOURNAL, &params).await?;
    let rows = job.call(&calls::APPLIED, &params).await?;
    Ok(number(&rows).unwrap_or(0))
}

fn number(rows: &SqlRows) -> Option<u64> {
    rows.first().map(|row| row.total(0))
}
