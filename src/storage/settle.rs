//! What batches do to the rows that storage holds: each report is settled against its row
//! (rules A1 to A9), and each row is written once, in the order of its table.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::accounting::coverage::Coverage;
use crate::accounting::machines::Machines;
use crate::accounting::packed;
use crate::accounting::peer::{PeerAccount, Totals};
use crate::accounting::sessions::{Dip, Sessions, Settled, Source};
use crate::change::journals::{node_of, start_of};
use crate::change::sums::{Credited, Sum};
use crate::change::{
    Change, PeerChange, PeerKey, PeerRecord, RecordAge, Report, SwarmCounts, shared_family,
    shared_mark,
};
use crate::ids::{InfoHash, TorrentId, UserId};
use crate::registry::Permille;
use crate::storage::CreditRules;

/// Which of the users and torrents that some batches name are there.
#[derive(Default)]
pub struct Known {
    pub users: HashSet<u32>,
    pub torrents: HashSet<u32>,
    /// Torrents that are not there under the id of a change, and may have got another one meanwhile.
    pub moved: HashMap<InfoHash, TorrentId>,
}

/// What storage holds of the rows that some batches touch, locked until they are written.
#[derive(Default)]
pub struct Held {
    pub known: Known,
    pub peers: HashMap<PeerKey, HeldPeer>,
    pub histories: HashMap<(TorrentId, UserId), HeldHistory>,
}

/// What is settled against of a peer's row.
#[derive(Clone, Debug)]
pub struct HeldPeer {
    pub age: RecordAge,
    /// Bytes credited, before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    pub account: PeerAccount,
}

/// What is settled against of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldHistory {
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u64,
    pub completed_at: Option<i64>,
    pub hnr: bool,
    pub covered: Option<Coverage>,
}

/// What is to be written.
#[derive(Default)]
pub struct Settlement<'a> {
    pub peers: BTreeMap<PeerKey, PeerRow<'a>>,
    pub histories: BTreeMap<(TorrentId, UserId), HistoryRow>,
    pub users: BTreeMap<UserId, Sum>,
    /// With the info hashes under which they are kept.
    pub torrents: BTreeMap<TorrentId, (InfoHash, Sum, SwarmCounts)>,
    /// Snatches of public torrents.
    pub snatches: BTreeMap<InfoHash, u64>,
    /// Peers whose user or torrent was deleted.
    pub gone: BTreeSet<PeerKey>,
    /// Reports that grew faster than any line (rule A7).
    pub implausible: u64,
    /// Whose batches these are.
    by: Source,
}

/// A peer after the batches.
pub struct PeerRow<'a> {
    /// Its row is not there yet.
    pub is_new: bool,
    /// The latest record, unless that of the row is newer.
    pub record: Option<&'a PeerRecord>,
    pub held: HeldPeer,
}

/// A history after the batches.
pub struct HistoryRow {
    pub is_new: bool,
    pub before: HeldHistory,
    pub now: HeldHistory,
    pub added: Sum,
    /// Unix times.
    pub first_announce: i64,
    pub last_announce: i64,
}

/// The base that a row shows, as of when, and since when the client reports less.
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

fn source_of(journal: &str) -> Source {
    let mut hasher = SipHasher13::new();
    hasher.write(node_of(journal).as_bytes());
    Source::new(hasher.finish(), start_of(journal))
}

/// The rows of peers and of histories that changes touch.
pub fn touched<'a>(
    changes: impl Iterator<Item = &'a Change>,
    known: &Known,
) -> (BTreeSet<PeerKey>, BTreeSet<(TorrentId, UserId)>) {
    let (mut peers, mut histories) = (BTreeSet::new(), BTreeSet::new());
    for change in changes {
        if let Change::Peer(change) = change
            && let Some(key) = known.key_of(change)
        {
            peers.insert(key);
            histories.insert((key.torrent, key.user));
        }
    }
    (peers, histories)
}

// === impl Settlement ===

impl<'a> Settlement<'a> {
    /// Settles changes of a node in their order.
    pub fn of(
        changes: impl Iterator<Item = &'a Change>,
        node: &str,
        held: &Held,
        rules: &CreditRules,
    ) -> Self {
        let mut settled = Self {
            by: source_of(node),
            ..Self::default()
        };
        for change in changes {
            match change {
                Change::Snatch { info_hash } => {
                    *settled.snatches.entry(*info_hash).or_default() += 1;
                }
                Change::Guest(_) => {}
                Change::Peer(change) => match held.known.key_of(change) {
                    Some(key) => settled.settle_peer(key, change, held, rules),
                    None => drop(settled.gone.insert(change.key)),
                },
            }
        }
        settled
    }

