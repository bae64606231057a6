//! Newcomers: whether a user may have one more client in a swarm, and one more record (rule A6).

use crate::base::ids::UserId;
use crate::swarm::{Account, PrivatePeer};
use crate::tracker::Refusal;
use crate::tracker::admit::Participant;
use crate::tracker::context::AnnounceContext;
use crate::tracker::private::announce::PrivateAnnounce;

/// Records that one user may have with one torrent, tombstones included: looking one up takes
/// longer the more there are.
const RECORDS_MAX: usize = 1000;

impl PrivateAnnounce<'_> {
    /// Whether a client that is not in the swarm may enter (rule A6). Expired peers don't count, nor do
    /// those at the endpoint that it enters with. `begins_record`: it has no record yet.
    pub(super) fn admit_newcomer(
        &self,
        who: &Participant,
        context: &AnnounceContext,
        begins_record: bool,
    ) -> Result<(), Refusal> {
        let max = self.rules.max_peers_per_user as usize;
        let alive_since = self.rules.alive_since(self.now.mono);
        let endpoint = context.endpoint;
        let alive = self
            .swarm
            .alive_elsewhere(who.user, endpoint, alive_since, max);
        if alive >= max {
            return Err(Refusal::TooManyPeers);
        }
        if !begins_record {
            return Ok(());
        }
        let peer_id = &context.params.peer_id;
        if let Some(refusal) = self.record_refusal(who.user)
            && self.swarm.other_at(who.user, peer_id, endpoint).is_none()
            && self.swarm.oldest_tombstone(who.user).is_none()
        {
            return Err(refusal);
        }
        let limits = self.rules.user_records();
        self.tracker.records.take(who.user, limits, self.now.mono)
    }

    /// A client that has no record yet. The first report of a total is its base, whenever it comes (rule A1).
    pub(super) fn newcomer(&self, who: &Participant, context: &AnnounceContext) -> PrivatePeer {
        let no_total = Account::NO_TOTAL;
        let account = Account::begin(no_total, no_total, self.now.mono);
        self.tracker.records.add(who.user);
        self.swarm
            .newcomer(who.user, context.params.peer_id, account)
    }

    /// If the user has the maximum of records, forgets their oldest tombstone of this
    /// swarm: a client that is restarted with a new peer id is never shut out by its own leftovers.
    pub(super) fn make_room(&mut self, user: UserId) {
        if self.record_refusal(user).is_some()
            && let Some(place) = self.swarm.oldest_tombstone(user)
        {
            self.forget(place, user);
        }
    }

    /// Forgets a tombstone of that user.
    pub(super) fn forget(&mut self, place: usize, user: UserId) {
        self.swarm.forget(place);
        self.tracker.records.remove(user);
    }

    /// Why a user may not begin another record, if so.
    pub(super) fn record_refusal(&self, user: UserId) -> Option<Refusal> {
        if self.swarm.records_of(user, RECORDS_MAX) >= RECORDS_MAX {
            return Some(Refusal::TooManyPeers);
        }
        let is_full = self.tracker.records.count(user) >= self.rules.user_records().max;
        is_full.then_some(Refusal::TooManyRecords)
    }
}
