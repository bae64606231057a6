//! One announce of a private peer: it enters, stays or leaves, and what it reports is credited and journaled.

use crate::accounting::machines::MachineId;
use crate::accounting::sessions::{Point, Stretch};
use crate::base::addr::{Compact4, Compact6, Endpoint};
use crate::base::clock::{Now, Seconds};
use crate::change::{self, Change, Credit, PeerChange};
use crate::registry::TorrentEntry;
use crate::swarm::{
    Account, Family, Owed, PeerState, PrivatePeer, PrivateSwarm, Request, Role, UserHistory,
};
use crate::tracker::admit::Participant;
use crate::tracker::context::AnnounceContext;
use crate::tracker::credit::{self, Accrual, AnnounceReport};
use crate::tracker::outbox::Reservation;
use crate::tracker::private::PrivateTracker;
use crate::tracker::private::record::peer_change;
use crate::tracker::{Refusal, Rules, Ticket, Workspace};
use crate::wire::Event;

/// Seconds after a record began in which replies wait for the journal: the reply
/// to its first announce may still be waiting, or may have been lost.
const YOUNG_SECONDS: u32 = 5;

/// Where a client is in each family.
type Endpoints = (Option<Compact4>, Option<Compact6>);

/// A locked private swarm, with what is needed to change it and to journal the changes.
pub(super) struct PrivateAnnounce<'a> {
    pub tracker: &'a PrivateTracker,
    pub rules: &'a Rules,
    pub swarm: &'a mut PrivateSwarm,
    pub torrent: &'a TorrentEntry,
    pub shard: usize,
    pub now: Now,
}

/// What is passed on of a client's announces; times are of the monotonic clock, in seconds.
struct Reported {
    up: Option<Stretch>,
    down: Option<Stretch>,
    machine: Option<MachineId>,
    at: Seconds,
    seeding_since: Option<Seconds>,
    left: bool,
}

/// A client of the swarm as it was before its announce.
#[derive(Clone, Copy)]
struct Before {
    role: Role,
    last_seen: Seconds,
}

// === impl Reported ===

impl Reported {
    /// What the journal had no room for, without seed time.
    fn of_owed(owed: &Owed, client: &PrivatePeer) -> Self {
        let account = &client.state.account;
        let stretch = |base: u64, bytes: u64, started: bool, dip: Option<Seconds>| {
            let has_reported = owed.announces > 0 && base != Account::NO_TOTAL;
            // A report below the base is no report of the base.
            let is_below = dip.is_some() && bytes == 0 && !started;
            // As in `credit`: the other total's dip does not hold back the time of this base.
            let base_at = match dip {
                Some(_) => account.base_at,
                None => account.base_at.max(account.last_announce),
            };
            (has_reported && !is_below).then(|| Stretch {
                from: Point {
                    total: base.saturating_sub(bytes),
                    at: owed.since.0.into(),
                },
                to: Point {
                    total: base,
                    at: base_at.0.into(),
                },
                started,
            })
        };
        Self {
            up: stretch(
                account.base_up,
                owed.uploaded,
                owed.began_up,
                account.dip_up,
            ),
            down: stretch(
                account.base_down,
                owed.downloaded,
                owed.began_down,
                account.dip_down,
            ),
            machine: None,
            at: account.last_announce,
            seeding_since: None,
            left: owed.left,
        }
    }
}

// === impl PrivateAnnounce ===

