//! The daemon besides announces: admission, edits and reloads applied while it
//! runs, HTTPS, and a clean stop.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::harness::http::{Reply, escape, get, try_get};
use crate::harness::{Mika, poll};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long the daemon may take to follow an edit.
const FOLLOWS: Duration = Duration::from_secs(2);

const HASH: &str = "6161616161616161616161616161616161616161";
const OTHER_HASH: &str = "6262626262626262626262626262626262626262";

const PASSKEY: &str = "Passkey-of-the-first-user";

/// What a client announces.
struct Announce<'a> {
    passkey: &'a str,
    info_hash: &'a [u8; 20],
    peer_id: &'a str,
    rest: &'a str,
}

const GOOD: Announce<'static> = Announce {
    passkey: PASSKEY,
    info_hash: b"aaaaaaaaaaaaaaaaaaaa",
    peer_id: "-MK0001-abcdefghijkl",
    rest: "left=0",
};

/// A private tracker with a user, a torrent and an allowed client; not running yet.
fn private(config: &Value) -> Mika {
    let mika = Mika::prepare(config);
    mika.managed(&["users", "add", "first", "--passkey", PASSKEY]);
    mika.managed(&["whitelist", "add", "-MK", "Mika's tests"]);
    mika.managed(&["torrents", "add", HASH, "--name", "A torrent"]);
    mika
}

fn trace() -> Value {
    json!({ "mode": "private", "log": { "level": "trace" } })
}

/// Calls `condition` until it holds, for as long as the daemon may take to follow an edit.
fn follows(what: &str, condition: impl FnMut() -> bool) {
    poll(FOLLOWS, what, condition);
}

/// The lines of the log at that level.
fn lines(mika: &Mika, level: &str) -> Vec<String> {
    let log = mika.log();
    let lines = log
        .lines()
        .filter(|line| line.contains(&format!(" {level} ")));
    lines.map(str::to_owned).collect()
}

// === impl Announce ===

impl Announce<'_> {
    fn target(&self) -> String {
        let Self {
            passkey,
            info_hash,
            peer_id,
            rest,
        } = self;
        let info_hash = escape(&info_hash[..]);
        format!(
            "/{passkey}/announce?info_hash={info_hash}&peer_id={peer_id}&port=6881&uploaded=0&downloaded=0&{rest}"
        )
    }

    fn send(&self, mika: &Mika) -> Reply {
        let reply = get(mika.http(), &self.target());
        assert_eq!(reply.status, 200);
        reply
    }

    /// Why it is refused; none if it is not.
    fn failure(&self, mika: &Mika) -> Option<String> {
        self.send(mika).failure()
    }
}

// === admission ===

