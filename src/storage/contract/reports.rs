//! What clients report, as storage settles it: rules A1 to A9.

use std::future::Future;
use std::sync::Arc;

use super::{NOW, add_pair, change, migrated, torrent, user};
use crate::accounting::machines::MachineId;
use crate::accounting::sessions::{Point, Stretch};
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::sums::Credited;
use crate::change::{Batch, Change, PeerChange, Report};
use crate::storage::{CreditRules, Storage, StoredHistory};

const MB: u64 = 1_000_000;

/// A client of these tests: its user and torrent, and its machine.
#[derive(Clone, Copy)]
struct Client {
    user: UserId,
    torrent: TorrentId,
    peer: u8,
}

/// A storage, and the next number of each node's batches.
struct Nodes<'a> {
    storage: &'a dyn Storage,
    numbers: [u64; 3],
}

/// All tests of this file.
pub(super) async fn run<F: Future<Output = Arc<dyn Storage>>>(open: impl Fn() -> F) {
    totals_shown_to_two_nodes_count_once(&*migrated(open().await).await).await;
    totals_of_one_second_count_once(&*migrated(open().await).await).await;
    reports_count_once_in_any_order(&open).await;
    what_another_node_kept_counts_when_it_arrives(&*migrated(open().await).await).await;
    a_storage_that_lost_batches_gets_the_difference(&*migrated(open().await).await).await;
    clients_of_a_user_seed_at_the_same_time_once(&*migrated(open().await).await).await;
    two_machines_gain_what_both_show(&*migrated(open().await).await).await;
    what_older_nodes_decided_counts(&*migrated(open().await).await).await;
    hit_and_run_follows_what_is_stored(&*migrated(open().await).await).await;
    no_line_is_that_fast(&*migrated(open().await).await).await;
}

async fn totals_shown_to_two_nodes_count_once(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    for node in [0, 1] {
        nodes.report(node, client.shows(true, &[(0, 0)])).await;
    }
    for node in [1, 0] {
        let mut change = client.shows(false, &[(0, 0), (10, 100 * MB)]);
        report_of(&mut change).completed = true;
        nodes.report(node, change).await;
    }
    let totals = user(storage, client.user).await.totals;
    assert_eq!((totals.uploaded, totals.snatches), (150 * MB, 1));
    let row = torrent(storage, 1).await;
    assert_eq!((row.uploaded, row.torrent.snatches), (100 * MB, 1));
    let history = history(storage).await;
    assert_eq!(history.uploaded, 100 * MB);
    assert_eq!(history.completed_at, Some(NOW + 10));
    let peers = storage.peers(0, None, 10).await.unwrap().rows;
    assert_eq!(peers[0].record.uploaded, 100 * MB);
    assert_eq!(peers[0].record.base_up, 100 * MB);
}

async fn totals_of_one_second_count_once(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    for node in [0, 1] {
        nodes.report(node, client.shows(true, &[(0, 0)])).await;
        nodes
            .report(node, client.shows(false, &[(0, 0), (0, 3)]))
            .await;
    }
    assert_eq!(history(storage).await.uploaded, 3);
    // One node knows their order: the client started over in the same second.
    nodes.report(0, client.shows(true, &[(0, 0)])).await;
    nodes
        .report(0, client.shows(false, &[(0, 0), (0, 2)]))
        .await;
    assert_eq!(history(storage).await.uploaded, 5);
}

async fn reports_count_once_in_any_order<F: Future<Output = Arc<dyn Storage>>>(
    open: &impl Fn() -> F,
) {
    for order in [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [1, 0, 3, 2],
        [2, 0, 3, 1],
        [3, 0, 2, 1],
    ] {
        let storage = migrated(open().await).await;
        let client = client(&*storage, 1).await;
        let mut nodes = Nodes::new(&*storage);
        let reports = [
            client.shows(true, &[(0, 0)]),
            client.shows(false, &[(0, 0), (10, 100)]),
            client.shows(false, &[(10, 100), (20, 250)]),
            client.shows(false, &[(20, 250), (30, 300)]),
        ];
        for place in order {
            nodes.report(place % 3, reports[place].clone()).await;
        }
        for place in order {
            nodes.report((place + 1) % 3, reports[place].clone()).await;
        }
        assert_eq!(history(&*storage).await.uploaded, 300, "{order:?}");
        let peers = storage.peers(0, None, 10).await.unwrap().rows;
        assert_eq!(peers[0].record.base_up, 300, "{order:?}");
    }
}

