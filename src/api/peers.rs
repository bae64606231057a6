//! The current peers of a torrent.

use std::fmt::Write;

use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::base::ids::{InfoHash, PeerId};
use crate::tracker::LivePeer;

/// Peers in one response.
const PEERS_MAX: usize = 10_000;

/// A peer that is in the swarm now. Of a public peer only address, role and last
/// announce are shown; the rest is 0, empty or null, and `first_announce` is the last one.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Peer)]
pub(super) struct PeerView {
    /// As text; `%`, and bytes other than visible ASCII, are written as `%` and two hexadecimal digits
    peer_id: String,
    user_id: Option<u32>,
    ip: String,
    port: u16,
    seeder: bool,
    /// Bytes still to download; none if the client did not say
    left: Option<u64>,
    /// Bytes counted, before multipliers
    uploaded: u64,
    /// Bytes counted, before multipliers
    downloaded: u64,
    /// Bytes a second over the last interval
    speed_up: u32,
    /// Bytes a second over the last interval
    speed_dn: u32,
    /// The same as `speed_up`: no earlier speed is kept
    speed_up_max: u32,
    /// The same as `speed_dn`: no earlier speed is kept
    speed_dn_max: u32,
    announces: u32,
    /// Seconds of seeding
    total_time: u32,
    /// Unix time
    first_announce: i64,
    /// Unix time
    last_announce: i64,
}

pub(super) fn of(api: &Api, info_hash: &InfoHash) -> Vec<PeerView> {
    api.sources
        .tracker
        .peers(info_hash, PEERS_MAX, api.sources.clock.now())
        .into_iter()
        .map(PeerView::from)
        .collect()
}

fn shown(peer_id: &PeerId) -> String {
    let mut text = String::with_capacity(20);
    for &byte in &peer_id.0 {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

impl From<LivePeer> for PeerView {
    fn from(peer: LivePeer) -> Self {
        let mut view = Self {
            ip: peer.address.ip().to_string(),
            port: peer.address.port(),
            seeder: peer.is_seeder,
            left: peer.is_seeder.then_some(0),
            first_announce: peer.last_announce,
            last_announce: peer.last_announce,
            ..Self::default()
        };
        if let Some((user, peer_id, record)) = peer.account {
            view.peer_id = shown(&peer_id);
            view.user_id = Some(user.0);
            view.left = record.left;
            view.uploaded = record.uploaded;
            view.downloaded = record.downloaded;
            (view.speed_up, view.speed_dn) = (record.speed_up, record.speed_down);
            (view.speed_up_max, view.speed_dn_max) = (record.speed_up, record.speed_down);
            view.announces = record.announces;
            view.total_time = record.seed_time;
            view.first_announce = record.first_announce;
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_are_shown_as_text_that_can_be_decoded() {
        assert_eq!(
            shown(&PeerId(*b"-TR3000-abc%\x00\xff789012")),
            "-TR3000-abc%25%00%FF789012"
        );
    }
}
