//! Announces and scrapes of private torrents: peers with accounts, and credit for their users.

use std::sync::atomic::Ordering;

use crate::accounting::machines::MachineId;
use crate::accounting::sessions::{Point, Stretch};
use crate::base::addr::{Compact4, Compact6, Endpoint};
use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::change::{self, Change, Credit};
use crate::registry::Entry;
use crate::swarm::{Account, Client, Family, History, Owed, Peer, PrivateSwarm, Request, Role};
use crate::tracker::admit::Participant;
use crate::tracker::credit::{self, Accrual, Report};
use crate::tracker::outbox::Reservation;
use crate::tracker::record::peer_change;
use crate::tracker::{Answer, Arrival, Refusal, Rules, Ticket, Tracker, Workspace, scraped};
use crate::wire::{Event, ScrapeEntry};

/// For so many seconds after a record began, replies wait for the journal: the reply
/// to its first announce may still be waiting, or may have been lost.
const YOUNG_SECONDS: u32 = 5;

/// Where a client is in each family.
type Endpoints = (Option<Compact4>, Option<Compact6>);

/// One private swarm at work, with what is needed to journal what happens in it.
pub(super) struct Ledger<'a> {
    pub tracker: &'a Tracker,
    pub rules: &'a Rules,
    pub swarm: &'a mut PrivateSwarm,
    pub torrent: &'a Entry,
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
    heard: Seconds,
}

// === impl Reported ===