/// A node was killed with its batches in its spill file; its client went on at another one, which
/// did not know it.
async fn what_another_node_kept_counts_when_it_arrives(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    nodes
        .report(1, client.shows(false, &[(500, 500 * MB)]))
        .await;
    let later = client.shows(false, &[(500, 500 * MB), (600, 600 * MB)]);
    nodes.report(1, later).await;
    assert_eq!(history(storage).await.uploaded, 100 * MB, "rule A1");
    nodes.report(0, client.shows(true, &[(0, 0)])).await;
    let kept = client.shows(false, &[(0, 0), (300, 300 * MB)]);
    nodes.report(0, kept).await;
    assert_eq!(history(storage).await.uploaded, 600 * MB);
}

/// The nodes' bases are past what the database has.
async fn a_storage_that_lost_batches_gets_the_difference(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    let first = client.shows(true, &[(0, 0), (10, 100 * MB)]);
    nodes.report(0, first).await;
    // What was reported until 300 MB is lost.
    let next = client.shows(false, &[(300, 300 * MB), (400, 400 * MB)]);
    nodes.report(0, next).await;
    assert_eq!(history(storage).await.uploaded, 400 * MB);
}

async fn clients_of_a_user_seed_at_the_same_time_once(storage: &dyn Storage) {
    let mut client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    for peer in 1..=5 {
        client.peer = peer;
        let mut change = client.shows(false, &[(8, 0)]);
        report_of(&mut change).seeding_since = Some(NOW);
        nodes.report(usize::from(peer) % 3, change).await;
    }
    assert_eq!(history(storage).await.seed_time, 8);
    assert_eq!(user(storage, client.user).await.totals.seed_time, 8);
}

/// A client folder that was copied: both run under one peer id (rule A3).
async fn two_machines_gain_what_both_show(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    let first = client.shows(true, &[(0, 0), (900, 10 * MB)]);
    nodes.report(0, first).await;
    let machine = |hash, change: PeerChange| {
        let mut change = change;
        report_of(&mut change).machine = Some(MachineId { is_v6: false, hash });
        change
    };
    let second = machine(2, client.shows(true, &[(905, 0)]));
    nodes.report(1, second.clone()).await;
    let grown = machine(2, client.shows(false, &[(1000, 3 * MB)]));
    nodes.report(1, grown.clone()).await;
    // Two nodes report it, one of them late.
    nodes.report(0, grown).await;
    nodes.report(0, second).await;
    let same = machine(1, client.shows(false, &[(1800, 10 * MB)]));
    nodes.report(0, same).await;
    assert_eq!(history(storage).await.uploaded, 13 * MB);
    let record = &storage.peers(0, None, 10).await.unwrap().rows[0].record;
    assert_eq!(
        (record.dip_up, record.dip_down),
        (Some(0), Some(0)),
        "nodes learn that several machines share the id"
    );
}

/// A journal of a version that let nodes decide, and the first report after it.
async fn what_older_nodes_decided_counts(storage: &dyn Storage) {
    let mut client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    let mut decided = change(client.user, client.torrent, 1, 1000);
    decided.record.dip_up = None;
    nodes.report(0, decided).await;
    assert_eq!(history(storage).await.uploaded, 1000);
    client.peer = 1;
    let next = client.shows(false, &[(0, 1000), (10, 1500)]);
    nodes.report(0, next).await;
    assert_eq!(history(storage).await.uploaded, 1500);
    // One that was reporting less for a minute has begun again (rule A3).
    let mut dipped = change(client.user, client.torrent, 2, 1000);
    dipped.record.dip_up = Some(NOW - 60);
    nodes.report(0, dipped).await;
    client.peer = 2;
    for (from, to) in [((10, 10), (10, 10)), ((10, 10), (20, 30))] {
        nodes.report(0, client.shows(false, &[from, to])).await;
    }
    assert_eq!(history(storage).await.uploaded, 2520);
}

