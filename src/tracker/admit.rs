//! Admission: passkey, account, parameters, address and port, client, torrent, in this order (rule R8).

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::addr::canonical;
use crate::base::ids::{InfoHash, PeerId, UserId};
use crate::registry::TorrentEntry;
use crate::tracker::private::PrivateTracker;
use crate::tracker::public::PublicTracker;
use crate::tracker::{AnnounceRequest, Common, Refusal, Rules};
use crate::wire::{Announce, Event, FormHash, PlusMeaning};

/// An admitted user and torrent.
pub(super) struct Participant {
    pub user: UserId,
    pub torrent: TorrentEntry,
}

// === impl PublicTracker ===

impl PublicTracker {
    /// Refuses by the first check that fails (rule R8). Also returns the info hash meant, which may differ from
    /// the literal one (rule Q4).
    pub(super) fn admit<'r>(
        &self,
        request: &'r AnnounceRequest,
        rules: &Rules,
    ) -> Result<(InfoHash, &'r Announce), Refusal> {
        let params = request
            .params
            .as_ref()
            .map_err(|&error| Refusal::from(error))?;
        self.common.admit_endpoint(request.source, params, rules)?;
        self.common.admit_client(&params.peer_id, rules)?;
        if rules.auto_register {
            let info_hash = self.public_hash(params);
            admit_torrent(self.common.registry.disabled(&info_hash))?;
            return Ok((info_hash, params));
        }
        let (info_hash, torrent) = self
            .common
            .registered(params)
            .ok_or(Refusal::UnregisteredTorrent)?;
        admit_torrent(torrent.disabled)?;
        Ok((info_hash, params))
    }

    /// The hash meant, where anything may be announced: the one that fits the encoding of the rest
    /// of the value, or else the one with more peers (rule Q4).
    fn public_hash(&self, params: &Announce) -> InfoHash {
        let literal = params.info_hash;
        let Some(FormHash { info_hash, meaning }) = params.info_hash_as_form else {
            return literal;
        };
        let known = |hash: &InfoHash| {
            let is_registered = self.common.registry.torrent(hash).is_some();
            (self.peers_in(hash), is_registered)
        };
        let is_space = match meaning {
            PlusMeaning::Plus => false,
            PlusMeaning::Space => true,
            PlusMeaning::LikelyPlus => known(&info_hash) > known(&literal),
            PlusMeaning::LikelySpace => known(&info_hash) >= known(&literal),
        };
        if is_space { info_hash } else { literal }
    }
}

// === impl PrivateTracker ===

impl PrivateTracker {
    /// Refuses by the first check that fails (rule R8).
    pub(super) fn admit<'r>(
        &self,
        request: &'r AnnounceRequest,
        rules: &Rules,
    ) -> Result<(Participant, &'r Announce), Refusal> {
        let access = request
            .passkey
            .and_then(|passkey| self.common.registry.access(passkey))
            .ok_or(Refusal::InvalidPasskey)?;
        if !access.enabled {
            return Err(Refusal::AccountDisabled);
        }
        let params = request
            .params
            .as_ref()
            .map_err(|&error| Refusal::from(error))?;
        self.common.admit_endpoint(request.source, params, rules)?;
        self.common.admit_client(&params.peer_id, rules)?;
        let (_, torrent) = self
            .common
            .registered(params)
            .ok_or(Refusal::UnregisteredTorrent)?;
        admit_torrent(torrent.disabled.clone())?;
        // A user who may not download may still stop.
        let downloads = params.left != Some(0) && params.event != Event::Stopped;
        if downloads && !access.can_leech {
            return Err(Refusal::DownloadNotAllowed);
        }
        let user = access.user;
        Ok((Participant { user, torrent }, params))
    }

    /// Whether a scrape is answered: only to an enabled account (rule S5).
    pub(super) fn admit_scrape(&self, passkey: Option<&str>) -> Result<(), Refusal> {
        let access = passkey.and_then(|passkey| self.common.registry.access(passkey));
        match access {
            None => Err(Refusal::InvalidPasskey),
            Some(access) if !access.enabled => Err(Refusal::AccountDisabled),
            Some(_) => Ok(()),
        }
    }
}

// === impl Common ===

impl Common {
    /// The torrent of that hash, unless it is unknown or disabled.
    pub(super) fn enabled_torrent(&self, info_hash: &InfoHash) -> Option<TorrentEntry> {
        let torrent = self.registry.torrent(info_hash)?;
        torrent.disabled.is_none().then_some(torrent)
    }

    /// The registered torrent and the hash that named it, also if the client encoded a space
    /// of its hash as `+` (rule Q4).
    pub(super) fn registered(&self, params: &Announce) -> Option<(InfoHash, TorrentEntry)> {
        let as_form = params.info_hash_as_form.map(|form| form.info_hash);
        let readings = [Some(params.info_hash), as_form];
        readings.into_iter().flatten().find_map(|info_hash| {
            let torrent = self.registry.torrent(&info_hash)?;
            Some((info_hash, torrent))
        })
    }

    /// Whether the config blocks the source or the port. A `stopped` may come from a blocked port.
    fn admit_endpoint(
        &self,
        source: IpAddr,
        params: &Announce,
        rules: &Rules,
    ) -> Result<(), Refusal> {
        let refusal = if rules.blocks_address(canonical(source)) {
            Refusal::AddressBlocked
        } else if rules.blocked_ports.contains(&params.port) && params.event != Event::Stopped {
            Refusal::PortBlocked
        } else {
            return Ok(());
        };
        self.metrics.blocked.increment();
        Err(refusal)
    }

    fn admit_client(&self, peer_id: &PeerId, rules: &Rules) -> Result<(), Refusal> {
        if rules.whitelist && !self.registry.whitelist().allows(peer_id) {
            return Err(Refusal::ClientNotAllowed);
        }
        Ok(())
    }
}

fn admit_torrent(disabled: Option<Arc<str>>) -> Result<(), Refusal> {
    disabled.map_or(Ok(()), |reason| Err(Refusal::TorrentDisabled(reason)))
}
