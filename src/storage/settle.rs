//! Applies batches to the rows of storage: each report is settled against its row
//! (rules A1 to A9), and each row is written once, in the order of its table.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::accounting::coverage::Coverage;
use crate::accounting::machines::Machines;
use crate::accounting::packed;
use crate::accounting::peer::{PeerAccount, Totals};
use crate::accounting::sessions::{Dip, Point, ReportSource, Sessions, Settled};
use crate::base::hash::RandomState;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::journals::{node_of, start_of};
use crate::change::sums::{Credited, Sum};
use crate::change::{
    PeerChange, PeerKey, PeerRecord, RecordAge, Report, Standing, SwarmCounts, shared_family,
    shared_mark,
};
use crate::registry::Permille;
use crate::storage::CreditRules;
use crate::storage::touched::{Touched, TouchedHistory, TouchedPeer};

/// The rows that some batches touch, locked until they are written: parallel to [`Touched`].
#[derive(Debug, Default)]
pub struct HeldRows {
    pub peers: Vec<Option<HeldPeer>>,
    pub histories: Vec<Option<HeldHistory>>,
}

/// The part of a peer's row that reports are settled against.
#[derive(Clone, Debug)]
pub struct HeldPeer {
    pub age: RecordAge,
    /// Bytes credited, before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    pub account: PeerAccount,
}

/// The part of a history that reports are settled against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldHistory {
    /// Bytes credited, before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u64,
    pub announces: u64,
    /// Unix times.
    pub last_announce: i64,
    pub completed_at: Option<i64>,
    pub hnr: bool,
    pub covered: Option<Coverage>,
}

/// The rows to write, in the order of the tables.
#[derive(Default)]
pub struct Settlement<'a> {
    pub peers: Vec<PeerRow<'a>>,
    pub histories: Vec<HistoryRow>,
    pub users: Vec<(UserId, Sum)>,
    pub torrents: Vec<(TorrentId, TorrentSum)>,
    /// Snatches of public torrents.
    pub snatches: BTreeMap<InfoHash, u64>,
    /// Peers whose user or torrent was deleted.
    pub gone: Vec<PeerKey>,
    /// Reports that grew faster than any line (rule A7).
    pub implausible: u64,
}

/// A peer after the batches.
pub struct PeerRow<'a> {
    pub key: PeerKey,
    /// It has no row yet.
    pub is_new: bool,
    /// The latest record, unless that of the row is newer.
    pub record: Option<&'a PeerRecord>,
    pub held: HeldPeer,
    /// Index of its history in [`Settlement::histories`].
    pub history: usize,
    /// It has a row, which is plain.
    was_plain: bool,
}

/// A history after the batches.
pub struct HistoryRow {
    pub torrent: TorrentId,
    pub user: UserId,
    /// It has no row yet.
    pub is_new: bool,
    pub now: HeldHistory,
    /// Unix time.
    pub first_announce: i64,
    /// Both before the batches.
    standing: Standing,
    covered: Option<Coverage>,
}

/// What the batches add to a torrent.
pub struct TorrentSum {
    /// The info hash under which its swarm is kept.
    pub info_hash: InfoHash,
    pub sum: Sum,
    /// The counters of its swarm after the batches.
    pub counts: SwarmCounts,
}

/// The sums being added up.
#[derive(Default)]
struct Sums {
    users: HashMap<UserId, Sum, RandomState>,
    torrents: HashMap<TorrentId, TorrentSum, RandomState>,
}

/// The base that a row has, its time, and since when the client reports less.
pub struct Base {
    pub up: u64,
    pub down: u64,
    pub at: i64,
    pub dip_up: Option<i64>,
    pub dip_down: Option<i64>,
}

/// The largest number that SQL knows is 2^63−1 (rule A8).
pub fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn source_of(journal: &str) -> ReportSource {
    let mut hasher = SipHasher13::new();
    hasher.write(node_of(journal).as_bytes());
    ReportSource::new(hasher.finish(), start_of(journal))
}

// === impl Settlement ===

impl<'a> Settlement<'a> {
    /// Settles the changes of a node in order.
    pub fn of(touched: Touched<'a>, held: HeldRows, node: &str, rules: &CreditRules) -> Self {
        let by = source_of(node);
        let first = |change: usize| &touched.changes[change].0.record;
        let mut peers: Vec<PeerRow<'a>> = touched
            .peers
            .iter()
            .zip(held.peers)
            .map(|(row, held)| PeerRow::of(row, held, first(row.first)))
            .collect();
        let mut histories: Vec<HistoryRow> = touched
            .histories
            .iter()
            .zip(held.histories)
            .map(|(row, held)| HistoryRow::of(row, held, first(row.first)))
            .collect();
        let (mut sums, mut implausible) = (Sums::default(), 0);
        for (change, place) in touched.changes {
            let peer = &mut peers[place];
            let history = &mut histories[peer.history];
            let sum = match &change.report {
                Some(report) => {
                    let starts = [change.record.start_up, change.record.start_down];
                    let (up, down) = peer.settle(report, starts, by, rules);
                    implausible += u64::from(up.implausible) + u64::from(down.implausible);
                    history.settle(report, up.bytes, down.bytes, rules)
                }
                None => decided_by_node(change, peer, history),
            };
            peer.take(&change.record);
            history.add(&sum, &change.record);
            sums.add(&peer.key, change, &sum);
        }
        let (users, torrents) = sums.in_order();
        Self {
            peers,
            histories,
            users,
            torrents,
            snatches: touched.snatches,
            gone: touched.gone,
            implausible,
        }
    }