/// Vector 37 and rules R6 and R8: each refusal has its words, changes nothing, and leaves no passkey in the log.
#[test]
#[allow(clippy::too_many_lines)] // a table
fn refusals_of_a_private_tracker() {
    let mut mika = private(&trace());
    let disabled = "Passkey-of-a-disabled-user";
    let leech = "Passkey-of-one-who-only-seeds";
    mika.managed(&["users", "add", "disabled", "--passkey", disabled]);
    mika.managed(&["users", "disable", "disabled"]);
    mika.managed(&["users", "add", "seeder", "--passkey", leech]);
    mika.storage()
        .execute(
            "UPDATE users SET can_leech = 0 WHERE username = 'seeder'",
            (),
        )
        .expect("an edit");
    mika.managed(&["torrents", "add", OTHER_HASH, "--name", "Another"]);
    mika.managed(&["torrents", "disable", OTHER_HASH, "a dupe of the first"]);
    mika.run();

    let unknown = Announce {
        passkey: "badpasskey0",
        ..GOOD
    }
    .send(&mika);
    let expected = "d14:failure reason15:invalid passkey8:intervali3600e12:min intervali3600ee";
    assert_eq!(unknown.body.escape_ascii().to_string(), expected);
    let none = get(mika.http(), "/announce?info_hash=x");
    assert_eq!(none.failure().as_deref(), Some("invalid passkey"));

    let table = [
        (
            Announce {
                passkey: "passkey-of-the-first-user",
                ..GOOD
            },
            Some("invalid passkey"),
        ),
        (
            Announce {
                passkey: disabled,
                ..GOOD
            },
            Some("account disabled"),
        ),
        (
            Announce {
                peer_id: "-XX0001-abcdefghijkl",
                ..GOOD
            },
            Some("client not allowed"),
        ),
        (
            Announce {
                info_hash: b"cccccccccccccccccccc",
                ..GOOD
            },
            Some("unregistered torrent"),
        ),
        (
            Announce {
                info_hash: b"bbbbbbbbbbbbbbbbbbbb",
                ..GOOD
            },
            Some("a dupe of the first"),
        ),
        (
            Announce {
                passkey: leech,
                rest: "left=1",
                ..GOOD
            },
            Some("download not allowed"),
        ),
        (
            Announce {
                passkey: leech,
                ..GOOD
            },
            None,
        ),
        (
            Announce {
                passkey: leech,
                rest: "left=1&event=stopped",
                ..GOOD
            },
            None,
        ),
        // The first error is reported first.
        (
            Announce {
                passkey: disabled,
                peer_id: "short",
                ..GOOD
            },
            Some("account disabled"),
        ),
        (
            Announce {
                peer_id: "short",
                info_hash: b"cccccccccccccccccccc",
                ..GOOD
            },
            Some("invalid peer_id"),
        ),
        (
            Announce {
                peer_id: "-XX0001-abcdefghijkl",
                info_hash: b"cccccccccccccccccccc",
                ..GOOD
            },
            Some("client not allowed"),
        ),
    ];
    for (announce, expected) in table {
        let reply = announce.send(&mika);
        assert_eq!(
            reply.failure().as_deref(),
            expected,
            "{}",
            announce.target()
        );
        let (interval, min) = (reply.int("interval"), reply.int("min interval"));
        assert!(min >= Some(1) && min <= interval, "{}", announce.target());
    }
    assert_eq!(mika.stop(), 0);
    assert_eq!(
        mika.row("SELECT count(*), count(DISTINCT torrent_id), sum(active) FROM peers"),
        [1, 1, 0]
    );
    let log = mika.log();
    for passkey in [
        PASSKEY,
        disabled,
        leech,
        "badpasskey0",
        "passkey-of-the-first-user",
    ] {
        assert!(
            !log.contains(passkey),
            "the log shows the passkey {passkey}"
        );
    }
}

/// Rule A6: only the newcomer is refused.
#[test]
fn the_clients_of_a_user_on_a_torrent_are_limited() {
    let mut mika = private(&json!({ "mode": "private", "tracker": { "max_peers_per_user": 2 } }));
    mika.run();
    let client = |number: u8, rest| {
        let rest = &format!("{rest}&port={}", 7000 + u16::from(number));
        let peer_id = format!("-MK0001-{number:012}");
        Announce {
            peer_id: &peer_id,
            rest,
            ..GOOD
        }
        .failure(&mika)
    };
    let too_many = Some("too many peers".to_owned());
    assert_eq!([client(1, "left=0"), client(2, "left=0")], [None, None]);
    assert_eq!(client(3, "left=0"), too_many);
    assert_eq!(client(3, "left=0&event=stopped"), None);
    assert_eq!(client(1, "left=0"), None);
    assert_eq!(client(2, "left=0&event=stopped"), None);
    assert_eq!(client(3, "left=0"), None);
}

// === edits and reloads ===

