//! Two nodes on a Redis Cluster, or on a Redis that sentinels watch: a master is lost together with its last writes.

use std::time::Duration;

use serde_json::json;

use super::pair::{Client, Pair};
use crate::harness::certificate::{Certificate, ROOTS};
use crate::harness::cluster::Cluster;
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::poll;
use crate::harness::redis::{AOF, Redis};
use crate::harness::sentinel::Watched;
use crate::harness::site::has_no_difference;

const MB: u64 = 1_000_000;

/// How long a peer may take to the other node.
const SEEN: Duration = Duration::from_secs(5);

/// How long until nodes have found the new master, and written again what it lacks.
const RESTORED: Duration = Duration::from_secs(30);

/// How long until another node takes a dead one's rest: 15 seconds without a sign, and a look every five.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// The servers of a cache, each with its data on disk.
enum Servers {
    Cluster(Cluster),
    Watched(Watched),
}

// === impl Servers ===

impl Servers {
    fn cluster(arguments: &[&str]) -> Self {
        Self::Cluster(Cluster::start_with(&[&AOF, arguments].concat()))
    }

    fn watched(arguments: &[&str]) -> Self {
        Self::Watched(Watched::start(&[&AOF, arguments].concat()))
    }

    fn url(&self) -> String {
        match self {
            Self::Cluster(cluster) => cluster.url(),
            Self::Watched(watched) => watched.url(),
        }
    }

    /// The server that has a key.
    fn master_of(&self, key: &str) -> usize {
        match self {
            Self::Cluster(cluster) => cluster.master_of(key),
            Self::Watched(watched) => {
                let is_master = |server: &Redis| server.is_master();
                let place = watched.servers.iter().position(is_master);
                place.expect("a master")
            }
        }
    }

    /// What `redis-cli` prints for a command, from the server that has its key.
    fn cli(&self, key: &str, command: &[&str]) -> String {
        let master = self.master_of(key);
        match self {
            Self::Cluster(cluster) => cluster.servers[master].cli(command),
            Self::Watched(watched) => watched.servers[master].cli(command),
        }
    }

    /// The one journal of node `a`.
    fn journal(&self) -> String {
        let pattern = "t:journal:a#*";
        let mut journals = match self {
            Self::Cluster(cluster) => cluster.keys(pattern),
            Self::Watched(_) => {
                let keys = self.cli(pattern, &["KEYS", pattern]);
                keys.lines().map(Into::into).collect()
            }
        };
        assert_eq!(journals.len(), 1, "{journals:?}");
        journals.remove(0)
    }

    /// Cuts a master off from its replica: what is written from now on is lost with it.
    fn cut_replica(&self, master: usize) {
        match self {
            Self::Cluster(cluster) => cluster.cut_replica(master),
            Self::Watched(watched) => watched.cut_replica(master),
        }
    }

    /// Kills a master, whose replica takes over.
    fn fail_over(&mut self, master: usize) {
        match self {
            Self::Cluster(cluster) => cluster.fail_over(master),
            Self::Watched(watched) => watched.fail_over(master),
        };
    }
}

/// Waits until node `b` hands out a client of node `a`.
fn hands_out(pair: &Pair, seeder: &Client, limit: Duration) {
    let leecher = Client {
        left: 1,
        ..Client::new(0, 1)
    };
    let [_, b] = pair.nodes();
    poll(limit, "the other node hands it out", || {
        seeder.is_in(&leecher.accepted(b, ""))
    });
}

#[test]
fn what_a_replica_in_a_cluster_lacks_is_written_again() {
    writes_again(Servers::cluster(&[]));
}

#[test]
fn what_a_replica_that_sentinels_promote_lacks_is_written_again() {
    writes_again(Servers::watched(&[]));
}

fn writes_again(mut servers: Servers) {
    let config = json!({ "cache": { "url": servers.url() } });
    let mut pair = Pair::start_with(Database::MariaDb, 3, &config);
    let [a, _] = pair.nodes();
    let first = Client::new(1, 1);
    first.accepted(a, "started");
    hands_out(&pair, &first, SEEN);
    let mut client = Client::new(2, 1);
    client.accepted(a, "started");
    poll(RESTORED, "storage has all of it", || {
        pair.site
            .database
            .row::<1>("SELECT COUNT(*) FROM peers WHERE left_bytes = 0")
            == [2]
    });

    let journal = servers.journal();
    let last = |servers: &Servers| {
        let entry = servers.cli(&journal, &["XREVRANGE", &journal, "+", "-", "COUNT", "1"]);
        entry.lines().next().unwrap_or_default().to_owned()
    };
    let master = servers.master_of(&journal);
    servers.cut_replica(master);
    // From here on, the journal is all there is of it outside the node.
    pair.site.database.pause();
    let before = last(&servers);
    client.uploaded = 600 * MB;
    client.accepted(a, "completed");
    poll(SEEN, "the master has the batch", || {
        last(&servers) != before
    });
    let kept = last(&servers);

    servers.fail_over(master);
    poll(RESTORED, "the batch is written again", || {
        last(&servers) == kept
    });
    let late = Client::new(1, 1);
    late.accepted(a, "started");
    hands_out(&pair, &late, RESTORED);

    pair.site.mika.kill9();
    pair.site.database.resume();
    let sql = format!(
        "SELECT uploaded FROM users WHERE passkey = '{}'",
        passkey(2)
    );
    poll(
        TAKEN_OVER,
        "the other node has it credited from the cache",
        || pair.site.database.row(&sql) == [(600 * MB).cast_signed()],
    );
    poll(RESTORED, "the cache has all rows", || {
        servers.cli("t:registry", &["HEXISTS", "t:registry", "position"]) == "1"
            && has_no_difference(&pair.b.managed(&["warmup", "--dry-run"]))
    });
    assert_eq!(pair.b.stop(), 0);
}

#[test]
fn nodes_share_a_cluster_over_tls() {
    let certificate = Certificate::make();
    let servers = Servers::cluster(&certificate.of_redis());
    shares_over_tls(servers, &certificate, "rediss+cluster://");
}

#[test]
fn nodes_share_what_sentinels_watch_over_tls() {
    let certificate = Certificate::make();
    let servers = Servers::watched(&certificate.of_redis());
    shares_over_tls(servers, &certificate, "rediss+sentinel://");
}

/// Nodes find each other's peers before and after a failover; without trust in the certificate, nothing is reached.
fn shares_over_tls(mut servers: Servers, certificate: &Certificate, scheme: &str) {
    let url = servers.url();
    assert!(url.starts_with(scheme), "{url}");
    let config = json!({ "cache": { "url": url } });
    let mut pair = Pair::start_changed(Database::MariaDb, 2, &config, |mika| {
        mika.set_variable(ROOTS, certificate.path());
    });
    let [a, _] = pair.nodes();
    let first = Client::new(1, 1);
    first.accepted(a, "started");
    hands_out(&pair, &first, SEEN);

    let stranger = pair.site.another(&config);
    let check = stranger.manage(&["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    let problem = text.lines().find(|line| line.starts_with("problem  cache"));
    assert!(
        problem.is_some_and(|line| line.contains("certificate")),
        "{text}"
    );

    servers.fail_over(servers.master_of(&servers.journal()));
    let second = Client::new(1, 1);
    second.accepted(a, "started");
    hands_out(&pair, &second, RESTORED);
    assert_eq!(pair.b.stop(), 0);
    assert_eq!(pair.site.mika.stop(), 0);
}
