//! The rows that some batches leave in each table, as Mika's own accounting works them out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use mika::accounting::coverage::Coverage;
use mika::base::ids::{TorrentId, UserId};
use mika::change::{Batch, Change, PeerKey};
use mika::storage::CreditRules;
use mika::storage::settle::{HeldHistory, HeldPeer, HeldRows, PeerRow, Settlement, clamp};
use mika::storage::sql::cells::{Cell, SqlRows};
use mika::storage::touched::{KnownIds, Touched};

/// The columns of each table, the key first; `inactive_since` last, because not every database has it.
const PEERS: &str = "user_id torrent_id peer_id base_up base_down base_at sessions uploaded downloaded left_bytes \
    ip4 port4 ip6 port6 speed_up speed_down seed_time announces first_announce active paused last_announce dip_up \
    dip_down hnr completed_at inactive_since";
const HISTORY: &str = "torrent_id user_id uploaded downloaded seed_time announces last_announce seeded_until \
    completed_at hnr seeded_floor seeded_from first_announce";
const USERS: &str = "id uploaded downloaded snatches announces seed_time";
const TORRENTS: &str = "id uploaded downloaded snatches announces seeders leechers";

/// Columns of bytes, which have to be decoded from text.
pub const BYTES: [&str; 2] = ["peer_id", "sessions"];

/// What storage holds, in memory.
#[derive(Default)]
pub struct Accounts {
    peers: HashMap<PeerKey, HeldPeer>,
    histories: HashMap<(TorrentId, UserId), HeldHistory>,
}

/// Rows of one table, in the order of its key.
pub struct Table {
    pub name: &'static str,
    pub columns: Vec<&'static str>,
    /// How many of the columns are the key.
    pub keys: usize,
    pub kind: Kind,
    pub rows: SqlRows,
}

/// What is to be done with rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    New,
    Changed,
    /// Numbers to be added to those that are there.
    Sums,
}

/// The rows that these batches change.
pub fn tables(accounts: &mut Accounts, batches: &[Arc<Batch>]) -> Vec<Table> {
    let changes = || batches.iter().flat_map(|batch| &batch.changes);
    let touched = Touched::by(changes(), &known(changes()));
    let histories = touched.histories.iter();
    let held = HeldRows {
        peers: found(&accounts.peers, touched.peers.iter().map(|row| row.key)),
        histories: found(
            &accounts.histories,
            histories.map(|row| (row.torrent, row.user)),
        ),
    };
    let settled = Settlement::of(touched, held, "bench", &CreditRules::default());
    let mut tables = Vec::from(peers(&settled));
    tables.extend(histories_of(&settled));
    tables.extend(sums(&settled));
    for row in settled.peers {
        accounts.peers.insert(row.key, row.held);
    }
    for row in settled.histories {
        accounts.histories.insert((row.torrent, row.user), row.now);
    }
    tables.retain(|table| !table.rows.is_empty());
    tables
}

fn known<'a>(changes: impl Iterator<Item = &'a Change>) -> KnownIds {
    let mut known = KnownIds::default();
    for change in changes {
        if let Change::Peer(change) = change {
            known.users.insert(change.key.user.0);
            known.torrents.insert(change.key.torrent.0);
        }
    }
    known
}

fn found<K: Hash + Eq, V: Clone>(
    rows: &HashMap<K, V, impl BuildHasher>,
    keys: impl Iterator<Item = K>,
) -> Vec<Option<V>> {
    keys.map(|key| rows.get(&key).cloned()).collect()
}

fn peers(settled: &Settlement<'_>) -> [Table; 2] {
    let mut tables = [Kind::New, Kind::Changed].map(|kind| Table::new("peers", PEERS, 3, kind));
    for row in &settled.peers {
        push_peer(&mut tables[usize::from(!row.is_new)].rows, row, settled);
    }
    tables
}

fn push_peer(rows: &mut SqlRows, row: &PeerRow<'_>, settled: &Settlement<'_>) {
    let Some(record) = row.record else {
        return;
    };
    let (base, history) = (row.held.base(), settled.history_of(row));
    let mut sessions = Vec::new();
    row.held.pack(&mut sessions);
    let ip4 = record.v4.map(|address| address.ip().to_string());
    let ip6 = record.v6.map(|address| address.ip().to_string());
    rows.push(&[
        row.key.user.0.into(),
        row.key.torrent.0.into(),
        Cell::Bytes(&row.key.peer_id.0),
        clamp(base.up).into(),
        clamp(base.down).into(),
        base.at.into(),
        Cell::Bytes(&sessions),
        clamp(row.held.uploaded).into(),
        clamp(row.held.downloaded).into(),
        Cell::maybe(record.left.map(clamp)),
        Cell::text(ip4.as_deref()),
        Cell::maybe(record.v4.map(|address| address.port().into())),
        Cell::text(ip6.as_deref()),
        Cell::maybe(record.v6.map(|address| address.port().into())),
        record.speed_up.into(),
        record.speed_down.into(),
        record.seed_time.into(),
        record.announces.into(),
        record.first_announce.into(),
        record.active.into(),
        record.paused.into(),
        record.last_announce.into(),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
        history.hnr.into(),
        Cell::maybe(history.completed_at),
        Cell::maybe((!record.active).then_some(record.last_announce)),
    ]);
}

