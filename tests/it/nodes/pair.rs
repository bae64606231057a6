//! Two nodes, and requests to them.

use std::net::SocketAddr;
use std::time::Duration;

use mika::base::ids::InfoHash;
use serde_json::{Value, json};

use crate::harness::database::Database;
use crate::harness::http::{Reply, escape, get};
use crate::harness::load::{info_hash, passkey};
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, merge, now, poll};

/// How long both may take to follow an edit. They take some hundred milliseconds.
const FOLLOWS: Duration = Duration::from_secs(2);

/// The nodes `a`, which is the site's, and `b`.
pub struct Pair {
    pub site: Site,
    pub b: Mika,
}

/// A client at work, whose user and torrent are [`Site`]'s.
pub struct Client {
    pub passkey: String,
    pub info_hash: [u8; 20],
    pub peer_id: [u8; 20],
    pub port: u16,
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
}

// === impl Pair ===

impl Pair {
    pub fn start(users: usize) -> Self {
        Self::start_on(Database::MariaDb, users)
    }

    /// The same with that database.
    pub fn start_on(database: Database, users: usize) -> Self {
        Self::start_with(database, users, &json!({}))
    }

    /// The same with that in the config of both.
    pub fn start_with(database: Database, users: usize, config: &Value) -> Self {
        Self::start_changed(database, users, config, |_| ())
    }

    /// The same with what `change` changes of both before they run.
    pub fn start_changed(
        database: Database,
        users: usize,
        config: &Value,
        change: impl Fn(&mut Mika),
    ) -> Self {
        let named = |name| {
            let mut config = config.clone();
            merge(&mut config, &json!({ "node": name }));
            config
        };
        let mut site = Site::prepare_with(database, users, &AOF, &named("a"), &change);
        let mut b = site.another(&named("b"));
        change(&mut b);
        site.mika.run();
        b.run();
        Self { site, b }
    }

    pub fn nodes(&self) -> [SocketAddr; 2] {
        [self.site.mika.http(), self.b.http()]
    }

    /// Waits until both nodes fulfil `condition`; how long that took.
    pub fn follow(&self, what: &str, condition: impl Fn(SocketAddr) -> bool) -> Duration {
        let start = now();
        poll(FOLLOWS, what, || self.nodes().into_iter().all(&condition));
        start.elapsed()
    }

    /// An info hash as SQL.
    pub fn bytes(&self, hash: InfoHash) -> String {
        self.site.database.bytes(&hash.to_string())
    }

    /// Site's own statements.
    pub fn sql(&self, statements: &str) -> String {
        self.site.database.sql(statements)
    }
}

// === impl Client ===

impl Client {
    pub fn new(user: usize, torrent: usize) -> Self {
        let mut peer_id = *b"-MK0001-............";
        fastrand::fill(&mut peer_id[8..]);
        Self {
            passkey: passkey(user),
            info_hash: info_hash(torrent),
            peer_id,
            port: fastrand::u16(1024..),
            uploaded: 0,
            downloaded: 0,
            left: 0,
        }
    }

    pub fn announce(&self, node: SocketAddr, event: &str) -> Reply {
        get(node, &self.target(event))
    }

    /// What it asks for to announce.
    pub fn target(&self, event: &str) -> String {
        format!(
            "/{}/announce?info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact=1&numwant=50&event={event}",
            self.passkey,
            escape(&self.info_hash),
            escape(&self.peer_id),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
        )
    }

    /// The same in the list form, which has peer ids.
    pub fn listed(&self, node: SocketAddr) -> Reply {
        self.accepted(node, "&compact=0")
    }

    /// The same, which must be accepted.
    pub fn accepted(&self, node: SocketAddr, event: &str) -> Reply {
        let reply = self.announce(node, event);
        assert_eq!(reply.failure(), None);
        reply
    }

    /// Whether the reply hands out this client.
    pub fn is_in(&self, reply: &Reply) -> bool {
        let peers = reply.bytes("peers").unwrap_or_default();
        let own = [&[127, 0, 0, 1][..], &self.port.to_be_bytes()].concat();
        peers.chunks(6).any(|peer| peer == own)
    }
}

/// Whether a node lets that passkey scrape.
pub fn knows_user(node: SocketAddr, passkey: &str) -> bool {
    let target = format!("/{passkey}/scrape?info_hash={}", escape(&info_hash(0)));
    get(node, &target).failure().is_none()
}

/// Whether a node has that torrent.
pub fn knows_torrent(node: SocketAddr, hash: InfoHash) -> bool {
    let target = format!("/{}/scrape?info_hash={}", passkey(0), escape(&hash.0));
    let reply = get(node, &target);
    assert_eq!(reply.failure(), None, "{target}");
    let files = reply.bencode();
    files
        .get(b"files")
        .is_some_and(|it| it.get(&hash.0).is_some())
}