#[test]
fn edits_take_effect_while_it_runs() {
    let mut mika = private(&trace());
    mika.run();
    assert_eq!(GOOD.failure(&mika), None);
    let sql = |sql: &str| mika.storage().execute_batch(sql).expect("an edit");

    let second = Announce {
        passkey: "Passkey-of-the-second-user",
        peer_id: "-MK0001-second-user-",
        ..GOOD
    };
    sql("INSERT INTO users (passkey, username) VALUES ('Passkey-of-the-second-user', 'second')");
    follows("a user added by the web application", || {
        second.failure(&mika).is_none()
    });
    mika.managed(&["users", "disable", "second"]);
    follows("a user disabled", || {
        second.failure(&mika).as_deref() == Some("account disabled")
    });
    sql("UPDATE users SET enabled = 1, can_leech = 0 WHERE username = 'second'");
    follows("a user enabled", || second.failure(&mika).is_none());
    let leech = Announce {
        rest: "left=1",
        ..second
    };
    follows("a user who may not download", || {
        leech.failure(&mika).is_some()
    });

    let changed = mika.managed(&["users", "passkey", "second"]);
    let changed = Announce {
        passkey: changed.trim(),
        ..second
    };
    follows("a new passkey", || changed.failure(&mika).is_none());
    assert_eq!(second.failure(&mika).as_deref(), Some("invalid passkey"));
    sql("DELETE FROM users WHERE username = 'second'");
    follows("a user deleted", || {
        changed.failure(&mika).as_deref() == Some("invalid passkey")
    });

    let other = Announce {
        info_hash: b"bbbbbbbbbbbbbbbbbbbb",
        ..GOOD
    };
    assert_eq!(
        other.failure(&mika).as_deref(),
        Some("unregistered torrent")
    );
    mika.managed(&["torrents", "add", OTHER_HASH, "--name", "Another"]);
    follows("a torrent added", || other.failure(&mika).is_none());
    mika.managed(&["torrents", "disable", OTHER_HASH, "a dupe"]);
    follows("a torrent disabled", || {
        other.failure(&mika).as_deref() == Some("a dupe")
    });
    sql("UPDATE torrents SET reason = 'a virus' WHERE release_name = 'Another'");
    follows("another reason", || {
        other.failure(&mika).as_deref() == Some("a virus")
    });
    mika.managed(&["torrents", "enable", OTHER_HASH]);
    follows("a torrent enabled", || other.failure(&mika).is_none());

    mika.managed(&["whitelist", "remove", "-MK"]);
    follows("a client removed", || {
        GOOD.failure(&mika).as_deref() == Some("client not allowed")
    });
    sql("INSERT INTO whitelist (peer_id, vstring) VALUES ('-MK00', 'again')");
    follows("a client added", || GOOD.failure(&mika).is_none());
    assert!(
        !mika.log().contains(changed.passkey),
        "the log shows a passkey"
    );
}

#[test]
fn a_torrent_that_comes_back_keeps_its_peers() {
    let mut mika = private(&trace());
    mika.run();
    let announce = |info_hash: &'static [u8; 20], rest: &'static str| Announce {
        info_hash,
        rest,
        ..GOOD
    };
    let old = b"aaaaaaaaaaaaaaaaaaaa";
    let new = b"bbbbbbbbbbbbbbbbbbbb";
    let sql = |sql: &str| mika.storage().execute_batch(sql).expect("an edit");
    let standing = |it: Announce, expected: Option<&str>| {
        follows("the torrent's row", || {
            it.failure(&mika).as_deref() == expected
        });
    };
    let gone = Some("unregistered torrent");

    assert_eq!(
        announce(old, "left=9&uploaded=100&event=started").failure(&mika),
        None
    );
    assert_eq!(
        announce(old, "left=0&uploaded=110&event=completed").failure(&mika),
        None
    );
    sql("UPDATE torrents SET multi_up = 'oops'");
    standing(announce(old, "left=0&uploaded=110"), gone);
    sql("UPDATE torrents SET multi_up = 2");
    standing(announce(old, "left=0&uploaded=120"), None);
    // Renamed on the wire: accounts go by the torrent, not by its hash.
    sql("UPDATE torrents SET info_hash = CAST('bbbbbbbbbbbbbbbbbbbb' AS BLOB)");
    standing(announce(new, "left=0&uploaded=140"), None);
    assert_eq!(
        announce(old, "left=0&uploaded=140")
            .failure(&mika)
            .as_deref(),
        gone
    );
    // And back: what was credited under the other hash is not credited again.
    sql("UPDATE torrents SET info_hash = CAST('aaaaaaaaaaaaaaaaaaaa' AS BLOB)");
    standing(announce(old, "left=0&uploaded=140"), None);
    sql("UPDATE torrents SET info_hash = CAST('bbbbbbbbbbbbbbbbbbbb' AS BLOB)");
    standing(announce(new, "left=0&uploaded=140"), None);
    let reply = announce(new, "left=0&uploaded=140&event=completed").send(&mika);
    assert_eq!(reply.int("downloaded"), Some(1), "the snatch counts once");
    assert_eq!(
        announce(new, "left=0&uploaded=141&event=stopped").failure(&mika),
        None
    );

    let [uploaded, snatches] = mika.row::<2>("SELECT uploaded, snatches FROM users");
    assert_eq!((uploaded, snatches), (10 + 2 * 31, 1));
}