    fn settle_peer(
        &mut self,
        key: PeerKey,
        change: &'a PeerChange,
        held: &Held,
        rules: &CreditRules,
    ) {
        let PeerKey { user, torrent, .. } = key;
        let peer = self
            .peers
            .entry(key)
            .or_insert_with(|| PeerRow::of(held.peers.get(&key), &change.record));
        let history = self
            .histories
            .entry((torrent, user))
            .or_insert_with(|| HistoryRow::of(held.histories.get(&(torrent, user)), change));
        let sum = match &change.report {
            Some(report) => {
                let (up, down) = peer.settle(report, self.by, rules);
                self.implausible += u64::from(up.implausible) + u64::from(down.implausible);
                let held = &mut peer.held;
                held.uploaded = held.uploaded.saturating_add(up.bytes);
                held.downloaded = held.downloaded.saturating_add(down.bytes);
                let sum = history.settle(report, down.bytes, rules);
                Sum {
                    up: Permille(report.multi_up).of(up.bytes),
                    down: Permille(report.multi_down).of(down.bytes),
                    raw_up: up.bytes,
                    raw_down: down.bytes,
                    ..sum
                }
            }
            None => decided_by_node(change, peer, history),
        };
        peer.take(&change.record);
        history.added.add(&sum);
        history.last_announce = history.last_announce.max(change.record.last_announce);
        self.users.entry(user).or_default().add(&sum);
        let new = || (change.info_hash, Sum::default(), change.counts);
        let (_, total, counts) = self.torrents.entry(torrent).or_insert_with(new);
        total.add(&sum);
        *counts = change.counts;
    }

    /// What was credited.
    pub fn into_credited(self) -> Credited {
        let mut credited = Credited {
            users: self.users,
            implausible: self.implausible,
            ..Credited::default()
        };
        for (info_hash, sum, _) in self.torrents.into_values() {
            credited.torrents.entry(info_hash).or_default().add(&sum);
        }
        for (info_hash, snatches) in self.snatches {
            let sum = credited.torrents.entry(info_hash).or_default();
            sum.snatches = sum.snatches.saturating_add(snatches);
        }
        credited
    }

    /// The history that a peer belongs to.
    pub fn history_of(&self, key: &PeerKey) -> Option<&HistoryRow> {
        self.histories.get(&(key.torrent, key.user))
    }
}

/// A change of a version whose nodes decided: its credit counts as it is.
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
    now.downloaded = now.downloaded.saturating_add(credit.raw_down);
    now.seed_time = now.seed_time.saturating_add(credit.seed_time.into());
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

// === impl Known ===

impl Known {
    /// Under which key the peer of a change is stored; none if its user or torrent is gone.
    pub fn key_of(&self, change: &PeerChange) -> Option<PeerKey> {
        let key = change.key;
        if !self.users.contains(&key.user.0) {
            return None;
        }
        if self.torrents.contains(&key.torrent.0) {
            return Some(key);
        }
        let torrent = *self.moved.get(&change.info_hash)?;
        Some(PeerKey { torrent, ..key })
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

    /// What is known of a client whose bases alone were kept.
    fn account(&self) -> PeerAccount {
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
    /// The account that a row keeps as bytes; one of an earlier version has its bases only.
    pub fn account_of(packed: &[u8], base: &Base) -> PeerAccount {
        packed::unpack(packed).unwrap_or_else(|| base.account())
    }

    /// The account as the row keeps it.
    pub fn packed(&self) -> Vec<u8> {
        packed::pack(&self.account)
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
    fn of(held: Option<&HeldPeer>, first: &PeerRecord) -> Self {
        let unknown = || HeldPeer {
            age: first.age(),
            uploaded: 0,
            downloaded: 0,
            account: PeerAccount::default(),
        };
        Self {
            is_new: held.is_none(),
            record: None,
            held: held.cloned().unwrap_or_else(unknown),
        }
    }

    fn settle(&mut self, report: &Report, by: Source, rules: &CreditRules) -> (Settled, Settled) {
        let totals = Totals {
            up: report.up,
            down: report.down,
            machine: report.machine,
            by,
        };
        self.held.account.settle(&totals, rules.max_rate)
    }

    /// Takes over a record, unless the one that is there is newer.
    fn take(&mut self, record: &'a PeerRecord) {
        if record.age().replaces(self.held.age) {
            self.record = Some(record);
            self.held.age = record.age();
        }
    }
}

// === impl HistoryRow ===

impl HistoryRow {
    fn of(held: Option<&HeldHistory>, change: &PeerChange) -> Self {
        let before = held.cloned().unwrap_or_default();
        Self {
            is_new: held.is_none(),
            now: before.clone(),
            before,
            added: Sum::default(),
            first_announce: change.record.first_announce,
            last_announce: change.record.last_announce,
        }
    }

    /// Counts seed time, snatch and hit and run; returns what is added, bytes left out.
    fn settle(&mut self, report: &Report, downloaded: u64, rules: &CreditRules) -> Sum {
        let now = &mut self.now;
        let seed_time = report.seeding_since.map_or(0, |since| {
            Coverage::count(&mut now.covered, since, report.at)
        });
        now.downloaded = now.downloaded.saturating_add(downloaded);
        now.seed_time = now.seed_time.saturating_add(seed_time.into());
        let is_snatch = report.completed && now.completed_at.is_none();
        if is_snatch {
            now.completed_at = Some(report.at);
        }
        if now.seed_time >= rules.hnr_threshold.into() {
            now.hnr = false;
        } else if report.left && now.downloaded > rules.hnr_min_bytes {
            now.hnr = true;
        }
        Sum {
            seed_time: seed_time.into(),
            announces: report.announces.into(),
            snatches: is_snatch.into(),
            ..Sum::default()
        }
    }

    /// Whether what a user's other peers of the torrent show as well has changed.
    pub fn has_new_standing(&self) -> bool {
        let standing = |history: &HeldHistory| (history.hnr, history.completed_at);
        standing(&self.before) != standing(&self.now)
    }
}
