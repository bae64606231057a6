//! Impossible totals, left by faulty statements of a web application.

use super::calls::{self, Call};
use super::cells::{SqlRow, SqlRows};
use super::database::SqlResult;
use super::job::Job;
use crate::storage::{InvalidTotals, PLAUSIBLE_MAX, Wipe};

/// The statement that reads rows, and the columns of their totals in it.
fn totals(what: Wipe) -> (&'static Call, Vec<(usize, &'static str)>) {
    let (call, others): (&'static Call, &[&str]) = match what {
        Wipe::Users => (&calls::USERS, &["seed_time"]),
        Wipe::Torrents => (&calls::TORRENTS, &["seeders", "leechers"]),
    };
    let totals = ["uploaded", "downloaded", "snatches", "announces"];
    let is_total = |name: &str| totals.contains(&name) || others.contains(&name);
    let columns = call.columns.split_whitespace().enumerate();
    (call, columns.filter(|(_, name)| is_total(name)).collect())
}

/// Checks `limit` rows after `after`; returns the findings and the last id checked.
pub(super) async fn find(
    job: &mut Job<'_>,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> SqlResult<(Vec<InvalidTotals>, Option<u32>)> {
    let (call, columns) = totals(what);
    let after = after.map_or(-1, i64::from);
    let params = [
        ("after", after.into()),
        ("limit", i64::from(limit.max(1)).into()),
    ];
    let rows = job.call(call, &params).await?;
    // The tracker does not count totals of a row whose id it can't hold.
    let known = |row: SqlRow<'_>| Some((row.id(0).ok()?, invalid_fields(row, &columns)));
    let rows: Vec<(u32, Vec<&'static str>)> = rows.iter().filter_map(known).collect();
    let last = rows.last().map(|(id, _)| *id);
    let invalid = rows.into_iter().filter(|(_, fields)| !fields.is_empty());
    let invalid = invalid.map(|(id, fields)| InvalidTotals { id, fields });
    Ok((invalid.collect(), last))
}

fn invalid_fields(row: SqlRow<'_>, columns: &[(usize, &'static str)]) -> Vec<&'static str> {
    let is_invalid = |place: usize| {
        let is_plausible = match row.key(place) {
            Some(total) => (0..=PLAUSIBLE_MAX.cast_signed()).contains(&total),
            // Another numeric type.
            None => row
                .number(place)
                .is_some_and(|total| (0.0..=PLAUSIBLE_MAX as f64).contains(&total)),
        };
        !row.is_null(place) && !is_plausible
    };
    columns
        .iter()
        .filter(|(place, _)| is_invalid(*place))
        .map(|(_, name)| *name)
        .collect()
}

pub(super) async fn fix(job: &mut Job<'_>, what: Wipe, ids: &[u32]) -> SqlResult<()> {
    let call = match what {
        Wipe::Users => &calls::FIX_USERS,
        Wipe::Torrents => &calls::FIX_TORRENTS,
    };
    job.require(call, "setting totals")?;
    job.begin().await?;
    job.call_for(call, SqlRows::of_ids(ids.iter().copied()))
        .await?;
    job.commit().await
}
