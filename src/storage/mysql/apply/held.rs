//! Loads and locks the rows that reports are settled against.

use super::{IS_WANTED, key_cells};
use crate::accounting::coverage::Coverage;
use crate::accounting::peer::PeerAccount;
use crate::change::RecordAge;
use crate::storage::mysql::cells::MysqlCells;
use crate::storage::mysql::fault::MysqlFault;
use crate::storage::mysql::link::MysqlSession;
use crate::storage::mysql::rows::{Cell, RowsSql, TABLE_ROWS_MAX};
use crate::storage::mysql::tables::Own;
use crate::storage::settle::{Base, HeldHistory, HeldPeer, HeldRows};
use crate::storage::touched::Touched;

/// The columns read of a peer, and the index of the first.
const HELD_PEER: &str = "peer.announces, peer.last_announce, peer.active, peer.first_announce, \
    peer.sessions, peer.uploaded, peer.downloaded";
const PEER_AT: usize = 1;

/// The columns read of a history, and the index of the first.
const HELD_HISTORY: &str = "history.announces, history.uploaded, history.downloaded, \
    history.seed_time, history.last_announce, history.completed_at, history.hnr, \
    history.seeded_floor, history.seeded_from, history.seeded_until";
const HISTORY_AT: usize = PEER_AT + 7;

/// The existing rows that changes touch, locked in the order of the peers.
pub(super) async fn held(
    session: &mut MysqlSession<'_>,
    own: &Own,
    touched: &Touched<'_>,
) -> Result<HeldRows, MysqlFault> {
    let mut held = HeldRows {
        peers: vec![None; touched.peers.len()],
        histories: vec![None; touched.histories.len()],
    };
    let mut without_account = Vec::new();
    let places: Vec<usize> = (0..touched.peers.len()).collect();
    let statements = wanted(touched, &places).map(|table| {
        format!(
            "SELECT wanted.place, {HELD_PEER}, {HELD_HISTORY} FROM {table} AS wanted \
             LEFT JOIN {peers} AS peer ON {IS_WANTED} \
             LEFT JOIN {history} AS history ON history.torrent_id = wanted.torrent_id \
             AND history.user_id = wanted.user_id FOR UPDATE",
            peers = own.peers,
            history = own.history
        )
    });
    let take = |row: &_| {
        let cells = MysqlCells(row);
        let place = cells.total(0) as usize;
        let Some(peer) = touched.peers.get(place) else {
            return;
        };
        if !cells.is_null(HISTORY_AT) {
            held.histories[peer.history] = Some(held_history(&cells));
        }
        if !cells.is_null(PEER_AT) {
            let account = HeldPeer::account_of(cells.bytes(PEER_AT + 4));
            if account.is_none() {
                without_account.push(place);
            }
            held.peers[place] = Some(HeldPeer {
                account: account.unwrap_or_default(),
                ..held_peer(&cells)
            });
        }
    };
    session.query_each(statements, take).await?;
    for (place, account) in accounts(session, own, touched, &without_account).await? {
        if let Some(Some(peer)) = held.peers.get_mut(place) {
            peer.account = account;
        }
    }
    Ok(held)
}

/// Tables of peer keys, with their indices.
fn wanted(touched: &Touched<'_>, places: &[usize]) -> impl Iterator<Item = String> {
    places.chunks(TABLE_ROWS_MAX).flat_map(|places| {
        let mut wanted = RowsSql::default();
        for &place in places {
            let [user, torrent, peer_id] = key_cells(&touched.peers[place].key);
            wanted.push(&[Cell::Number(place as i64), user, torrent, peer_id]);
        }
        let tables = wanted.tables("place user_id torrent_id peer_id");
        tables.collect::<Vec<_>>()
    })
}

/// The accounts of rows of an earlier version, by their bases.
async fn accounts(
    session: &mut MysqlSession<'_>,
    own: &Own,
    touched: &Touched<'_>,
    places: &[usize],
) -> Result<Vec<(usize, PeerAccount)>, MysqlFault> {
    let mut accounts = Vec::new();
    for table in wanted(touched, places) {
        let sql = format!(
            "SELECT wanted.place, peer.base_up, peer.base_down, peer.base_at, peer.dip_up, \
             peer.dip_down FROM {table} AS wanted STRAIGHT_JOIN {} AS peer ON {IS_WANTED}",
            own.peers
        );
        for row in session.query(&sql).await? {
            let cells = MysqlCells(&row);
            let base = Base {
                up: cells.total(1),
                down: cells.total(2),
                at: cells.integer(3).unwrap_or(0),
                dip_up: cells.integer(4),
                dip_down: cells.integer(5),
            };
            accounts.push((cells.total(0) as usize, base.account()));
        }
    }
    Ok(accounts)
}

/// All but the account.
fn held_peer(cells: &MysqlCells<'_>) -> HeldPeer {
    HeldPeer {
        age: RecordAge {
            announces: cells.small(PEER_AT),
            last_announce: cells.integer(PEER_AT + 1).unwrap_or(0),
            active: cells.flag(PEER_AT + 2),
            first_announce: cells.integer(PEER_AT + 3).unwrap_or(0),
        },
        uploaded: cells.total(PEER_AT + 5),
        downloaded: cells.total(PEER_AT + 6),
        account: PeerAccount::default(),
    }
}

fn held_history(cells: &MysqlCells<'_>) -> HeldHistory {
    let time = |column: usize| cells.integer(HISTORY_AT + column);
    HeldHistory {
        announces: cells.total(HISTORY_AT),
        uploaded: cells.total(HISTORY_AT + 1),
        downloaded: cells.total(HISTORY_AT + 2),
        seed_time: cells.total(HISTORY_AT + 3),
        last_announce: time(4).unwrap_or(0),
        completed_at: time(5),
        hnr: cells.flag(HISTORY_AT + 6),
        covered: Coverage::of(time(7), time(8), time(9)),
    }
}
