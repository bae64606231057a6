//! Real clients, each on a host of its own, find each other through the tracker alone; what
//! they exchange arrives whole, and their users are credited with what they report.
//!
//! DHT, local discovery and peer exchange are off in all of them. The drivers of the clients
//! are in this folder.

mod servers;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::harness::net::{self, Family, Host, Network};
use crate::harness::{Mika, poll};
use mika::wire::bencode::{self, Node};
use serde_json::{Value, json};
use servers::Site;
use tempfile::TempDir;

const PAYLOAD_LEN: usize = 8 << 20;
const PAYLOAD: &str = "payload.bin";

/// The port of the README's example.
const TRACKER_PORT: u16 = 34000;

/// How long one step of a client may take. Transmission looks for peers to request pieces from every 10 s.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// When a driver gives up by itself.
const DRIVER_DEADLINE: Duration = Duration::from_secs(150);

/// Debian's Python, which has Debian's libtorrent, whatever else is in the PATH.
const PYTHON: &str = "/usr/bin/python3";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Libtorrent,
    Aria2,
    Transmission,
}

/// A seeder first, then leechers.
const ALL_KINDS: [Kind; 4] = [
    Kind::Libtorrent,
    Kind::Libtorrent,
    Kind::Aria2,
    Kind::Transmission,
];

/// Clients that announce over UDP: aria2 only with DHT on.
const UDP_KINDS: [Kind; 3] = [Kind::Libtorrent, Kind::Libtorrent, Kind::Transmission];

/// What announces go by. The tracker serves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Http,
    Udp,
}

/// A tracker on a network, a payload, and a .torrent file of it for each user.
struct Stage {
    // Fields go in this order: the network last, when it is empty.
    tracker: Mika,
    folder: TempDir,
    hashes: Value,
    network: Network,
}

/// What a stage is set up for.
struct Setting<'a> {
    private: bool,
    hybrid: bool,
    /// The families by which clients reach the tracker and each other.
    families: &'a [Family],
    transport: Transport,
    users: usize,
    /// Where users and torrents are kept, if not in SQLite.
    site: Option<&'a Site>,
}

/// A running client.
struct Client {
    name: String,
    folder: PathBuf,
    driver: Child,
    states: Receiver<Value>,
}

/// A client's own count of the bytes that it exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Totals {
    uploaded: i64,
    downloaded: i64,
}

#[test]
fn public_swarm_over_ipv4() {
    exchange_in_public(&ALL_KINDS, Family::V4, Transport::Http);
}

#[test]
fn public_swarm_over_ipv6() {
    exchange_in_public(&ALL_KINDS, Family::V6, Transport::Http);
}

#[test]
fn public_swarm_by_udp_over_ipv4() {
    exchange_in_public(&UDP_KINDS, Family::V4, Transport::Udp);
}

/// Transmission 3.00 has no UDP trackers over IPv6.
#[test]
fn public_swarm_by_udp_over_ipv6() {
    exchange_in_public(&UDP_KINDS[..2], Family::V6, Transport::Udp);
}

#[test]
fn private_swarm_over_ipv4_credits_what_the_clients_report() {
    exchange_in_private(&ALL_KINDS, false, &[Family::V4], Transport::Http);
}

#[test]
fn private_swarm_over_ipv6_credits_what_the_clients_report() {
    exchange_in_private(&ALL_KINDS, false, &[Family::V6], Transport::Http);
}

/// The passkey goes with each announce as URL data (BEP 41), which libtorrent sends.
#[test]
fn private_swarm_by_udp_credits_what_the_clients_report() {
    exchange_in_private(&UDP_KINDS[..2], false, &[Family::V4], Transport::Udp);
}

/// libtorrent announces a hybrid torrent under both its hashes, with the same totals each time.
#[test]
fn a_hybrid_torrent_is_credited_once() {
    exchange_in_private(&ALL_KINDS[..2], true, &[Family::V4], Transport::Http);
}

/// Both clients announce over IPv4 and over IPv6, with the same totals each time.
#[test]
fn a_client_of_two_families_is_credited_once() {
    let families = [Family::V4, Family::V6];
    exchange_in_private(&ALL_KINDS[..2], false, &families, Transport::Http);
}

#[test]
fn a_client_of_two_families_is_credited_once_by_udp() {
    let families = [Family::V4, Family::V6];
    exchange_in_private(&UDP_KINDS[..2], false, &families, Transport::Udp);
}

fn exchange_in_public(kinds: &[Kind], family: Family, transport: Transport) {
    let mut stage = Stage::new(&Setting {
        private: false,
        hybrid: false,
        families: &[family],
        transport,
        users: kinds.len(),
        site: None,
    });
    let clients = stage.exchange(kinds, &[family]);
    let leechers = kinds.len() as i64 - 1;
    // A client that has the payload announces so a moment later.
    poll(STEP_DEADLINE, "all have reported that they have it", || {
        stage.scrape() == [leechers + 1, leechers, 0]
    });
    for client in clients {
        client.stop();
    }
    assert_eq!(stage.scrape(), [0, leechers, 0]);
    assert_eq!(stage.tracker.stop(), 0);
}

