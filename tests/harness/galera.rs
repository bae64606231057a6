//! A Galera cluster of three MariaDB nodes of a test's own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::chown;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::mariadb::MariaDb;
use super::{account, free_port, poll};

pub const NODES: usize = 3;

/// Where Debian has the library.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";
/// The account that Debian's package makes: rsync serves no files as root.
const ACCOUNT: &str = "mysql";

/// How long a node may take until it has all that the others have.
const SYNCED: Duration = Duration::from_secs(60);

/// The others notice within some seconds that a node is gone. On a machine that is busy with other tests, a node that runs
/// may be silent for more than a second: if two take each other for dead, no node takes writes any more.
const TIMEOUTS: &str = "evs.keepalive_period=PT0.5S;evs.inactive_check_period=PT0.5S;\
    evs.suspect_timeout=PT4S;evs.inactive_timeout=PT12S;evs.install_timeout=PT7.5S";

/// A running cluster, one node of which may be away. It stands for the first node that is there.
pub struct Galera {
    nodes: Vec<MariaDb>,
    away: Option<usize>,
    /// Held until the nodes are gone, so it is the last field.
    _alone: MutexGuard<'static, ()>,
}

/// One cluster at a time: nodes that get too little time take each other for dead.
static ALONE: Mutex<()> = Mutex::new(());

/// A node that does not run yet. `group` is the address at which the others reach it, `all` has those of all.
fn prepare(group: SocketAddr, all: &str, more: &[&str]) -> MariaDb {
    let options = [
        "--binlog-format=ROW".into(),
        "--innodb-autoinc-lock-mode=2".into(),
        "--log-bin-trust-function-creators=1".into(),
        "--wsrep-on=ON".into(),
        format!("--wsrep-provider={PROVIDER}"),
        format!("--wsrep-cluster-address=gcomm://{all}"),
        format!("--wsrep-node-address={group}"),
        "--wsrep-sst-method=rsync".into(),
        format!("--wsrep-sst-receive-address={}", free_port()),
        format!(
            "--wsrep-provider-options=base_port={};gmcast.listen_addr=tcp://{group};ist.recv_addr={};\
             gcache.size=32M;{TIMEOUTS}",
            group.port(),
            free_port()
        ),
    ];
    let more = more.iter().map(OsString::from);
    let options = options.into_iter().map(OsString::from).chain(more);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = MariaDb::prepare(options.collect(), ACCOUNT, folder);
    if let Some((user, group)) = account(ACCOUNT) {
        chown(node.folder(), Some(user), Some(group)).expect("root gives folders away");
        let given = Command::new("chown")
            .args(["--recursive", &format!("{user}:{group}")])
            .arg(node.folder().join("data"))
            .status();
        assert!(given.expect("chown starts").success());
    }
    node
}

/// The last transaction that a node has which was killed.
fn position(node: &MariaDb) -> String {
    let output = node.program().arg("--wsrep-recover").output();
    let log = output.expect("mariadbd starts").stderr;
    let log = String::from_utf8_lossy(&log);
    let position = log
        .lines()
        .find_map(|line| line.split("Recovered position: ").nth(1));
    position
        .unwrap_or_else(|| panic!("no position:\n{log}"))
        .trim()
        .to_owned()
}

fn is_synced(node: &MariaDb) -> bool {
    let state = node.try_sql("SHOW STATUS LIKE 'wsrep_local_state_comment'");
    state.is_ok_and(|state| state.ends_with("Synced"))
}

// === impl Galera ===

impl Galera {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A cluster whose nodes have more options.
    pub fn start_with(options: &[&str]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let groups: Vec<SocketAddr> = (0..NODES).map(|_| free_port()).collect();
        let all: Vec<String> = groups.iter().map(ToString::to_string).collect();
        let all = all.join(",");
        let nodes = groups
            .into_iter()
            .map(|group| prepare(group, &all, options));
        let mut cluster = Self {
            nodes: nodes.collect(),
            away: None,
            _alone: alone,
        };
        for (place, node) in cluster.nodes.iter_mut().enumerate() {
            let first = (place == 0).then(|| "--wsrep-new-cluster".to_owned());
            node.run_with(first.as_slice());
            poll(SYNCED, "the node is in the cluster", || is_synced(node));
        }
        cluster
    }

    /// The addresses that the nodes serve on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(MariaDb::address).collect()
    }

    /// Ends a node as a crash would; the others stay.
    pub fn kill(&mut self, place: usize) {
        assert_eq!(self.away.replace(place), None, "two would be no majority");
        self.nodes[place].kill9();
    }

    /// Starts the node again that was killed, and waits until it has all that the others have.
    pub fn rejoin(&mut self) {
        let place = self.away.expect("a node is away");
        let node = &mut self.nodes[place];
        let from = format!("--wsrep-start-position={}", position(node));
        node.run_with(&[from]);
        poll(SYNCED, "the node is in the cluster again", || {
            is_synced(node)
        });
        self.away = None;
    }

    /// Runs SQL in a database, after all that was committed on other nodes.
    pub fn try_sql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        let sql = format!("SET SESSION wsrep_sync_wait = 7; {sql}");
        self.deref().try_sql_in(database, &sql)
    }
}

impl Deref for Galera {
    type Target = MariaDb;

    fn deref(&self) -> &MariaDb {
        &self.nodes[usize::from(self.away == Some(0))]
    }
}

impl DerefMut for Galera {
    fn deref_mut(&mut self) -> &mut MariaDb {
        &mut self.nodes[usize::from(self.away == Some(0))]
    }
}