fn histories_of(settled: &Settlement<'_>) -> [Table; 2] {
    let mut tables = [Kind::New, Kind::Changed].map(|kind| Table::new("history", HISTORY, 2, kind));
    for row in &settled.histories {
        let now = &row.now;
        tables[usize::from(!row.is_new)].rows.push(&[
            row.torrent.0.into(),
            row.user.0.into(),
            clamp(now.uploaded).into(),
            clamp(now.downloaded).into(),
            clamp(now.seed_time).into(),
            clamp(now.announces).into(),
            now.last_announce.into(),
            Cell::maybe(now.covered.map(|covered| covered.until)),
            Cell::maybe(now.completed_at),
            now.hnr.into(),
            Cell::maybe(now.covered.and_then(Coverage::floor)),
            Cell::maybe(now.covered.map(|covered| covered.from)),
            row.first_announce.into(),
        ]);
    }
    tables
}

fn sums(settled: &Settlement<'_>) -> [Table; 2] {
    let mut torrents = Table::new("torrents", TORRENTS, 1, Kind::Sums);
    for (torrent, row) in &settled.torrents {
        let totals = [row.sum.raw_up, row.sum.raw_down, row.sum.snatches];
        let counts = [row.counts.seeders, row.counts.leechers].map(Cell::from);
        let [up, down, snatches] = totals.map(|total| clamp(total).into());
        let announces = clamp(row.sum.announces).into();
        let id = torrent.0.into();
        torrents
            .rows
            .push(&[id, up, down, snatches, announces, counts[0], counts[1]]);
    }
    let mut users = Table::new("users", USERS, 1, Kind::Sums);
    for (user, sum) in &settled.users {
        let totals = [sum.up, sum.down, sum.snatches, sum.announces, sum.seed_time];
        let [up, down, snatches, announces, seed_time] = totals.map(|total| clamp(total).into());
        let id = user.0.into();
        users
            .rows
            .push(&[id, up, down, snatches, announces, seed_time]);
    }
    [torrents, users]
}

// === impl Table ===

impl Table {
    fn new(name: &'static str, columns: &'static str, keys: usize, kind: Kind) -> Self {
        let columns: Vec<&str> = columns.split_whitespace().collect();
        Self {
            name,
            rows: SqlRows::new(columns.len()),
            columns,
            keys,
            kind,
        }
    }

    /// The name of a temporary table for these rows.
    pub fn given(&self) -> String {
        let kind = match self.kind {
            Kind::New => "new",
            Kind::Changed => "changed",
            Kind::Sums => "sums",
        };
        format!("{}_{kind}", self.name)
    }

    /// The conditions for the row of a table `old` that one of `given` is for.
    pub fn matches(&self) -> String {
        let keys = self.columns[..self.keys].iter();
        let conditions: Vec<String> = keys.map(|key| format!("old.{key} = given.{key}")).collect();
        conditions.join(" AND ")
    }

    /// The assignments to all columns but the key, each as `target` and what `new` makes of its name.
    pub fn assignments(&self, target: &str, new: impl Fn(&str) -> String) -> String {
        let sums = |name: &str| self.kind == Kind::Sums && !matches!(name, "seeders" | "leechers");
        let columns = self.columns[self.keys..].iter();
        let assignment = |name: &&str| {
            let before = if sums(name) {
                format!("old.{name} + ")
            } else {
                String::new()
            };
            format!("{target}{name} = {before}{}", new(name))
        };
        columns.map(assignment).collect::<Vec<_>>().join(", ")
    }

    /// The rows as lines of values with tabs between them; bytes in hex, after `prefix`.
    pub fn text(&self, prefix: &str) -> String {
        let mut text = String::new();
        for row in self.rows.iter() {
            for (column, cell) in row.cells().enumerate() {
                text.push_str(if column > 0 { "\t" } else { "" });
                let _ = match cell {
                    Cell::Int(number) => write!(text, "{number}"),
                    Cell::Real(number) => write!(text, "{number}"),
                    Cell::Text(it) | Cell::Expression(it) => write!(text, "{it}"),
                    Cell::Bytes(bytes) => {
                        let hex = data_encoding::HEXLOWER.encode(bytes);
                        write!(text, "{prefix}{hex}")
                    }
                    Cell::Null => write!(text, "\\N"),
                };
            }
            text.push('\n');
        }
        text
    }
}