impl Reported {
    /// What the journal had no room for, without seed time.
    fn of_owed(owed: &Owed, client: &Client) -> Self {
        let account = &client.peer.account;
        let stretch = |base: u64, bytes: u64, started: bool, dip: Option<Seconds>| {
            let has_reported = owed.announces > 0 && base != Account::UNREPORTED;
            // A report below the base is no report of the base.
            let is_below = dip.is_some() && bytes == 0 && !started;
            (has_reported && !is_below).then(|| Stretch {
                from: Point {
                    total: base.saturating_sub(bytes),
                    at: owed.since.0.into(),
                },
                to: Point {
                    total: base,
                    at: account.base_at.0.into(),
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

// === impl Tracker ===

impl Tracker {
    pub(super) fn announce_private(
        &self,
        who: &Participant,
        arrival: &Arrival,
        rules: &Rules,
        work: &mut Workspace,
    ) -> Result<Answer, Refusal> {
        let shard = self.private.shard_of(&who.torrent.canonical);
        let mut swarms = self.private.lock(shard);
        let stops = arrival.params.event == Event::Stopped;
        let swarm = match swarms.get_mut(who.torrent.canonical) {
            Some(swarm) => swarm,
            // Who stops what nobody knows changes nothing.
            None if stops && !self.has_company() => &mut PrivateSwarm::default(),
            None => swarms.get_or_default(who.torrent.canonical),
        };
        let mut ledger = Ledger {
            tracker: self,
            rules,
            swarm,
            torrent: &who.torrent,
            shard,
            now: arrival.now,
        };
        let ticket = if stops {
            ledger.stop(who, arrival)
        } else {
            let ticket = ledger.update(who, arrival)?;
            ledger.select(who, arrival, work);
            ticket
        };
        let (counts, downloaded) = (ledger.swarm.counts(), ledger.swarm.snatches());
        let reply = arrival.reply(counts, downloaded, rules, work);
        Ok(Answer { reply, ticket })
    }

    fn has_company(&self) -> bool {
        self.has_company.load(Ordering::Relaxed)
    }

    pub(super) fn scrape_private(&self, info_hash: &InfoHash) -> Option<ScrapeEntry> {
        let torrent = self.enabled_torrent(info_hash)?;
        let swarms = self.private.lock(self.private.shard_of(&torrent.canonical));
        let swarm = swarms.get(torrent.canonical);
        Some(swarm.map_or_else(ScrapeEntry::default, |swarm| {
            scraped(swarm.counts(), swarm.snatches())
        }))
    }
}

// === impl Ledger ===

impl Ledger<'_> {
    /// Enters or updates a peer, counts its snatch and credits what it reports.
    fn update(&mut self, who: &Participant, arrival: &Arrival) -> Result<Option<Ticket>, Refusal> {
        let params = arrival.params;
        let mono = self.now.mono;
        let mut found = self.find(who, arrival);
        let before = found.as_mut().and_then(|client| self.before(client));
        let is_where_it_was = |client: &Client| client.peer.is_at(arrival.endpoint);
        if !found.as_ref().is_some_and(is_where_it_was) {
            // One that had expired stays so.
            if let Some(client) = &found {
                self.swarm.put(client);
            }
            if before.is_none() {
                self.admit_newcomer(who, arrival, found.is_none())?;
            }
            self.take_place(who.user, &params.peer_id, arrival.endpoint);
            if found.is_none() {
                self.make_room(who.user);
            }
            found = self.find(who, arrival);
        }
        let mut client = found.unwrap_or_else(|| self.newcomer(who, arrival));
        let held = client.peer.endpoints();
        client.peer.enter(arrival.endpoint, arrival.role, mono);
        self.snatch(&mut client.history, arrival, before);

        let first = client.peer.account.first_announce;
        let young = mono >= first && mono.since(first) <= YOUNG_SECONDS;
        let acknowledges = young || matches!(params.event, Event::Started | Event::Completed);
        let journaled = self.journal(client, arrival, held, before);
        Ok(match journaled {
            Some((ticket, base_lowered)) => (acknowledges || base_lowered).then_some(ticket),
            None => acknowledges.then_some(Ticket::NEVER),
        })
    }

    /// Takes the endpoint of this family out of the swarm, and credits the last report.
    fn stop(&mut self, who: &Participant, arrival: &Arrival) -> Option<Ticket> {
        let mut client = match self.find(who, arrival) {
            Some(client) => client,
            None => self.stranger(who, arrival)?,
        };
        let before = self.before(&mut client);
        let held = client.peer.endpoints();
        client
            .peer
            .leave(Family::of(arrival.endpoint), self.now.mono);
        let journaled = self.journal(client, arrival, held, before);
        Some(journaled.map_or(Ticket::NEVER, |(ticket, _)| ticket))
    }

    /// A client that leaves and that this node never heard of: where another one may know it, what it reports
    /// is passed on.
    fn stranger(&mut self, who: &Participant, arrival: &Arrival) -> Option<Client> {
        if !self.tracker.has_company() || self.admit_newcomer(who, arrival, true).is_err() {
            return None;
        }
        self.make_room(who.user);
        Some(self.newcomer(who, arrival))
    }

    fn find(&self, who: &Participant, arrival: &Arrival) -> Option<Client> {
        let place = self.swarm.find(who.user, &arrival.params.peer_id)?;
        self.swarm.client(place)
    }

    /// A peer until its announce. One that was silent for too long had left the
    /// swarm, even if no sweep has come by since (rule W10).
    fn before(&self, client: &mut Client) -> Option<Before> {
        self.expire(client);
        let role = client.peer.role()?;
        let heard = client.peer.heard();
        Some(Before { role, heard })
    }

    /// A peer has left the swarm, as its user's last one perhaps: then the user may have run,
    /// unless the torrent no longer lets them seed. Returns whether they may.
    pub fn left(&self, client: &mut Client) -> bool {
        let is_excused = self.torrent.disabled.is_some() || self.may_have_missed(&client.peer);
        let is_last = !is_excused && !self.swarm.has_other(client);
        if is_last {
            credit::leave(&mut client.history, self.rules.hnr());
        }
        is_last
    }

    /// Whether the silence of a peer may have been ours: it was last heard by a process before
    /// this one, in the second in which this one began perhaps, and has not had a whole peer's life to come back.
    fn may_have_missed(&self, peer: &Peer) -> bool {
        let (heard, now) = (peer.account.last_announce, self.now.mono);
        let is_silent = heard < now;
        is_silent && heard <= Seconds::START && now < Seconds::START.plus(self.rules.peer_ttl)
    }

    /// Rule W5: once for ever for a user and a torrent, and not for who was a seeder before.
    fn snatch(&mut self, history: &mut History, arrival: &Arrival, before: Option<Before>) {
        let was_seeding = before.is_some_and(|it| it.role == Role::Seeder);
        if !arrival.completes() || was_seeding || history.completed_at.is_some() {
            return;
        }
        history.completed_at = Some(self.now.unix);
        history.owes_snatch = true;
        self.swarm
            .set_snatches(self.swarm.snatches().saturating_add(1));
        self.tracker.metrics.snatches.one();
    }

    /// Brings the account of a client that was at `held` up to date and queues the change; returns its
    /// ticket, and whether a base went down. None if the outbox is full: then what was reported is
    /// owed, and travels with a later change.
    fn journal(
        &mut self,
        mut client: Client,
        arrival: &Arrival,
        held: Endpoints,
        before: Option<Before>,
    ) -> Option<(Ticket, bool)> {
        let params = arrival.params;
        // One that expired is told with what it reports now.
        let had_left = client.peer.owed.as_ref().is_some_and(|owed| owed.left);
        let mut owed = self.settle_owed(&mut client);
        let had_left = had_left && owed.is_none();
        // A report must not overtake what is still owed.
        let room = match owed {
            None => self.tracker.outbox.reserve(),
            Some(_) => None,
        };
        let has_machines = client.peer.account.machines.is_some();
        let report = Report {
            uploaded: params.uploaded,
            downloaded: params.downloaded,
            started: (params.event == Event::Started).then_some(self.now.unix),
            sender: sender(arrival, held),
            held,
            is_held_back: room.is_none() && (owed.is_some() || has_machines),
            has_room: room.is_some(),
        };
        let seeding = before.filter(|it| it.role == Role::Seeder);
        let seeding_since = seeding.map(|it| self.seeding_since(&client, it.heard));
        if let (Some(owed), Some(since)) = (&mut owed, seeding_since)
            && owed.seeded_until != since
        {
            // The client left or was no seeder in between, and only one stretch can be owed.
            owed.seed_time = 0;
        }
        let accrual = self.account(&mut client, report, seeding_since);
        let has_left = before.is_some() && client.peer.role().is_none() && self.left(&mut client);
        let peer = &mut client.peer;
        // Who stays in another family goes on there as what they were.
        if params.event != Event::Stopped || peer.role().is_none() {
            peer.account.left = params.left;
        }
        let Some(room) = room else {
            let mut owed = accrual.added_to(owed, self.now.mono);
            owed.left |= has_left || had_left;
            if seeding_since.is_some() {
                owed.seeded_until = self.now.mono;
            }
            client.peer.owed = Some(owed);
            self.swarm.put(&client);
            self.tracker.metrics.outbox_full.one();
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

    /// Queues what a client owes, so that what it reports now is told by itself; returns what it
    /// still owes.
    fn settle_owed(&mut self, client: &mut Client) -> Option<Owed> {
        let owed = client.peer.owed.take()?;
        // Of an endpoint that was lost, the change that follows tells as well.
        if owed.announces == 0 {
            return None;
        }
        let Some(room) = self.tracker.outbox.reserve() else {
            return Some(owed);
        };
        let credit = self.credit(&mut client.history, &owed);
        let report = self.report(&self.owed_report(&owed, client), &credit);
        let counts = self.swarm.counts();
        let change = peer_change(client, counts, self.torrent, credit, report, self.now);
        room.push(self.shard, Change::from(change));
        None
    }

    /// Since when a client that was seeding until now, and last heard then, is known to have been.
    fn seeding_since(&self, client: &Client, heard: Seconds) -> Seconds {
        let earliest = self.now.mono.0.saturating_sub(self.rules.peer_ttl);
        self.unreported_since(client, Seconds(heard.0.max(earliest)))
    }

    /// The part of the time since `since` that no other client of the user has reported yet. Storage can't tell
    /// that for the time before a leap of the clock, so what they may have reported of it is left out; so is
    /// that of clients that have left.
    fn unreported_since(&self, client: &Client, since: Seconds) -> Seconds {
        let leap = self.tracker.leaps.latest(self.now);
        let user = client.peer.user;
        let reported = if since >= leap {
            None
        } else if self.excess(user).is_none() {
            self.swarm.other_announced_at(client)
        } else {
            // The records of some that left may be gone.
            Some(leap)
        };
        since.max(reported.unwrap_or(since)).min(self.now.mono)
    }

    /// What the journal had no room for.
    fn owed_report(&self, owed: &Owed, client: &Client) -> Reported {
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
    /// room it stays owing that.
    pub fn queue(&mut self, mut client: Client, owed: Owed) {
        let Some(room) = self.tracker.outbox.reserve() else {
            client.peer.owed = Some(owed);
            self.swarm.put(&client);
            return;
        };
        let reported = self.owed_report(&owed, &client);
        self.push(client, &owed, reported, room);
    }

    fn push(
        &mut self,
        mut client: Client,
        added: &Owed,
        reported: Reported,
        room: Reservation<'_>,
    ) -> Ticket {
        let credit = self.credit(&mut client.history, added);
        self.swarm.put(&client);
        let counts = self.swarm.counts();
        let report = self.report(&reported, &credit);
        let change = peer_change(&client, counts, self.torrent, credit, report, self.now);
        room.push(self.shard, Change::from(change))
    }

    /// What storage is to settle.
    fn report(&self, reported: &Reported, credit: &Credit) -> change::Report {
        let unix = |moment: i64| self.now.to_unix(Seconds(moment as u32));
        let stretch = |stretch: Option<Stretch>| {
            stretch.map(|it| Stretch {
                from: Point {
                    at: unix(it.from.at),
                    ..it.from
                },
                to: Point {
                    at: unix(it.to.at),
                    ..it.to
                },
                ..it
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
        client: &mut Client,
        report: Report,
        seeding_since: Option<Seconds>,
    ) -> Accrual {
        let seeding_for_max = seeding_since.map(|since| self.now.mono.since(since));
        let mut accrual = credit::account(
            &mut client.peer.account,
            report,
            seeding_for_max,
            self.rules.max_rate,
            self.now.mono,
        );
        let others = seeding_since.map(|_| self.swarm.other_seeded_at(client));
        let since_others = others.flatten().map(|at| self.now.mono.since(at));
        accrual.seed_time = accrual.seed_time.min(since_others.unwrap_or(u32::MAX));
        credit::remember(&mut client.history, &accrual, self.rules.hnr());
        if accrual.implausible && self.tracker.may_warn(self.now.mono) {
            tracing::warn!(
                user = client.peer.user.0,
                torrent = self.torrent.id.0,
                "a client reported more traffic than any line carries; it was not credited"
            );
        }
        accrual
    }

    /// What the user gains: multipliers applied, and a snatch if one is owed.
    fn credit(&self, history: &mut History, added: &Owed) -> Credit {
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

    fn take_snatch(&self, history: &mut History) -> bool {
        let is_owed = std::mem::take(&mut history.owes_snatch);
        if is_owed {
            let (torrent, user) = (self.torrent.canonical, Some(history.user));
            self.tracker.tell_snatch(torrent, user, self.now.mono);
        }
        is_owed
    }

    fn select(&self, who: &Participant, arrival: &Arrival, work: &mut Workspace) {
        let request = Request {
            user: who.user,
            endpoint: arrival.endpoint,
            role: arrival.role,
            want: arrival.want(self.rules, work),
            eligibility: arrival.eligibility(self.rules),
            hide_own: self.rules.hide_own_peers,
        };
        let shows_ids = arrival.params.list_form && !arrival.params.no_peer_id;
        let peers = &mut work.peers;
        let peer_ids = shows_ids.then_some(&mut peers.peer_ids);
        self.swarm
            .select(&request, &mut work.selector, &mut peers.endpoints, peer_ids);
    }
}

/// The endpoint that the client announces from. A `stopped` may come without its port: then it is the
/// client at that address.
fn sender(arrival: &Arrival, held: Endpoints) -> Endpoint {
    let held = match arrival.endpoint {
        Endpoint::V4(_) => held.0.map(Endpoint::V4),
        Endpoint::V6(_) => held.1.map(Endpoint::V6),
    };
    let is_it = |held: &Endpoint| {
        let is_portless = arrival.endpoint.port() == 0 && arrival.params.event == Event::Stopped;
        is_portless && held.ip() == arrival.endpoint.ip()
    };
    held.filter(is_it).unwrap_or(arrival.endpoint)
}