fn exchange_in_private(kinds: &[Kind], hybrid: bool, families: &[Family], transport: Transport) {
    let mut stage = Stage::new(&Setting {
        private: true,
        hybrid,
        families,
        transport,
        users: kinds.len(),
        site: None,
    });
    let mut clients = stage.exchange(kinds, families);
    let leechers = kinds.len() as i64 - 1;
    // Leechers first, so that the seeder's last announce reports all that it gave.
    clients.rotate_left(1);
    let mut totals: Vec<Totals> = clients.into_iter().map(Client::stop).collect();
    totals.rotate_right(1);
    let credited: Vec<Totals> = (0..kinds.len()).map(|user| stage.credit(user)).collect();
    assert_eq!(
        credited, totals,
        "credit (left) of {kinds:?} and what they report"
    );
    // What one gave another got, and each has the whole.
    let uploaded: i64 = totals.iter().map(|totals| totals.uploaded).sum();
    let downloaded: i64 = totals.iter().map(|totals| totals.downloaded).sum();
    assert!(downloaded >= leechers * PAYLOAD_LEN as i64);
    assert!(uploaded >= downloaded, "{uploaded} {downloaded}");
    let [torrents, snatches] = stage
        .tracker
        .row("SELECT count(*), sum(snatches) FROM torrents");
    assert_eq!((torrents, snatches), (1, leechers));
    // A client may exit before it has the answer to its last announce.
    poll(STEP_DEADLINE, "all have stopped", || {
        let peers = stage.tracker.row("SELECT count(*), sum(active) FROM peers");
        peers == [leechers + 1, 0]
    });
    assert_eq!(stage.tracker.stop(), 0);
    let after: Vec<Totals> = (0..kinds.len()).map(|user| stage.credit(user)).collect();
    assert_eq!(after, totals, "after the tracker's stop");
}

// === impl Stage ===

impl Stage {
    fn new(setting: &Setting) -> Self {
        let mut network = Network::new();
        let host = network.host();
        let addresses = [Family::V4, Family::V6]
            .map(|family| SocketAddr::new(host.address(family), TRACKER_PORT));
        let mut config = json!({
            "mode": if setting.private { "private" } else { "public" },
            "http": { "listen": addresses },
            "udp": { "listen": addresses },
            // Every acknowledged stop is in the database, however slow the machine is.
            "journal": { "ack_timeout": "20s" },
            "log": { "level": "debug" },
        });
        if let Some(site) = setting.site {
            (config["cache"], config["storage"]) = (site.cache(), site.storage());
        }
        let tracker = Mika::prepare_in(&host, addresses[0], &config);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scheme = match setting.transport {
            Transport::Http => "http",
            Transport::Udp => "udp",
        };
        let urls = |user: usize| -> Vec<String> {
            let families = setting.families.iter();
            families
                .map(|&family| {
                    let address = SocketAddr::new(host.address(family), TRACKER_PORT);
                    if setting.private {
                        format!("{scheme}://{address}/{}/announce", passkey(user))
                    } else {
                        format!("{scheme}://{address}/announce")
                    }
                })
                .collect()
        };
        let users: Vec<_> = (0..setting.users).map(urls).collect();
        let hashes = make_torrents(folder.path(), &users, setting);
        let mut stage = Self {
            tracker,
            folder,
            hashes,
            network,
        };
        match setting.site {
            Some(site) => site.register(&stage, setting.users),
            None if setting.private => stage.register(setting.users),
            None => {}
        }
        stage.tracker.run();
        stage
    }

    /// Users, the torrent and the clients, as the owner of a private tracker registers them.
    fn register(&self, users: usize) {
        self.tracker.managed(&["migrate"]);
        for user in 0..users {
            let name = format!("user-{user}");
            self.tracker
                .managed(&["users", "add", &name, "--passkey", &passkey(user)]);
        }
        let torrent = self.torrent(0);
        let torrent = torrent.to_str().expect("temporary folders are UTF-8");
        self.tracker.managed(&["torrents", "import", torrent]);
        for (prefix, client) in [
            ("-LT20", "libtorrent"),
            ("A2-", "aria2"),
            ("-TR", "Transmission"),
        ] {
            self.tracker.managed(&["whitelist", "add", prefix, client]);
        }
    }

    /// Starts the clients, the first one with the payload, and waits until all others have it too.
    fn exchange(&mut self, kinds: &[Kind], families: &[Family]) -> Vec<Client> {
        let mut clients = Vec::new();
        for (user, &kind) in kinds.iter().enumerate() {
            let host = self.network.host();
            let folder = self.folder.path().join(user.to_string());
            let client = Client::start(kind, &host, families, &self.torrent(user), folder);
            if user == 0 {
                client.reaches("complete");
            }
            clients.push(client);
        }
        let payload = fs::read(clients[0].folder.join(PAYLOAD)).expect("the payload");
        for client in &clients[1..] {
            client.reaches("complete");
            let copy = fs::read(client.folder.join(PAYLOAD)).expect("the copy");
            assert!(copy == payload, "{} has other bytes", client.name);
        }
        clients
    }