    /// The credit that was settled.
    pub fn into_credited(self) -> Credited {
        let mut credited = Credited {
            users: self.users.into_iter().collect(),
            implausible: self.implausible,
            ..Credited::default()
        };
        for (_, TorrentSum { info_hash, sum, .. }) in self.torrents {
            credited.torrents.entry(info_hash).or_default().add(&sum);
        }
        for (info_hash, snatches) in self.snatches {
            let sum = credited.torrents.entry(info_hash).or_default();
            sum.snatches = sum.snatches.saturating_add(snatches);
        }
        credited
    }

    /// The history that a peer belongs to.
    pub fn history_of(&self, peer: &PeerRow<'_>) -> &HeldHistory {
        &self.histories[peer.history].now
    }

    /// Whether the row of a peer is plain and stays so: active, without dips, and with the same standing.
    pub fn stays_plain(&self, peer: &PeerRow<'_>) -> bool {
        let history = &self.histories[peer.history];
        let has_standing = !history.is_new && !history.has_new_standing();
        peer.was_plain && peer.held.is_plain() && has_standing
    }
}

/// A change of a version whose nodes decided: its credit counts unchanged.
fn decided_by_node(change: &PeerChange, peer: &mut PeerRow<'_>, history: &mut HistoryRow) -> Sum {
    let PeerChange { record, credit, .. } = change;
    if record.age().replaces(peer.held.age) {
        let held = &mut peer.held;
        (held.uploaded, held.downloaded) = (record.uploaded, record.downloaded);
        peer.held.account = Base::of_record(record).account();
    }
    let now = &mut history.now;
    now.hnr = change.standing.hnr;
    now.completed_at = now.completed_at.or(change.standing.completed_at);
    Sum {
        up: credit.up,
        down: credit.down,
        raw_up: credit.raw_up,
        raw_down: credit.raw_down,
        seed_time: credit.seed_time.into(),
        announces: credit.announces.into(),
        snatches: credit.snatched.into(),
    }
}

/// Sums in the order of the tables.
type SumsInOrder = (Vec<(UserId, Sum)>, Vec<(TorrentId, TorrentSum)>);

// === impl Sums ===

impl Sums {
    fn add(&mut self, key: &PeerKey, change: &PeerChange, sum: &Sum) {
        self.users.entry(key.user).or_default().add(sum);
        let torrent = self.torrents.entry(key.torrent);
        let torrent = torrent.or_insert_with(|| TorrentSum {
            info_hash: change.info_hash,
            sum: Sum::default(),
            counts: change.counts,
        });
        torrent.sum.add(sum);
        torrent.counts = change.counts;
    }

    fn in_order(self) -> SumsInOrder {
        let mut users: Vec<_> = self.users.into_iter().collect();
        users.sort_unstable_by_key(|(user, _)| *user);
        let mut torrents: Vec<_> = self.torrents.into_iter().collect();
        torrents.sort_unstable_by_key(|(torrent, _)| *torrent);
        (users, torrents)
    }
}

// === impl Base ===

impl Base {
    fn of_record(record: &PeerRecord) -> Self {
        Self {
            up: record.base_up,
            down: record.base_down,
            at: record.base_at,
            dip_up: record.dip_up,
            dip_down: record.dip_down,
        }
    }

    /// The account of a client of which only the bases were kept.
    pub fn account(&self) -> PeerAccount {
        let mut account = PeerAccount::known(self.up, self.down, self.at);
        if let Some(is_v6) = shared_family(self.dip_up, self.dip_down) {
            account.machines = Some(Machines::unknown(is_v6, self.at));
            return account;
        }
        let enter = |sessions: &mut Sessions, since: Option<i64>| {
            sessions.dip = since.map(|since| Dip {
                since,
                total: 0,
                at: since,
            });
        };
        enter(&mut account.up, self.dip_up);
        enter(&mut account.down, self.dip_down);
        account
    }
}

// === impl HeldPeer ===

impl HeldPeer {
    /// The account that a row keeps as bytes; none in a row of an earlier version, which has bases only.
    pub fn account_of(packed: &[u8]) -> Option<PeerAccount> {
        packed::unpack(packed)
    }

    /// Writes the account into `bytes`, as the row keeps it.
    pub fn pack(&self, bytes: &mut Vec<u8>) {
        packed::pack(&self.account, bytes);
    }

