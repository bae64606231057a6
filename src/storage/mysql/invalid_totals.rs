//! Impossible totals, left by faulty statements of a web application.

use mysql_async::{Row, Value};

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::link::MysqlSession;
use super::rows::RowsSql;
use crate::storage::schema::{self, Call};
use crate::storage::{InvalidTotals, PLAUSIBLE_MAX, Wipe};

/// Ids that one statement fixes.
const ROWS_MAX: usize = 500;

/// The statement that reads rows, and the columns of their totals in it.
fn totals(what: Wipe) -> (&'static Call, Vec<(usize, &'static str)>) {
    let (call, names): (&'static Call, &[&str]) = match what {
        Wipe::Users => (
            &schema::USERS,
            &[
                "uploaded",
                "downloaded",
                "snatches",
                "announces",
                "seed_time",
            ],
        ),
        Wipe::Torrents => (
            &schema::TORRENTS,
            &[
                "uploaded",
                "downloaded",
                "snatches",
                "announces",
                "seeders",
                "leechers",
            ],
        ),
    };
    let columns = call.columns.split_whitespace().enumerate();
    (
        call,
        columns.filter(|(_, name)| names.contains(name)).collect(),
    )
}

pub(super) async fn find(
    session: &mut MysqlSession<'_>,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> Result<(Vec<InvalidTotals>, Option<u32>), MysqlFault> {
    let (call, columns) = totals(what);
    let after = Value::from(after.map_or(-1, i64::from));
    let params = [("after", after), ("limit", limit.max(1).into())];
    let rows = session.call(call, &params).await?;
    // The tracker does not count totals of a row whose id it can't hold.
    let known = |row: &Row| Some((MysqlCells(row).id(0).ok()?, invalid_fields(row, &columns)));
    let rows: Vec<(u32, Vec<&'static str>)> = rows.iter().filter_map(known).collect();
    let last = rows.last().map(|(id, _)| *id);
    let invalid = rows.into_iter().filter(|(_, fields)| !fields.is_empty());
    Ok((
        invalid
            .map(|(id, fields)| InvalidTotals { id, fields })
            .collect(),
        last,
    ))
}

fn invalid_fields(row: &Row, columns: &[(usize, &'static str)]) -> Vec<&'static str> {
    let is_invalid = |place: usize| {
        let cells = MysqlCells(row);
        // Any numeric type; the limit is exact in floating point, too.
        let number: Option<f64> = cells.text(place).parse().ok();
        !cells.is_null(place)
            && !number.is_some_and(|number| (0.0..=PLAUSIBLE_MAX as f64).contains(&number))
    };
    columns
        .iter()
        .filter(|(place, _)| is_invalid(*place))
        .map(|(_, name)| *name)
        .collect()
}

pub(super) async fn fix(
    session: &mut MysqlSession<'_>,
    what: Wipe,
    ids: &[u32],
) -> Result<(), MysqlFault> {
    let call = match what {
        Wipe::Users => &schema::FIX_USERS,
        Wipe::Torrents => &schema::FIX_TORRENTS,
    };
    for ids in ids.chunks(ROWS_MAX) {
        let wanted = RowsSql::of(ids.iter().map(|id| [(*id).into()]));
        session.call_with(call, &wanted).await?;
    }
    Ok(())
}
