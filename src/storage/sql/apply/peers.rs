//! Writes settled peers.

use std::net::Ipv4Addr;

use super::super::calls;
use super::super::cells::{Cell, SqlRows};
use super::super::database::SqlResult;
use super::super::job::Job;
use crate::change::{PeerKey, PeerRecord};
use crate::storage::settle::{Base, HeldHistory, HeldPeer, PeerRow, Settlement, clamp};

/// Columns that are written: those that each announce changes, and all.
const OFTEN: usize = 22;
const ALL: usize = 27;
/// Columns of what reports are settled against, with the key.
const SESSIONS: usize = 11;

/// Rows to write, by what changed.
struct Changed {
    new: SqlRows,
    plain: SqlRows,
    others: SqlRows,
}

pub(super) async fn write(job: &mut Job<'_>, settled: &Settlement<'_>) -> SqlResult<()> {
    let mut older = SqlRows::new(SESSIONS);
    let changed = changed(settled, &mut older);
    // Another node may have inserted one of them meanwhile: then everything is settled again.
    job.call_for(&calls::INSERT_PEERS, changed.new).await?;
    job.call_for(&calls::UPDATE_PEERS_OFTEN, changed.plain)
        .await?;
    job.call_for(&calls::UPDATE_PEERS, changed.others).await?;
    job.call_for(&calls::UPDATE_SESSIONS, older).await?;
    let mut gone = SqlRows::new(3);
    for key in &settled.gone {
        gone.push(&key_cells(key));
    }
    job.call_for(&calls::DELETE_PEERS, gone).await?;
    Ok(())
}

/// The rows to write. Those whose record is newer than the reports are added to `older`.
fn changed(settled: &Settlement<'_>, older: &mut SqlRows) -> Changed {
    // Mostly all rows are of one kind. Room that is not used is never touched.
    let count = settled.peers.len();
    let mut changed = Changed {
        new: SqlRows::with_capacity(ALL, count),
        plain: SqlRows::with_capacity(OFTEN, count),
        others: SqlRows::with_capacity(ALL, count),
    };
    let mut sessions = Vec::new();
    for row in &settled.peers {
        row.held.pack(&mut sessions);
        let Some(record) = row.record else {
            push_sessions(older, row, &sessions);
            continue;
        };
        let history = settled.history_of(row);
        if row.is_new {
            push(&mut changed.new, row, record, history, &sessions);
        } else if settled.stays_plain(row) {
            push(&mut changed.plain, row, record, history, &sessions);
        } else {
            push(&mut changed.others, row, record, history, &sessions);
        }
    }
    changed
}

fn key_cells(key: &PeerKey) -> [Cell<'_>; 3] {
    [
        Cell::Int(key.user.0.into()),
        Cell::Int(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
    ]
}

/// The settled values, which follow the key in every row.
fn settled_cells<'a>(held: &HeldPeer, base: &Base, sessions: &'a [u8]) -> [Cell<'a>; 6] {
    [
        Cell::Int(clamp(base.up)),
        Cell::Int(clamp(base.down)),
        Cell::Int(base.at),
        Cell::Bytes(sessions),
        Cell::Int(clamp(held.uploaded)),
        Cell::Int(clamp(held.downloaded)),
    ]
}

fn push_sessions(rows: &mut SqlRows, row: &PeerRow<'_>, sessions: &[u8]) {
    let base = row.held.base();
    for cell in key_cells(&row.key) {
        rows.push_cell(cell);
    }
    for cell in settled_cells(&row.held, &base, sessions) {
        rows.push_cell(cell);
    }
    rows.push_cell(Cell::maybe(base.dip_up));
    rows.push_cell(Cell::maybe(base.dip_down));
}

/// Like `to_string`, which takes several times as long.
fn text_of(ip: Ipv4Addr) -> String {
    let mut text = String::with_capacity("255.255.255.255".len());
    for (place, octet) in ip.octets().into_iter().enumerate() {
        text.push_str(if place > 0 { "." } else { "" });
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

/// Appends as many columns of [`calls::PEER`] as `rows` has.
fn push(
    rows: &mut SqlRows,
    row: &PeerRow<'_>,
    record: &PeerRecord,
    history: &HeldHistory,
    sessions: &[u8],
) {
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    let [up, down, at, sessions, uploaded, downloaded] = settled_cells(&row.held, &base, sessions);
    let ip4 = record.v4.map(|address| text_of(*address.ip()));
    let ip6 = record.v6.map(|address| address.ip().to_string());
    let cells: [Cell<'_>; ALL] = [
        user,
        torrent,
        peer_id,
        up,
        down,
        at,
        sessions,
        uploaded,
        downloaded,
        Cell::maybe(record.left.map(clamp)),
        Cell::text(ip4.as_deref()),
        Cell::maybe(record.v4.map(|address| address.port().into())),
        Cell::text(ip6.as_deref()),
        Cell::maybe(record.v6.map(|address| address.port().into())),
        Cell::Int(record.speed_up.into()),
        Cell::Int(record.speed_down.into()),
        Cell::Int(record.seed_time.into()),
        Cell::Int(record.announces.into()),
        Cell::Int(record.first_announce),
        Cell::Int(record.active.into()),
        Cell::Int(record.paused.into()),
        Cell::Int(record.last_announce),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
        Cell::Int(history.hnr.into()),
        Cell::maybe((!record.active).then_some(record.last_announce)),
        Cell::maybe(history.completed_at),
    ];
    rows.push(&cells[..rows.width()]);
}