    /// Whether it is like most: active, and without dips.
    fn is_plain(&self) -> bool {
        let PeerAccount { up, down, machines } = &self.account;
        self.age.active && up.dip.is_none() && down.dip.is_none() && machines.is_none()
    }

    pub fn base(&self) -> Base {
        let PeerAccount { up, down, machines } = &self.account;
        let bases = self.account.bases();
        let (dip_up, dip_down) = match machines {
            Some(machines) => shared_mark(machines.is_v6),
            None => (up.dip.map(|dip| dip.since), down.dip.map(|dip| dip.since)),
        };
        Base {
            up: bases.0,
            down: bases.1,
            at: self.account.base_at().unwrap_or(self.age.last_announce),
            dip_up,
            dip_down,
        }
    }
}

// === impl PeerRow ===

impl<'a> PeerRow<'a> {
    fn of(row: &TouchedPeer, held: Option<HeldPeer>, first: &PeerRecord) -> Self {
        let unknown = || HeldPeer {
            age: first.age(),
            uploaded: 0,
            downloaded: 0,
            account: PeerAccount::default(),
        };
        Self {
            key: row.key,
            is_new: held.is_none(),
            was_plain: held.as_ref().is_some_and(HeldPeer::is_plain),
            record: None,
            held: held.unwrap_or_else(unknown),
            history: row.history,
        }
    }

    /// Credits a report to its record; returns the credit.
    fn settle(
        &mut self,
        report: &Report,
        starts: [Option<Point>; 2],
        by: ReportSource,
        rules: &CreditRules,
    ) -> (Settled, Settled) {
        let totals = Totals {
            up: report.up,
            down: report.down,
            starts,
            machine: report.machine,
            by,
        };
        let held = &mut self.held;
        let (up, down) = held.account.settle(&totals, rules.max_rate);
        held.uploaded = held.uploaded.saturating_add(up.bytes);
        held.downloaded = held.downloaded.saturating_add(down.bytes);
        (up, down)
    }

    /// Replaces the record, unless it is newer.
    fn take(&mut self, record: &'a PeerRecord) {
        if record.age().replaces(self.held.age) {
            self.record = Some(record);
            self.held.age = record.age();
        }
    }
}

// === impl HistoryRow ===

impl HistoryRow {
    fn of(row: &TouchedHistory, held: Option<HeldHistory>, first: &PeerRecord) -> Self {
        let is_new = held.is_none();
        let now = held.unwrap_or_default();
        Self {
            torrent: row.torrent,
            user: row.user,
            is_new,
            standing: now.standing(),
            covered: now.covered,
            now,
            first_announce: first.first_announce,
        }
    }

    /// Counts seed time, snatch and hit and run of a report that moved these bytes; returns all that it
    /// adds.
    fn settle(&mut self, report: &Report, up: u64, down: u64, rules: &CreditRules) -> Sum {
        let now = &mut self.now;
        let seed_time = report.seeding_since.map_or(0, |since| {
            Coverage::count(&mut now.covered, since, report.at)
        });
        let is_snatch = report.completed && now.completed_at.is_none();
        if is_snatch {
            now.completed_at = Some(report.at);
        }
        let all_seed_time = now.seed_time.saturating_add(seed_time.into());
        if all_seed_time >= rules.hnr_threshold.into() {
            now.hnr = false;
        } else if report.left && now.downloaded.saturating_add(down) > rules.hnr_min_bytes {
            now.hnr = true;
        }
        Sum {
            up: Permille(report.multi_up).of(up),
            down: Permille(report.multi_down).of(down),
            raw_up: up,
            raw_down: down,
            seed_time: seed_time.into(),
            announces: report.announces.into(),
            snatches: is_snatch.into(),
        }
    }

    fn add(&mut self, sum: &Sum, record: &PeerRecord) {
        let now = &mut self.now;
        now.uploaded = now.uploaded.saturating_add(sum.raw_up);
        now.downloaded = now.downloaded.saturating_add(sum.raw_down);
        now.seed_time = now.seed_time.saturating_add(sum.seed_time);
        now.announces = now.announces.saturating_add(sum.announces);
        now.last_announce = now.last_announce.max(record.last_announce);
    }

    /// Whether the standing has changed, which the user's other peers of the torrent show, too.
    pub fn has_new_standing(&self) -> bool {
        self.standing != self.now.standing()
    }

    /// Whether it has a row in which only totals and the end of what is covered changed.
    pub fn only_grew(&self) -> bool {
        let begin =
            |covered: Option<Coverage>| covered.map(|covered| (covered.floor, covered.from));
        let is_stretch_known = begin(self.covered) == begin(self.now.covered);
        !self.is_new && !self.has_new_standing() && is_stretch_known
    }
}

// === impl HeldHistory ===

impl HeldHistory {
    fn standing(&self) -> Standing {
        Standing {
            completed_at: self.completed_at,
            hnr: self.hnr,
        }
    }
}
