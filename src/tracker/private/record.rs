//! From a peer in memory to the change that the journal keeps of it.

use std::net::SocketAddr;

use crate::accounting::machines::Machines;
use crate::base::addr::Endpoint;
use crate::base::clock::{APART_MAX, Now, Seconds};
use crate::change::{
    Credit, PeerChange, PeerKey, PeerRecord, Report, Standing, shared_family, shared_mark,
};
use crate::registry::TorrentEntry;
use crate::swarm::{Family, PeerCounts, PeerLocation, PeerState, PrivatePeer, Role, UserHistory};
use crate::tracker::swarm_counts;

/// The change of a client: its base and what it reported in one (rule A9), and the counters of its swarm.
pub(super) fn peer_change(
    client: &PrivatePeer,
    counts: PeerCounts,
    torrent: &TorrentEntry,
    credit: Credit,
    report: Report,
    now: Now,
) -> PeerChange {
    let peer = &client.state;
    PeerChange {
        key: PeerKey {
            user: peer.user,
            torrent: torrent.id,
            peer_id: peer.peer_id,
        },
        info_hash: torrent.canonical,
        record: record_of(peer, now),
        credit,
        standing: standing_of(&client.history),
        counts: swarm_counts(counts),
        report: Some(report),
    }
}

pub(super) fn record_of(peer: &PeerState, now: Now) -> PeerRecord {
    let (v4, v6) = peer.endpoints();
    let at = |family| {
        let known = peer.location(family)?;
        let is_usual = known.endpoint.is_some() || peer.role().is_none();
        let is_written = !is_usual || known.at != peer.account.last_announce;
        is_written.then(|| now.to_unix(known.at))
    };
    let account = &peer.account;
    let unix = |moment: Seconds| now.to_unix(moment);
    let (dip_up, dip_down) = match &account.machines {
        Some(machines) => shared_mark(machines.is_v6),
        None => (account.dip_up.map(unix), account.dip_down.map(unix)),
    };
    PeerRecord {
        base_up: account.base_up,
        base_down: account.base_down,
        start_up: account.start_up,
        start_down: account.start_down,
        dip_up,
        dip_down,
        base_at: unix(account.base_at),
        uploaded: account.uploaded,
        downloaded: account.downloaded,
        left: account.left,
        v4: v4.map(|endpoint| endpoint.socket_addr()),
        v6: v6.map(|endpoint| endpoint.socket_addr()),
        v4_at: at(Family::V4),
        v6_at: at(Family::V6),
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

/// Where a record says that its client is in that family, if it says anything.
pub(super) fn location_of(record: &PeerRecord, family: Family, now: Now) -> Option<PeerLocation> {
    let (address, at) = match family {
        Family::V4 => (record.v4.map(SocketAddr::from), record.v4_at),
        Family::V6 => (record.v6.map(SocketAddr::from), record.v6_at),
    };
    let address = address.filter(|_| record.active);
    if address.is_none() && at.is_none() && record.active {
        return None;
    }
    // Clocks of nodes may differ by up to `APART_MAX`; times further in the future are not believed.
    let at = at.unwrap_or(record.last_announce);
    Some(PeerLocation {
        endpoint: address.map(|address| Endpoint::new(address.ip(), address.port())),
        at: now.to_moment(at.min(now.unix + APART_MAX)),
    })
}

/// Whether several machines share a record, as [`record_of`] wrote it.
pub(super) fn machines_of(record: &PeerRecord) -> Option<Machines> {
    let is_v6 = shared_family(record.dip_up, record.dip_down)?;
    Some(Machines::unknown(is_v6, Seconds::START.0.into()))
}

pub(super) fn standing_of(history: &UserHistory) -> Standing {
    Standing {
        completed_at: history.completed_at,
        hnr: history.hnr,
    }
}
