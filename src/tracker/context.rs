//! What an announce is to its swarm, worked out once.

use std::net::IpAddr;

use crate::base::addr::{Endpoint, canonical, is_global};
use crate::base::clock::Now;
use crate::swarm::{Eligibility, PeerCounts, Role};
use crate::tracker::{Rules, Workspace};
use crate::wire::{Announce, AnnounceReply, Event};

pub(super) struct AnnounceContext<'a> {
    pub params: &'a Announce,
    /// The address as the tracker sees it, whatever the client claims.
    pub source: IpAddr,
    pub endpoint: Endpoint,
    pub role: Role,
    pub now: Now,
}

impl<'a> AnnounceContext<'a> {
    /// The role goes by this announce alone: a seeder that has something left again is a leecher (rule W6), and a
    /// partial seed is one only as long as it says `paused` (rule W7).
    pub fn new(params: &'a Announce, source: IpAddr, rules: &Rules, now: Now) -> Self {
        let source = canonical(source);
        let claimed = match source {
            IpAddr::V4(_) => params.claimed_v4,
            IpAddr::V6(_) => params.claimed_v6,
        };
        let claimed = claimed.filter(|&ip| rules.trust_client_ip && is_global(ip));
        let role = match (params.left, params.event) {
            (Some(0), _) => Role::Seeder,
            (_, Event::Paused) => Role::Paused,
            _ => Role::Leecher,
        };
        Self {
            params,
            source,
            endpoint: Endpoint::new(claimed.unwrap_or(source), params.port),
            role,
            now,
        }
    }

    /// The reply, with the counters as they are after the announce (rule W11).
    pub fn reply(
        &self,
        counts: PeerCounts,
        downloaded: u32,
        rules: &Rules,
        work: &mut Workspace,
    ) -> AnnounceReply {
        AnnounceReply {
            complete: counts.seeders,
            incomplete: counts.leechers,
            downloaded,
            interval: rules.jittered_interval(work.selector.rng()),
            min_interval: rules.min_announce_interval,
            external_ip: rules
                .public_addresses
                .of(self.source)
                .unwrap_or(self.source),
        }
    }

    /// Whether the download has just completed, by event and bytes left.
    pub fn completes(&self) -> bool {
        self.params.event == Event::Completed && self.role == Role::Seeder
    }

    /// How many peers to hand out: none after a `stopped`.
    pub fn want(&self, rules: &Rules, work: &Workspace) -> usize {
        if self.params.event == Event::Stopped {
            return 0;
        }
        let want = self.params.numwant.unwrap_or(rules.numwant);
        want.min(rules.max_numwant).min(work.peers_max) as usize
    }

    pub fn eligibility<'r>(&self, rules: &'r Rules) -> Eligibility<'r> {
        Eligibility {
            alive_since: rules.alive_since(self.now.mono),
            viewer: rules.public_addresses.viewer(self.endpoint.ip()),
        }
    }
}