#[test]
fn a_reload_applies_only_a_valid_config() {
    let mut mika = private(&trace());
    mika.run();
    let interval = |mika: &Mika| GOOD.send(mika).int("interval");
    assert!(interval(&mika) >= Some(1710));

    for (signal, minutes) in [(Signal::HUP, 10), (Signal::USR2, 5)] {
        let every = format!("{minutes}m");
        mika.reconfigure(
            &json!({ "tracker": { "announce_interval": every, "min_announce_interval": "1m" } }),
        );
        mika.signal(signal);
        poll(FOLLOWS, "another interval", || {
            let range = minutes * 57..=minutes * 63;
            interval(&mika).is_some_and(|interval| range.contains(&interval))
        });
    }

    // Invalid in three ways, or not to be had without a restart; the old config stays.
    let path = mika.path("config.json");
    for (number, text) in [
        "{",
        r#"{ "trackers": {} }"#,
        r#"{ "tracker": { "peer_ttl": "soon" } }"#,
        r#"{ "mode": "public" }"#,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, text).expect("a bad config");
        mika.signal(Signal::HUP);
        poll(FOLLOWS, "the reload is refused", || {
            lines(&mika, "ERROR").len() > number
        });
        assert!((285..=315).contains(&interval(&mika).unwrap_or(0)));
    }
    let errors = lines(&mika, "ERROR");
    assert_eq!(errors.len(), 4, "{errors:#?}");
    assert!(
        errors[1].contains("config.json") && errors[1].contains("trackers"),
        "{}",
        errors[1]
    );
    assert!(errors[2].contains("tracker.peer_ttl"), "{}", errors[2]);
    assert!(errors[3].contains("mode has changed"), "{}", errors[3]);

    // Keys that need a restart are logged, and have no effect.
    mika.reconfigure(&json!({ "journal": { "max_pending": 5000 } }));
    mika.signal(Signal::HUP);
    poll(FOLLOWS, "a warning", || {
        lines(&mika, "WARN")
            .iter()
            .any(|line| line.contains("journal.max_pending has changed"))
    });
    assert_eq!(GOOD.failure(&mika), None);
    assert_eq!(mika.stop(), 0);
}

// === HTTPS ===

/// A kept-alive connection over TLS.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    /// Connects, and trusts what is in that certificate file alone.
    fn open(address: SocketAddr, pem: &[u8]) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots
                .add(certificate.expect("a certificate"))
                .expect("a root");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut tls = Self(StreamOwned::new(client, stream));
        tls.0.flush()?;
        while tls.0.conn.is_handshaking() {
            tls.0.conn.complete_io(&mut tls.0.sock)?;
        }
        Ok(tls)
    }

    /// The status line and what came with it of an announce.
    fn get(&mut self, target: &str) -> std::io::Result<String> {
        self.pipeline(target, 1)
    }

    /// The same for several announces, which are sent at once.
    fn pipeline(&mut self, target: &str, count: usize) -> std::io::Result<String> {
        let requests = format!("GET {target} HTTP/1.1\r\n\r\n").repeat(count);
        self.0.write_all(requests.as_bytes())?;
        let mut replies = String::new();
        let mut chunk = [0; 4096];
        while !replies.ends_with('e') || replies.matches("HTTP/1.1 ").count() < count {
            let length = self.0.read(&mut chunk)?;
            if length == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            replies += &chunk[..length].escape_ascii().to_string();
        }
        Ok(replies)
    }
}

#[test]
fn the_https_certificate_can_be_replaced() {
    let files = json!({ "key": "tracker.key", "cert": "tracker.pem" });
    let config = json!({ "mode": "private", "http": { "tls": files }, "api": { "tls": files } });
    let mut mika = Mika::prepare(&config);
    mika.managed(&["genkey"]);
    mika.managed(&["users", "add", "first", "--passkey", PASSKEY]);
    mika.managed(&["whitelist", "add", "-MK", "Mika's tests"]);
    mika.managed(&["torrents", "add", HASH, "--name", "A torrent"]);
    mika.run();

    let url = format!("https://{}{}", mika.http(), GOOD.target());
    let curl = |arguments: &[&str]| {
        let mut command = mika.command("curl");
        let command = command.args(["--silent", "--noproxy", "*", "--max-time", "20"]);
        command
            .args(arguments)
            .arg(&url)
            .output()
            .expect("curl starts")
    };
    let trusting = curl(&["--cacert", "tracker.pem"]);
    assert!(trusting.status.success(), "{trusting:?}");
    assert!(trusting.stdout.starts_with(b"d8:complete"), "{trusting:?}");
    assert!(!curl(&[]).status.success(), "its signer is unknown");
    assert!(
        !curl(&["--cacert", "tracker.pem", "--tls-max", "1.1"])
            .status
            .success()
    );
    assert!(
        try_get(mika.http(), &GOOD.target()).is_err(),
        "plain HTTP is not answered"
    );

    let pem = || fs::read(mika.path("tracker.pem")).expect("a certificate");
    let old = pem();
    let mut kept = Tls::open(mika.http(), &old).expect("a connection");
    let announce = |tls: &mut Tls| tls.get(&GOOD.target()).expect("a reply");
    assert!(announce(&mut kept).starts_with("HTTP/1.1 200 OK"));
    let many = kept.pipeline(&GOOD.target(), 500).expect("replies");
    assert_eq!(many.matches("HTTP/1.1 200 OK").count(), 500);

    mika.managed(&["genkey", "--force"]);
    mika.signal(Signal::HUP);
    poll(FOLLOWS, "the new certificate", || {
        Tls::open(mika.http(), &pem()).is_ok()
    });
    assert!(
        Tls::open(mika.http(), &old).is_err(),
        "the old certificate is gone"
    );
    assert!(
        announce(&mut kept).starts_with("HTTP/1.1 200 OK"),
        "an open connection goes on"
    );

    fs::write(mika.path("tracker.pem"), "no certificate").expect("a bad file");
    let good = lines(&mika, "INFO").len();
    mika.signal(Signal::HUP);
    poll(FOLLOWS, "the reload is refused", || {
        lines(&mika, "ERROR").len() == 1
    });
    assert_eq!(lines(&mika, "INFO").len(), good, "and says nothing else");
    assert!(announce(&mut kept).starts_with("HTTP/1.1 200 OK"));
    assert_eq!(mika.stop(), 0);
}