async fn hit_and_run_follows_what_is_stored(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    let rules = CreditRules::default();
    let bytes = rules.hnr_min_bytes + 1;
    let mut leaves = client.shows(true, &[(0, 0), (10, bytes)]);
    let report = report_of(&mut leaves);
    (report.down, report.left) = (report.up, true);
    nodes.report(0, leaves).await;
    assert!(history(storage).await.hnr);
    let peers = storage.peers(0, None, 10).await.unwrap();
    assert_eq!(peers.rows.len(), 1);
    let mut seeds = client.shows(false, &[(100, bytes)]);
    let report = report_of(&mut seeds);
    report.at = NOW + 100 + i64::from(rules.hnr_threshold);
    report.seeding_since = Some(NOW + 100);
    nodes.report(1, seeds).await;
    let history = history(storage).await;
    assert!(!history.hnr);
    assert_eq!(history.seed_time, u64::from(rules.hnr_threshold));
}

async fn no_line_is_that_fast(storage: &dyn Storage) {
    let client = client(storage, 1).await;
    let mut nodes = Nodes::new(storage);
    let most = CreditRules::default().max_rate * 10;
    let just = client.shows(true, &[(0, 0), (10, most)]);
    let credited = nodes.report(0, just).await;
    assert_eq!(credited.implausible, 0);
    assert_eq!(credited.users[&client.user].raw_up, most);
    assert_eq!(credited.torrents[&InfoHash([1; 20])].raw_up, most);
    let faster = client.shows(false, &[(10, most), (20, 2 * most + 1)]);
    let credited = nodes.report(0, faster).await;
    assert_eq!(credited.implausible, 1);
    assert_eq!(credited.users[&client.user].raw_up, 0);
    let next = client.shows(false, &[(20, 2 * most + 1), (30, 2 * most + 8)]);
    assert_eq!(nodes.report(1, next).await.users[&client.user].raw_up, 7);
}

async fn client(storage: &dyn Storage, peer: u8) -> Client {
    let (user, torrent) = add_pair(storage, 1).await;
    Client {
        user,
        torrent,
        peer,
    }
}

async fn history(storage: &dyn Storage) -> StoredHistory {
    let rows = storage.histories(None, 10).await.unwrap().rows;
    assert_eq!(rows.len(), 1);
    rows.into_iter().next().unwrap()
}

fn report_of(change: &mut PeerChange) -> &mut Report {
    change.report.as_mut().unwrap()
}

// === impl Client ===

impl Client {
    /// What a node passes on of uploads: a report at a time, or several in a row, as seconds after
    /// the beginning and bytes.
    fn shows(&self, started: bool, reports: &[(i64, u64)]) -> PeerChange {
        let point = |&(seconds, total): &(i64, u64)| Point {
            total,
            at: NOW + seconds,
        };
        let (from, to) = (point(&reports[0]), point(reports.last().unwrap()));
        let mut change = change(self.user, self.torrent, self.peer, to.total);
        change.record.dip_up = None;
        change.record.last_announce = to.at;
        change.report = Some(Report {
            up: Some(Stretch { from, to, started }),
            down: None,
            machine: None,
            at: to.at,
            seeding_since: None,
            announces: 1,
            completed: false,
            left: false,
            multi_up: 1500,
            multi_down: 1000,
        });
        change
    }
}

// === impl Nodes ===

impl<'a> Nodes<'a> {
    fn new(storage: &'a dyn Storage) -> Self {
        Self {
            storage,
            numbers: [0; 3],
        }
    }

    /// The next batch of that node.
    async fn report(&mut self, node: usize, change: PeerChange) -> Credited {
        self.numbers[node] += 1;
        let batch = Arc::new(Batch::new(
            format!("node-{node}"),
            self.numbers[node],
            vec![Change::from(change)],
        ));
        let rules = CreditRules::default();
        self.storage.apply(&[batch], &rules).await.unwrap()
    }
}
