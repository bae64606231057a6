//! Loads and locks the rows that reports are settled against.

use super::super::calls;
use super::super::cells::{Cell, SqlRow, SqlRows};
use super::super::database::SqlResult;
use super::super::job::Job;
use crate::accounting::coverage::Coverage;
use crate::accounting::peer::PeerAccount;
use crate::change::RecordAge;
use crate::storage::settle::{Base, HeldHistory, HeldPeer, HeldRows};
use crate::storage::touched::Touched;

/// The first columns of a peer and of a history in the statement `held`.
const PEER_AT: usize = 1;
const HISTORY_AT: usize = PEER_AT + 7;

/// The existing rows that changes touch, locked in the order of the peers.
pub(super) async fn held(job: &mut Job<'_>, touched: &Touched<'_>) -> SqlResult<HeldRows> {
    let mut held = HeldRows {
        peers: vec![None; touched.peers.len()],
        histories: vec![None; touched.histories.len()],
    };
    let mut without_account = Vec::new();
    let all: Vec<usize> = (0..touched.peers.len()).collect();
    let rows = job.call_for(&calls::HELD, wanted(touched, &all)).await?;
    for row in rows.iter() {
        let place = row.total(0) as usize;
        let Some(peer) = touched.peers.get(place) else {
            continue;
        };
        if !row.is_null(HISTORY_AT) {
            held.histories[peer.history] = Some(held_history(row));
        }
        if !row.is_null(PEER_AT) {
            let account = HeldPeer::account_of(row.bytes(PEER_AT + 4));
            if account.is_none() {
                without_account.push(place);
            }
            held.peers[place] = Some(HeldPeer {
                account: account.unwrap_or_default(),
                ..held_peer(row)
            });
        }
    }
    for (place, account) in accounts(job, touched, &without_account).await? {
        if let Some(Some(peer)) = held.peers.get_mut(place) {
            peer.account = account;
        }
    }
    Ok(held)
}

/// The keys of peers, with their indices.
fn wanted(touched: &Touched<'_>, places: &[usize]) -> SqlRows {
    let mut wanted = SqlRows::with_capacity(4, places.len());
    for &place in places {
        let key = &touched.peers[place].key;
        wanted.push(&[
            Cell::Int(place as i64),
            Cell::Int(key.user.0.into()),
            Cell::Int(key.torrent.0.into()),
            Cell::Bytes(&key.peer_id.0),
        ]);
    }
    wanted
}

/// The accounts of rows of an earlier version, by their bases.
async fn accounts(
    job: &mut Job<'_>,
    touched: &Touched<'_>,
    places: &[usize],
) -> SqlResult<Vec<(usize, PeerAccount)>> {
    let wanted = wanted(touched, places);
    let rows = job.call_for(&calls::HELD_BASES, wanted).await?;
    let account = |row: SqlRow<'_>| {
        let base = Base {
            up: row.total(1),
            down: row.total(2),
            at: row.integer(3).unwrap_or(0),
            dip_up: row.integer(4),
            dip_down: row.integer(5),
        };
        (row.total(0) as usize, base.account())
    };
    Ok(rows.iter().map(account).collect())
}

/// All but the account.
fn held_peer(row: SqlRow<'_>) -> HeldPeer {
    HeldPeer {
        age: RecordAge {
            announces: row.small(PEER_AT),
            last_announce: row.integer(PEER_AT + 1).unwrap_or(0),
            active: row.flag(PEER_AT + 2),
            first_announce: row.integer(PEER_AT + 3).unwrap_or(0),
        },
        uploaded: row.total(PEER_AT + 5),
        downloaded: row.total(PEER_AT + 6),
        account: PeerAccount::default(),
    }
}

fn held_history(row: SqlRow<'_>) -> HeldHistory {
    let time = |column: usize| row.integer(HISTORY_AT + column);
    HeldHistory {
        announces: row.total(HISTORY_AT),
        uploaded: row.total(HISTORY_AT + 1),
        downloaded: row.total(HISTORY_AT + 2),
        seed_time: row.total(HISTORY_AT + 3),
        last_announce: time(4).unwrap_or(0),
        completed_at: time(5),
        hnr: row.flag(HISTORY_AT + 6),
        covered: Coverage::of(time(7), time(8), time(9)),
    }
}