// === the stop ===

/// A reply that waits for the database is still sent, new connections are refused, and all is saved.
#[test]
fn a_stop_answers_requests_in_flight() {
    let mut mika = private(&json!({ "mode": "private", "journal": { "ack_timeout": "20s" } }));
    mika.run();
    let address = mika.http();
    let scrape = format!("/{PASSKEY}/scrape?info_hash={}", escape(GOOD.info_hash));
    // An answer means that the start is over, and needs the database no more.
    get(address, &scrape);
    let storage = mika.storage();
    storage.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let target = Announce {
        rest: "left=0&event=started",
        ..GOOD
    }
    .target();
    let waiting = thread::spawn(move || get(address, &target));
    poll(FOLLOWS, "the announce is at work", || {
        get(address, &scrape)
            .body
            .windows(11)
            .any(|bytes| bytes == b"completei1e")
    });
    mika.signal(Signal::TERM);
    poll(FOLLOWS, "no more connections", || {
        TcpStream::connect(address).is_err()
    });
    assert!(!waiting.is_finished(), "the reply waits");
    storage
        .execute_batch("COMMIT")
        .expect("the end of the lock");
    let reply = waiting.join().expect("a reply");
    assert_eq!((reply.failure(), reply.int("complete")), (None, Some(1)));
    assert_eq!(mika.wait(crate::harness::PROGRAM_DEADLINE), 0);
    assert_eq!(mika.row("SELECT count(*), sum(active) FROM peers"), [1, 1]);
    assert!(lines(&mika, "ERROR").is_empty() && lines(&mika, "WARN").is_empty());

    // What it left is there again.
    mika.run();
    assert_eq!(GOOD.send(&mika).int("complete"), Some(1));
}

#[test]
fn an_interrupt_stops_it_despite_idle_connections() {
    let mut mika = private(&json!({ "mode": "private" }));
    mika.run();
    let mut idle = crate::harness::http::Connection::open(mika.http()).expect("a connection");
    idle.get(&GOOD.target()).expect("a reply");
    mika.signal(Signal::INT);
    assert_eq!(mika.wait(Duration::from_secs(5)), 0);
    assert!(idle.is_closed());
}

#[test]
fn check_validates_the_config() {
    let mika = Mika::prepare(&json!({ "mode": "private" }));
    let check = |arguments: &[&str]| {
        mika.command(env!("CARGO_BIN_EXE_mika"))
            .args(arguments)
            .output()
            .expect("mika starts")
    };
    for arguments in [
        ["--check", "--config", "config.json"],
        ["--check", "-config", "config.json"],
    ] {
        let output = check(&arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stdout, b"config.json: ok\n");
    }
    let named = check(&["--check"]);
    assert_eq!(
        named.stdout, b"config.json: ok\n",
        "it is in the current folder"
    );
    fs::remove_file(mika.path("config.json")).expect("the config");
    assert_eq!(check(&["--check"]).stdout, b"built-in defaults: ok\n");
    assert!(!mika.path("mika.db").exists(), "a check makes nothing");
}
