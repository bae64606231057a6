//! Private torrents: peers with accounts, and credit for their users.

mod announce;
mod displaced;
mod early;
mod follow;
mod leaps;
mod newcomer;
mod record;
mod recounts;
mod restore;
mod sweep;
mod user_records;
mod view;

use crate::base::clock::Now;
use crate::base::ids::{InfoHash, UserId};
use crate::swarm::{PrivateShard, PrivateSwarm, Swarms};
use crate::tracker::admit::Participant;
use crate::tracker::context::AnnounceContext;
use crate::tracker::{AnnounceRequest, Answer, Common, Refusal, Rules, Workspace, scrape_entry};
use crate::wire::{Event, ScrapeEntry};

use self::announce::PrivateAnnounce;
use self::early::EarlyChanges;
use self::leaps::Leaps;
use self::recounts::Recounts;
use self::user_records::UserRecords;

pub use self::restore::KnownHistory;
pub use self::user_records::RecordLimits;

/// A tracker in private mode.
pub(super) struct PrivateTracker {
    pub common: Common,
    pub swarms: Swarms<PrivateShard>,
    /// Numbers of records by user.
    records: UserRecords,
    leaps: Leaps,
    recounts: Recounts,
    early: EarlyChanges,
}

impl PrivateTracker {
    pub fn new(common: Common) -> Self {
        Self {
            common,
            swarms: Swarms::default(),
            records: UserRecords::default(),
            leaps: Leaps::default(),
            recounts: Recounts::default(),
            early: EarlyChanges::default(),
        }
    }

    pub fn records_of(&self, user: UserId) -> u32 {
        self.records.count(user)
    }

    pub fn announce(
        &self,
        request: &AnnounceRequest,
        now: Now,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let rules = self.common.rules.load();
        let (who, params) = self.admit(request, &rules)?;
        let context = AnnounceContext::new(params, request.source, &rules, now);
        self.decide(&who, &context, &rules, work)
    }

    fn decide(
        &self,
        who: &Participant,
        context: &AnnounceContext,
        rules: &Rules,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let shard = self.swarms.shard_of(&who.torrent.canonical);
        let mut swarms = self.swarms.lock(shard);
        let stops = context.params.event == Event::Stopped;
        let swarm = match swarms.get_mut(who.torrent.canonical) {
            Some(swarm) => swarm,
            // A `stopped` for an unknown peer has no effect.
            None if stops && !self.common.is_shared => &mut PrivateSwarm::default(),
            None => swarms.get_or_default(who.torrent.canonical),
        };
        let mut announce = PrivateAnnounce {
            tracker: self,
            rules,
            swarm,
            torrent: &who.torrent,
            shard,
            now: context.now,
        };
        let ticket = if stops {
            announce.stop(who, context)
        } else {
            let ticket = announce.update(who, context)?;
            announce.select(who, context, work);
            ticket
        };
        let (counts, downloaded) = (announce.swarm.counts(), announce.swarm.snatches());
        let reply = context.reply(counts, downloaded, rules, work);
        Ok(Answer { reply, ticket })
    }

    pub fn scrape(&self, info_hash: &InfoHash) -> Option<ScrapeEntry> {
        let torrent = self.common.enabled_torrent(info_hash)?;
        let swarms = self.swarms.lock(self.swarms.shard_of(&torrent.canonical));
        let swarm = swarms.get(torrent.canonical);
        Some(swarm.map_or_else(ScrapeEntry::default, |swarm| {
            scrape_entry(swarm.counts(), swarm.snatches())
        }))
    }
}
