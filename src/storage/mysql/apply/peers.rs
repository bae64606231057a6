//! Writes settled peers.

use super::{IS_WANTED, inserts, key_cells, updates};
use crate::change::PeerRecord;
use crate::storage::mysql::fault::MysqlFault;
use crate::storage::mysql::link::MysqlSession;
use crate::storage::mysql::rows::{Cell, INSERT_ROWS_MAX, RowsSql};
use crate::storage::mysql::tables::Own;
use crate::storage::settle::{Base, HeldHistory, HeldPeer, PeerRow, Settlement, clamp};

/// The key of a peer.
const PEER_KEY: [&str; 3] = ["user_id", "torrent_id", "peer_id"];

/// Columns of what reports are settled against.
const SESSIONS: [&str; 8] = [
    "base_up",
    "base_down",
    "base_at",
    "sessions",
    "uploaded",
    "downloaded",
    "dip_up",
    "dip_down",
];

/// Columns of a peer after its key. The last [`PEER_SELDOM`] are unchanged unless something
/// happened.
const PEER: [&str; 24] = [
    "base_up",
    "base_down",
    "base_at",
    "sessions",
    "uploaded",
    "downloaded",
    "left_bytes",
    "ip4",
    "port4",
    "ip6",
    "port6",
    "speed_up",
    "speed_down",
    "seed_time",
    "announces",
    "first_announce",
    "active",
    "paused",
    "last_announce",
    "dip_up",
    "dip_down",
    "hnr",
    "inactive_since",
    "completed_at",
];
const PEER_SELDOM: usize = 5;

/// A peer that is to be written.
struct Peer<'a> {
    row: &'a PeerRow<'a>,
    record: &'a PeerRecord,
    history: &'a HeldHistory,
    sessions: &'a [u8],
}

pub(super) async fn write_peers(
    session: &mut MysqlSession<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    let mut older = RowsSql::default();
    let parts = settled.peers.chunks(INSERT_ROWS_MAX);
    let statements = parts.flat_map(|part| peers_written(own, settled, part, &mut older));
    // Another node may have inserted one of them meanwhile: then everything is settled again.
    session.run_each(statements).await?;
    write_sessions(session, own, &older).await?;
    delete_peers(session, own, settled).await
}

/// Statements that write peers. Those whose record is newer than the reports are added to `older`.
fn peers_written(
    own: &Own,
    settled: &Settlement<'_>,
    peers: &[PeerRow<'_>],
    older: &mut RowsSql,
) -> Vec<String> {
    let (mut new, mut plain, mut others) =
        (RowsSql::default(), RowsSql::default(), RowsSql::default());
    let mut sessions = Vec::new();
    for row in peers {
        row.held.pack(&mut sessions);
        let Some(record) = row.record else {
            push_sessions(older, row, &sessions);
            continue;
        };
        let peer = Peer {
            row,
            record,
            history: settled.history_of(row),
            sessions: &sessions,
        };
        if row.is_new {
            push_peer(&mut new, &peer, PEER.len());
        } else if settled.stays_plain(row) {
            push_peer(&mut plain, &peer, PEER.len() - PEER_SELDOM);
        } else {
            push_peer(&mut others, &peer, PEER.len());
        }
    }
    let often = &PEER[..PEER.len() - PEER_SELDOM];
    let mut statements = inserts(&own.peers, &PEER_KEY, &PEER, &new);
    statements.extend(updates(&own.peers, &PEER_KEY, often, &plain));
    statements.extend(updates(&own.peers, &PEER_KEY, &PEER, &others));
    statements
}

/// Rows whose record is newer than the reports that were settled against them.
async fn write_sessions(
    session: &mut MysqlSession<'_>,
    own: &Own,
    older: &RowsSql,
) -> Result<(), MysqlFault> {
    let columns = [&PEER_KEY[..], &SESSIONS].concat().join(" ");
    let set = |column: &str| format!("peer.{column} = wanted.{column}");
    let sets = SESSIONS.map(set).join(", ");
    for table in older.tables(&columns) {
        let sql = format!(
            "UPDATE {table} AS wanted STRAIGHT_JOIN {} AS peer ON {IS_WANTED} SET {sets}",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

async fn delete_peers(
    session: &mut MysqlSession<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    let mut gone = RowsSql::default();
    for key in &settled.gone {
        gone.push(&key_cells(key));
    }
    for table in gone.tables("user_id torrent_id peer_id") {
        let sql = format!(
            "DELETE peer FROM {table} AS wanted STRAIGHT_JOIN {} AS peer ON {IS_WANTED}",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

/// The first columns of both [`SESSIONS`] and [`PEER`]: the settled values.
fn settled_cells<'a>(held: &HeldPeer, base: &Base, sessions: &'a [u8]) -> [Cell<'a>; 6] {
    [
        Cell::Number(clamp(base.up)),
        Cell::Number(clamp(base.down)),
        Cell::Number(base.at),
        Cell::Bytes(sessions),
        Cell::Number(clamp(held.uploaded)),
        Cell::Number(clamp(held.downloaded)),
    ]
}

fn push_sessions(rows: &mut RowsSql, row: &PeerRow<'_>, sessions: &[u8]) {
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    let [up, down, at, sessions, uploaded, downloaded] = settled_cells(&row.held, &base, sessions);
    let (dip_up, dip_down) = (Cell::maybe(base.dip_up), Cell::maybe(base.dip_down));
    rows.push(&[
        user, torrent, peer_id, up, down, at, sessions, uploaded, downloaded, dip_up, dip_down,
    ]);
}

/// Appends the key, and the first `columns` of [`PEER`].
fn push_peer(rows: &mut RowsSql, peer: &Peer<'_>, columns: usize) {
    let Peer {
        row,
        record,
        history,
        sessions,
    } = peer;
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    let [up, down, at, sessions, uploaded, downloaded] = settled_cells(&row.held, &base, sessions);
    let ip4 = record.v4.map(|address| address.ip().to_string());
    let ip6 = record.v6.map(|address| address.ip().to_string());
    let cells = [
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
        Cell::Number(record.speed_up.into()),
        Cell::Number(record.speed_down.into()),
        Cell::Number(record.seed_time.into()),
        Cell::Number(record.announces.into()),
        Cell::Number(record.first_announce),
        Cell::Number(record.active.into()),
        Cell::Number(record.paused.into()),
        Cell::Number(record.last_announce),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
        Cell::Number(history.hnr.into()),
        Cell::maybe((!record.active).then_some(record.last_announce)),
        Cell::maybe(history.completed_at),
    ];
    rows.push(&cells[..PEER_KEY.len() + columns]);
}