    fn torrent(&self, user: usize) -> PathBuf {
        self.folder.path().join(format!("{user}.torrent"))
    }

    /// What the database holds for the user.
    fn credit(&self, user: usize) -> Totals {
        let [uploaded, downloaded] = self.tracker.row(&format!(
            "SELECT uploaded, downloaded FROM users WHERE username = 'user-{user}'"
        ));
        Totals {
            uploaded,
            downloaded,
        }
    }

    /// The tracker's seeders, snatches and leechers of the torrent.
    fn scrape(&self) -> [i64; 3] {
        let hash = self.hashes["v1"].as_str().expect("a v1 hash");
        let hash: mika::base::ids::InfoHash = hash.parse().expect("an info hash");
        let target = format!(
            "/scrape?info_hash={}",
            crate::harness::http::escape(&hash.0)
        );
        let body = self.tracker.fetch(&target);
        let reply = bencode::parse(&body).expect("bencode");
        let files = reply.get(b"files").expect("files");
        let file = files.get(&hash.0).expect("the torrent");
        let count = |key: &str| file.get(key.as_bytes()).and_then(Node::as_int);
        ["complete", "downloaded", "incomplete"].map(|key| count(key).expect(key))
    }
}

fn passkey(user: usize) -> String {
    format!("passkey-of-user-{user}")
}

/// Puts a new payload into the first user's folder; returns the info hashes of its torrent.
fn make_torrents(folder: &Path, users: &[Vec<String>], setting: &Setting) -> Value {
    let seeder = folder.join("0");
    fs::create_dir(&seeder).expect("a folder for the seeder");
    let payload = seeder.join(PAYLOAD);
    let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(PAYLOAD_LEN)
        .collect();
    fs::write(&payload, bytes).expect("a payload");
    let arguments = json!({
        "payload": payload,
        "folder": folder,
        "users": users,
        "private": setting.private,
        "hybrid": setting.hybrid,
    });
    let output = std::process::Command::new(PYTHON)
        .arg(script("make_torrents.py"))
        .arg(arguments.to_string())
        .output()
        .unwrap_or_else(|error| panic!("{PYTHON}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("make_torrents.py (scripts/test installs what it needs): {stderr}")
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/clients")
        .join(name)
}

// === impl Client ===

impl Client {
    fn start(
        kind: Kind,
        host: &Host,
        families: &[Family],
        torrent: &Path,
        folder: PathBuf,
    ) -> Self {
        fs::create_dir_all(&folder).expect("a folder for the client");
        let addresses: Vec<_> = families
            .iter()
            .map(|&family| host.address(family))
            .collect();
        let arguments = json!({
            "torrent": torrent,
            "folder": folder,
            "addresses": addresses,
            "deadline": DRIVER_DEADLINE.as_secs(),
        });
        let stderr = File::create(folder.join("driver.log")).expect("a log file");
        let mut driver = net::command_in(&host.namespace, PYTHON)
            .arg(script(kind.script()))
            .arg(arguments.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("ip starts the driver");
        let states = states_of(driver.stdout.take().expect("a pipe"));
        Self {
            name: format!("{kind:?} at {}", addresses[0]),
            folder,
            driver,
            states,
        }
    }

    /// Waits until the client says that it has reached `state`; what it says with it.
    fn reaches(&self, state: &str) -> Value {
        loop {
            match self.states.recv_timeout(STEP_DEADLINE) {
                Ok(said) if said["state"] == state => return said,
                Ok(_) => {}
                Err(error) => panic!(
                    "{} does not get to {state} ({error}): {}",
                    self.name,
                    self.log()
                ),
            }
        }
    }

    /// Has the client announce its stop; its totals after the tracker's answer.
    fn stop(mut self) -> Totals {
        drop(self.driver.stdin.take());
        let said = self.reaches("stopped");
        let number = |key: &str| said[key].as_i64().expect("a number");
        let totals = Totals {
            uploaded: number("uploaded"),
            downloaded: number("downloaded"),
        };
        let status = self.driver.wait().expect("a child can be waited for");
        assert!(status.success(), "{} {status}: {}", self.name, self.log());
        totals
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("driver.log")).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Has no effect on one that has ended. The client itself ends with its network.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The JSON objects that a driver writes, one a line.
fn states_of(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let state = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if sender.send(state).is_err() {
                return;
            }
        }
    });
    receiver
}

// === impl Kind ===

impl Kind {
    fn script(self) -> &'static str {
        match self {
            Self::Libtorrent => "libtorrent_client.py",
            Self::Aria2 => "aria2_client.py",
            Self::Transmission => "transmission_client.py",
        }
    }
}