impl PrivateAnnounce<'_> {
    /// Enters an unknown peer and updates a known one, whatever the event (rule W4); counts its snatch and
    /// credits what it reports.
    pub fn update(
        &mut self,
        who: &Participant,
        context: &AnnounceContext,
    ) -> Result<Option<Ticket>, Refusal> {
        let params = context.params;
        let mono = self.now.mono;
        let mut found = self.find(who, context);
        let before = found.as_mut().and_then(|client| self.before(client));
        let is_where_it_was = |client: &PrivatePeer| client.state.is_at(context.endpoint);
        if !found.as_ref().is_some_and(is_where_it_was) {
            // A peer that had expired stays expired.
            if let Some(client) = &found {
                self.swarm.put(client);
            }
            if before.is_none() {
                self.admit_newcomer(who, context, found.is_none())?;
            }
            self.displace_others(who.user, &params.peer_id, context.endpoint);
            if found.is_none() {
                self.make_room(who.user);
            }
            found = self.find(who, context);
        }
        let mut client = found.unwrap_or_else(|| self.newcomer(who, context));
        let held = client.state.endpoints();
        client.state.enter(context.endpoint, context.role, mono);
        self.snatch(&mut client.history, context, before);

        let first = client.state.account.first_announce;
        let young = mono >= first && mono.since(first) <= YOUNG_SECONDS;
        let acknowledges = young || matches!(params.event, Event::Started | Event::Completed);
        let journaled = self.journal(client, context, held, before);
        Ok(match journaled {
            Some((ticket, base_lowered)) => (acknowledges || base_lowered).then_some(ticket),
            None => acknowledges.then_some(Ticket::NEVER),
        })
    }

    /// Takes the endpoint of this family out of the swarm (rule W3), and credits the last report, which gains
    /// nothing when it is repeated (rule A4).
    pub fn stop(&mut self, who: &Participant, context: &AnnounceContext) -> Option<Ticket> {
        let mut client = match self.find(who, context) {
            Some(client) => client,
            None => self.unknown_peer(who, context)?,
        };
        let before = self.before(&mut client);
        let held = client.state.endpoints();
        client
            .state
            .leave(Family::of(context.endpoint), self.now.mono);
        let journaled = self.journal(client, context, held, before);
        Some(journaled.map_or(Ticket::NEVER, |(ticket, _)| ticket))
    }

    /// A `stopped` of a client that is unknown here: if another node may know it, its report
    /// is passed on.
    fn unknown_peer(
        &mut self,
        who: &Participant,
        context: &AnnounceContext,
    ) -> Option<PrivatePeer> {
        if !self.tracker.common.is_shared || self.admit_newcomer(who, context, true).is_err() {
            return None;
        }
        self.make_room(who.user);
        Some(self.newcomer(who, context))
    }

    /// The record of that user and peer id: it stays when the passkey changes, and another user with the
    /// peer id has one of their own (rule A11).
    fn find(&self, who: &Participant, context: &AnnounceContext) -> Option<PrivatePeer> {
        let place = self.swarm.find(who.user, &context.params.peer_id)?;
        self.swarm.peer(place)
    }

    /// The peer as it was before this announce. One that was silent for too long had left the
    /// swarm, even if it was not swept yet (rule W10).
    fn before(&self, client: &mut PrivatePeer) -> Option<Before> {
        self.expire(client);
        let role = client.state.role()?;
        let last_seen = client.state.last_seen();
        Some(Before { role, last_seen })
    }

    /// After a peer left the swarm: if it was its user's last one, the user is marked for hit and run if
    /// that is due, unless the torrent is disabled or the silence may be ours. Returns whether it was
    /// such a departure.
    pub fn on_left_swarm(&self, client: &mut PrivatePeer) -> bool {
        let is_excused = self.torrent.disabled.is_some() || self.silence_may_be_ours(&client.state);
        let is_last = !is_excused && !self.swarm.has_other(client);
        if is_last {
            credit::leave(&mut client.history, self.rules.hnr());
        }
        is_last
    }

    /// Whether the peer's silence may be due to our own downtime: its last announce was before this
    /// process started (or in the same second), and a whole `peer_ttl` has not passed since the start.
    fn silence_may_be_ours(&self, peer: &PeerState) -> bool {
        let (last_seen, now) = (peer.account.last_announce, self.now.mono);
        let is_silent = last_seen < now;
        is_silent && last_seen <= Seconds::START && now < Seconds::START.plus(self.rules.peer_ttl)
    }

    /// Counts a snatch: once for a user and a torrent, and not for a peer that was a seeder before (rule W5).
    fn snatch(
        &mut self,
        history: &mut UserHistory,
        context: &AnnounceContext,
        before: Option<Before>,
    ) {
        let was_seeding = before.is_some_and(|before| before.role == Role::Seeder);
        if !context.completes() || was_seeding || history.completed_at.is_some() {
            return;
        }
        history.completed_at = Some(self.now.unix);
        history.owes_snatch = true;
        self.swarm
            .set_snatches(self.swarm.snatches().saturating_add(1));
        self.tracker.common.metrics.snatches.increment();
    }

    /// Brings the account of a client that was at `held` up to date and queues the change; returns its
    /// ticket, and whether a base went down. None if the outbox is full: then what was reported is
    /// owed, and travels with a later change.
    fn journal(
        &mut self,
        mut client: PrivatePeer,
        context: &AnnounceContext,
        held: Endpoints,
        before: Option<Before>,
    ) -> Option<(Ticket, bool)> {
        let params = context.params;
        // An expiry is journaled together with this report.
        let had_left = client.state.owed.as_ref().is_some_and(|owed| owed.left);
        let mut owed = self.settle_owed(&mut client);
        let had_left = had_left && owed.is_none();
        // A report must not overtake what is still owed.
        let room = match owed {
            None => self.tracker.common.outbox.reserve(),
            Some(_) => None,
        };
        let has_machines = client.state.account.machines.is_some();
        let report = AnnounceReport {
            uploaded: params.uploaded,
            downloaded: params.downloaded,
            started: (params.event == Event::Started).then_some(self.now.unix),
            sender: sender(context, held),
            held,
            is_held_back: room.is_none() && (owed.is_some() || has_machines),
            has_room: room.is_some(),
        };
        let seeding_since = before
            .filter(|before| before.role == Role::Seeder)
            .map(|before| self.seeding_since(&client, before.last_seen));
        if let (Some(owed), Some(since)) = (&mut owed, seeding_since)
            && owed.seeded_until != since
        {
            // The client left or stopped seeding in between, and only one stretch of seeding can be owed.
            owed.seed_time = 0;
        }
        let accrual = self.account(&mut client, report, seeding_since);
        let has_left =
            before.is_some() && client.state.role().is_none() && self.on_left_swarm(&mut client);
        let peer = &mut client.state;
        // A peer that stays by its other family goes on as it was.
        if params.event != Event::Stopped || peer.role().is_none() {
            peer.account.left = params.left;
        }
        let Some(room) = room else {
            let mut owed = accrual.added_to(owed, self.now.mono);
            owed.left |= has_left || had_left;
            if seeding_since.is_some() {
                owed.seeded_until = self.now.mono;
            }
            client.state.owed = Some(owed);
            self.swarm.put(&client);
            self.tracker.common.metrics.outbox_full.increment();
            return None;
        };
        let reported = Reported {
            up: accrual.up,
            down: accrual.down,
            machine: accrual.machine,
            at: self.now.mono,
            seeding_since,
            left: has_left || had_left,
        };
        let added = accrual.added_to(None, self.now.mono);
        let ticket = self.push(client, &added, reported, room);
        Some((ticket, accrual.base_lowered))
    }

    /// Queues what a client owes, so that this report gets a change of its own; returns what it
    /// still owes.
    fn settle_owed(&mut self, client: &mut PrivatePeer) -> Option<Owed> {
        let owed = client.state.owed.take()?;
        // A lost endpoint alone is part of the change that follows.
        if owed.announces == 0 {
            return None;
        }
        let Some(room) = self.tracker.common.outbox.reserve() else {
            return Some(owed);
        };
        let credit = self.credit(&mut client.history, &owed);
        let report = self.report(&self.owed_report(&owed, client), &credit);
        let change = self.change(client, credit, report);
        room.push(self.shard, Change::from(change));
        None
    }

    /// Since when a client is known to have been seeding until now (rule A10); `last_seen` is before this
    /// announce.
    fn seeding_since(&self, client: &PrivatePeer, last_seen: Seconds) -> Seconds {
        let earliest = self.now.mono.0.saturating_sub(self.rules.peer_ttl);
        self.unreported_since(client, Seconds(last_seen.0.max(earliest)))
    }

    /// The later of `since` and, if the clock leapt after that, the moment up to which other clients of
    /// the user may have reported seed time, those that have left included: storage can't deduplicate
    /// seconds before a leap, so they must not be reported again.
    fn unreported_since(&self, client: &PrivatePeer, since: Seconds) -> Seconds {
        let leap = self.tracker.leaps.latest(self.now);
        let user = client.state.user;
        let reported = if since >= leap {
            None
        } else if self.record_refusal(user).is_none() {
            self.swarm.other_announced_at(client)
        } else {
            // Records of clients that left may be gone.
            Some(leap)
        };
        since.max(reported.unwrap_or(since)).min(self.now.mono)
    }

    /// The report of what the journal had no room for.
    fn owed_report(&self, owed: &Owed, client: &PrivatePeer) -> Reported {
        let reported = Reported::of_owed(owed, client);
        if owed.seed_time == 0 {
            return reported;
        }
        let since = Seconds(owed.seeded_until.0.saturating_sub(owed.seed_time));
        Reported {
            at: owed.seeded_until,
            seeding_since: Some(self.unreported_since(client, since)),
            ..reported
        }
    }

    /// Puts a client back into the swarm, and queues its record with what it owes; without
    /// room it still owes that.
    pub fn queue(&mut self, mut client: PrivatePeer, owed: Owed) {
        let Some(room) = self.tracker.common.outbox.reserve() else {
            client.state.owed = Some(owed);
            self.swarm.put(&client);
            return;
        };
        let reported = self.owed_report(&owed, &client);
        self.push(client, &owed, reported, room);
    }

    fn push(
        &mut self,
        mut client: PrivatePeer,
        added: &Owed,
        reported: Reported,
        room: Reservation<'_>,
    ) -> Ticket {
        let credit = self.credit(&mut client.history, added);
        self.swarm.put(&client);
        let report = self.report(&reported, &credit);
        let change = self.change(&client, credit, report);
        room.push(self.shard, Change::from(change))
    }

    /// The change of a client, with the present counters of the swarm.
    fn change(&self, client: &PrivatePeer, credit: Credit, report: change::Report) -> PeerChange {
        let tracker = self.tracker;
        if tracker.common.is_shared {
            let info_hash = self.torrent.canonical;
            tracker
                .recounts
                .note_written(self.shard, info_hash, self.now);
        }
        let counts = self.swarm.counts();
        peer_change(client, counts, self.torrent, credit, report, self.now)
    }

    /// The report that storage settles.
    fn report(&self, reported: &Reported, credit: &Credit) -> change::Report {
        let unix = |moment: i64| self.now.to_unix(Seconds(moment as u32));
        let stretch = |stretch: Option<Stretch>| {
            stretch.map(|stretch| Stretch {
                from: Point {
                    at: unix(stretch.from.at),
                    ..stretch.from
                },
                to: Point {
                    at: unix(stretch.to.at),
                    ..stretch.to
                },
                ..stretch
            })
        };
        change::Report {
            up: stretch(reported.up),
            down: stretch(reported.down),
            machine: reported.machine,
            at: self.now.to_unix(reported.at),
            seeding_since: reported.seeding_since.map(|since| self.now.to_unix(since)),
            announces: credit.announces,
            completed: credit.snatched,
            left: reported.left,
            multi_up: self.torrent.multi_up.0,
            multi_down: self.torrent.multi_down.0,
        }
    }

    /// Brings account and history up to date; returns what the user gains. Clients that seed at the
    /// same time count once (rule A8a).
    fn account(
        &self,
        client: &mut PrivatePeer,
        report: AnnounceReport,
        seeding_since: Option<Seconds>,
    ) -> Accrual {
        let seeding_for_max = seeding_since.map(|since| self.now.mono.since(since));
        let mut accrual = credit::update_account(
            &mut client.state.account,
            report,
            seeding_for_max,
            self.rules.max_rate,
            self.now.mono,
        );
        let others = seeding_since.map(|_| self.swarm.other_seeded_at(client));
        let since_others = others.flatten().map(|at| self.now.mono.since(at));
        accrual.seed_time = accrual.seed_time.min(since_others.unwrap_or(u32::MAX));
        credit::remember(&mut client.history, &accrual, self.rules.hnr());
        if accrual.implausible && self.tracker.common.take_warning(self.now.mono) {
            tracing::warn!(
                user = client.state.user.0,
                torrent = self.torrent.id.0,
                "a client reported more traffic than any line carries; it was not credited"
            );
        }
        accrual
    }

    /// What the user gains: multipliers applied, and a snatch if one is owed.
    fn credit(&self, history: &mut UserHistory, added: &Owed) -> Credit {
        Credit {
            up: self.torrent.multi_up.of(added.uploaded),
            down: self.torrent.multi_down.of(added.downloaded),
            raw_up: added.uploaded,
            raw_down: added.downloaded,
            seed_time: added.seed_time,
            announces: added.announces,
            snatched: self.take_snatch(history),
        }
    }

    fn take_snatch(&self, history: &mut UserHistory) -> bool {
        let is_owed = std::mem::take(&mut history.owes_snatch);
        if is_owed {
            let (torrent, user) = (self.torrent.canonical, Some(history.user));
            self.tracker
                .common
                .publish_snatch(torrent, user, self.now.mono);
        }
        is_owed
    }

    pub fn select(&self, who: &Participant, context: &AnnounceContext, work: &mut Workspace) {
        let request = Request {
            user: who.user,
            endpoint: context.endpoint,
            role: context.role,
            want: context.want(self.rules, work),
            eligibility: context.eligibility(self.rules),
            hide_own: self.rules.hide_own_peers,
        };
        let shows_ids = context.params.list_form && !context.params.no_peer_id;
        let peers = &mut work.peers;
        let peer_ids = shows_ids.then_some(&mut peers.peer_ids);
        self.swarm
            .select(&request, &mut work.selector, &mut peers.endpoints, peer_ids);
    }
}

/// The endpoint that the client announces from. A `stopped` may lack the port: then the endpoint held at
/// that address is meant.
fn sender(context: &AnnounceContext, held: Endpoints) -> Endpoint {
    let held = match context.endpoint {
        Endpoint::V4(_) => held.0.map(Endpoint::V4),
        Endpoint::V6(_) => held.1.map(Endpoint::V6),
    };
    let is_meant = |held: &Endpoint| {
        let is_portless = context.endpoint.port() == 0 && context.params.event == Event::Stopped;
        is_portless && held.ip() == context.endpoint.ip()
    };
    held.filter(is_meant).unwrap_or(context.endpoint)
}
