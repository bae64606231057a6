//! From a peer in memory to the change that the journal keeps of it.

use crate::change::{Credit, PeerChange, PeerKey, PeerRecord, Standing, SwarmCounts};
use crate::clock::{Now, Seconds};
use crate::registry::Entry;
use crate::swarm::{Client, Counts, Family, History, Peer, Role, Sessions};

/// The change of a client, with what is credited for it and the counters of its swarm.
pub(super) fn peer_change(
    client: &Client,
    counts: Counts,
    torrent: &Entry,
    credit: Credit,
    now: Now,
) -> PeerChange {
    let Client { peer, history, .. } = client;
    PeerChange {
        key: PeerKey {
            user: peer.user,
            torrent: torrent.id,
            peer_id: peer.peer_id,
        },
        info_hash: torrent.canonical,
        record: record_of(peer, now),
        credit,
        standing: standing_of(history),
        counts: swarm_counts(counts),
    }
}

pub(super) fn record_of(peer: &Peer, now: Now) -> PeerRecord {
    let (v4, v6) = peer.endpoints();
    let account = &peer.account;
    let unix = |moment: Seconds| now.to_unix(moment);
    let (dip_up, dip_down) = match &account.sessions {
        Some(sessions) => shared_mark(sessions.family),
        None => (account.dip_up.map(unix), account.dip_down.map(unix)),
    };
    PeerRecord {
        base_up: account.base_up,
        base_down: account.base_down,
        dip_up,
        dip_down,
        base_at: unix(account.base_at),
        uploaded: account.uploaded,
        downloaded: account.downloaded,
        left: account.left,
        v4: v4.map(|endpoint| endpoint.socket_addr()),
        v6: v6.map(|endpoint| endpoint.socket_addr()),
        speed_up: account.speed_up,
        speed_down: account.speed_down,
        seed_time: account.seed_time,
        announces: account.announces,
        first_announce: unix(account.first_announce),
        last_announce: unix(account.last_announce),
        active: peer.role().is_some(),
        paused: peer.role() == Some(Role::Paused),
    }
}

/// What stands in place of both dips of a record that several machines share (rule A3): the second of
/// Unix time by which they are told apart, 0 for IPv4 and 1 for IPv6. No dip is that old.
fn shared_mark(family: Family) -> (Option<i64>, Option<i64>) {
    let mark = Some(match family {
        Family::V4 => 0,
        Family::V6 => 1,
    });
    (mark, mark)
}

/// Whether several machines share a record, as [`record_of`] wrote it.
pub(super) fn sessions_of(record: &PeerRecord) -> Option<Sessions> {
    let is_shared = |family: &Family| (record.dip_up, record.dip_down) == shared_mark(*family);
    let family = [Family::V4, Family::V6].into_iter().find(is_shared)?;
    Some(Sessions::unknown(family))
}

pub(super) fn standing_of(history: &History) -> Standing {
    Standing {
        completed_at: history.completed_at,
        hnr: history.hnr,
    }
}

/// The counters as they are journaled.
pub(super) fn swarm_counts(counts: Counts) -> SwarmCounts {
    SwarmCounts {
        seeders: counts.seeders,
        leechers: counts.leechers,
    }
}
