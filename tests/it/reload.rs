//! Reloads: what they apply and log, and log rotation.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::http::Connection;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};
use rustix::process::Signal;
use serde_json::{Value, json};

fn file_of(mika: &Mika, name: &str) -> String {
    fs::read_to_string(mika.path(name)).unwrap_or_default()
}

/// Changes the config, reloads it, and waits until that is done; returns its log lines.
fn reload(mika: &mut Mika, over: &Value) -> String {
    let before = mika.log().len();
    mika.reconfigure(over);
    mika.signal(Signal::USR2);
    let mut said = String::new();
    poll(PROGRAM_DEADLINE, "the reload", || {
        said = mika.log().split_off(before);
        said.contains(" reloaded ") || said.contains(" not reloaded")
    });
    said
}

/// The lines that name a key.
fn changes(said: &str) -> Vec<&str> {
    let changes = said.lines().filter(|line| line.contains(" has changed"));
    // Without the time, which is a word.
    let changes = changes.map(|line| line.trim_start().split_once(' ').unwrap_or_default().1);
    changes.map(str::trim_start).collect()
}

#[test]
fn changed_keys_are_logged_and_whether_they_need_a_restart() {
    let mut mika = Mika::start(&json!({ "log": { "stats_interval": "0s" } }));
    let said = reload(&mut mika, &json!({}));
    assert_eq!(changes(&said), [""; 0]);

    let said = reload(
        &mut mika,
        &json!({
            "tracker": { "numwant": 20 },
            "journal": { "flush_interval": "50ms", "max_pending": 5000 },
            "api": { "password": "hunter2" },
        }),
    );
    let logged = changes(&said);
    let expected = [
        r#"INFO mika::node::reload: journal.flush_interval has changed old="1s" new="50ms""#,
        "INFO mika::node::reload: tracker.numwant has changed old=50 new=20",
        "INFO mika::node::reload: api.password has changed",
        "WARN mika::node::reload: journal.max_pending has changed: it takes effect at the next start old=262144 new=5000",
    ];
    assert_eq!(logged, expected, "{said}");
    assert!(!mika.log().contains("hunter2"));

    // Pending keys are logged again, until the old value is back; those in force are not.
    let said = reload(&mut mika, &json!({ "api": { "password": "" } }));
    assert_eq!(changes(&said), expected[2..], "{said}");
    let said = reload(&mut mika, &json!({ "journal": { "max_pending": 262_144 } }));
    assert_eq!(changes(&said), [""; 0]);
    assert_eq!(mika.stop(), 0);
}

#[test]
fn statistics_begin_and_end_with_a_reload() {
    let mut mika = Mika::start(&json!({ "log": { "stats_interval": "0s" } }));
    let lines = |mika: &Mika| mika.log().matches(" statistics ").count();
    reload(&mut mika, &json!({ "log": { "stats_interval": "20ms" } }));
    poll(PROGRAM_DEADLINE, "lines of statistics", || lines(&mika) > 2);
    reload(&mut mika, &json!({ "log": { "stats_interval": "1h" } }));
    let logged = lines(&mika);
    reload(&mut mika, &json!({ "tracker": { "numwant": 10 } }));
    assert_eq!(lines(&mika), logged);
}

/// A lower number lets those that are open go on, until others come; a higher one has room for more.
#[test]
fn a_reload_applies_the_connection_limit() {
    let mut mika = Mika::start_with(
        &json!({ "http": { "max_connections": 1 } }),
        &["--procs", "1"],
    );
    let ask = |stream: &mut TcpStream| {
        let asked = stream.write_all(b"GET /scrape HTTP/1.1\r\n\r\n");
        asked.is_ok() && matches!(stream.read(&mut [0; 1000]), Ok(length) if length > 0)
    };
    let open = |mika: &Mika| {
        let mut stream = TcpStream::connect(mika.http()).expect("the kernel takes it");
        let timeout = stream.set_read_timeout(Some(PROGRAM_DEADLINE));
        timeout.expect("a timeout");
        assert!(ask(&mut stream), "a newcomer is answered at once");
        stream
    };
    let mut first = open(&mika);
    let mut second = open(&mika);
    assert!(!ask(&mut first), "there is one place");

    // The workers look at their settings every second.
    reload(&mut mika, &json!({ "http": { "max_connections": 2 } }));
    let mut third = second.try_clone().expect("a second handle");
    poll(PROGRAM_DEADLINE, "there are two places", || {
        third = open(&mika);
        let goes_on = ask(&mut second);
        if !goes_on {
            second = open(&mika);
        }
        goes_on
    });

    reload(&mut mika, &json!({ "http": { "max_connections": 1 } }));
    assert!(ask(&mut second) && ask(&mut third), "both go on");
    poll(PROGRAM_DEADLINE, "there is one place again", || {
        let (mut fourth, mut fifth) = (open(&mika), open(&mika));
        ask(&mut fifth) && !ask(&mut fourth)
    });
    assert!(!ask(&mut second) && !ask(&mut third));
}

/// A peer beside the tracker is known to the internet by an address that the config names.
#[test]
fn a_reload_applies_public_addresses() {
    let mut mika = Mika::start(&json!({
        "mode": "public",
        "http": { "trusted_proxies": ["127.0.0.1/32"] },
    }));
    let announce = |mika: &Mika, from: &str, id: u8, left: u8| {
        let target = format!(
            "/announce?info_hash={}&peer_id=-MK0001-{id:012}&port=6881&left={left}",
            "h".repeat(20)
        );
        let mut connection = Connection::open(mika.http()).expect("a connection");
        let head = format!("GET {target} HTTP/1.1\r\nX-Forwarded-For: {from}\r\n\r\n");
        connection.send(head.as_bytes()).expect("a request");
        let reply = connection.receive().expect("a reply");
        assert_eq!(reply.int("complete"), Some(1));
        reply.bytes("peers").expect("peers")
    };
    let local = [192, 168, 1, 5, 0x1a, 0xe1];
    let public = [8, 8, 8, 8, 0x1a, 0xe1];
    announce(&mika, "192.168.1.5", 1, 0);
    assert_eq!(announce(&mika, "9.9.9.9", 2, 1), [0; 0]);
    let named = json!({ "tracker": { "public_addresses": ["8.8.8.8"] } });
    reload(&mut mika, &named);
    assert_eq!(announce(&mika, "9.9.9.9", 2, 1), public);
    assert!(
        announce(&mika, "192.168.1.6", 3, 1)
            .chunks(6)
            .any(|it| it == local)
    );

    let wrong = json!({ "tracker": { "public_addresses": [{ "network": "8.0.0.0/8", "address": "9.9.9.9" }] } });
    let said = reload(&mut mika, &wrong);
    assert!(said.contains("tracker.public_addresses"), "{said}");
    assert_eq!(
        announce(&mika, "9.9.9.9", 2, 1)[..6],
        public,
        "the old ones stay"
    );
    let of_a_network = json!({ "network": "192.168.0.0/16", "address": "9.9.9.1" });
    let said = reload(
        &mut mika,
        &json!({ "tracker": { "public_addresses": [of_a_network] } }),
    );
    assert!(said.contains(" reloaded "), "{said}");
    let given = announce(&mika, "9.9.9.9", 2, 1);
    assert!(
        given.chunks(6).any(|it| it == [9, 9, 9, 1, 0x1a, 0xe1]),
        "{given:?}"
    );
}

// === log files ===

/// A rotation renames the file and sends a signal; all lines are in one of the two files.
#[test]
fn a_renamed_log_loses_no_line() {
    for (signal, format) in [(Signal::USR2, "text"), (Signal::HUP, "json")] {
        let log = json!({ "level": "trace", "format": format, "file": "tracker.log" });
        let mut mika = Mika::start(&json!({ "log": log }));
        // The kernel takes connections before that.
        poll(PROGRAM_DEADLINE, "a line in the file", || {
            file_of(&mika, "tracker.log").contains("listening")
        });
        let mut logged = 0;
        let mut reload = |mika: &mut Mika| {
            logged += 1;
            mika.reconfigure(&json!({ "tracker": { "numwant": logged } }));
            mika.signal(signal);
            poll(PROGRAM_DEADLINE, "the reload", || {
                let files = ["tracker.log", "tracker.log.1"].map(|name| file_of(mika, name));
                let news = files.concat();
                news.matches("tracker.numwant has changed").count() == logged
            });
        };
        reload(&mut mika);
        fs::rename(mika.path("tracker.log"), mika.path("tracker.log.1")).expect("a rotation");
        reload(&mut mika);
        reload(&mut mika);
        assert_eq!(mika.stop(), 0);
        let (old, new) = (
            file_of(&mika, "tracker.log.1"),
            file_of(&mika, "tracker.log"),
        );
        assert_eq!(old.matches("has changed").count(), 1, "{old}");
        assert_eq!(new.matches("has changed").count(), 2, "{new}");
        assert!(new.contains("stopped, storage has everything"), "{new}");
        if format == "json" {
            for line in old.lines().chain(new.lines()) {
                let parsed = serde_json::from_str::<Value>(line);
                parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
        assert_eq!(mika.log(), "", "nothing is left for stderr");
    }
}

#[test]
fn a_log_file_has_a_restrictive_mode_also_after_a_rotation() {
    let config = json!({ "log": { "file": "tracker.log" } });
    let mut mika = Mika::prepare(&config);
    mika.run();
    let mode = |mika: &Mika| {
        let found = fs::metadata(mika.path("tracker.log"));
        found.map(|it| it.permissions().mode() & 0o777).ok()
    };
    assert_eq!(mode(&mika).map(|mode| mode & 0o137), Some(0));
    fs::rename(mika.path("tracker.log"), mika.path("tracker.log.1")).expect("a file");
    mika.signal(Signal::USR2);
    poll(PROGRAM_DEADLINE, "a new log file", || mode(&mika).is_some());
    assert_eq!(mode(&mika).map(|mode| mode & 0o137), Some(0));
}

#[test]
fn readable_secrets_are_reported_at_the_start_and_by_a_check() {
    let mut mika = Mika::prepare(&json!({}));
    fs::write(mika.path("mika.secret"), [7; 32]).expect("a file");
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(mika.path("mika.secret"), open).expect("a mode");
    mika.run();
    let log = mika.log();
    assert!(log.contains("mika.secret holds the secret of UDP"), "{log}");
    assert!(log.contains("chmod 600 mika.secret"), "{log}");
    let check = mika
        .command(env!("CARGO_BIN_EXE_mika"))
        .args(["--config", "config.json", "--check"])
        .output()
        .expect("mika starts");
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(
        check.status.success() && said.contains("chmod 600 mika.secret"),
        "{said}"
    );
}

#[test]
fn a_log_moves_to_another_file_and_back() {
    let mut mika = Mika::start(&json!({}));
    mika.reconfigure(&json!({ "log": { "file": "tracker.log" } }));
    mika.signal(Signal::USR2);
    let moved = |mika: &Mika| file_of(mika, "tracker.log").matches(" reloaded ").count();
    poll(PROGRAM_DEADLINE, "a log file", || moved(&mika) == 1);
    assert!(mika.log().contains("log.file has changed"));

    // A place where there can be no file: all stays as it was.
    mika.reconfigure(&json!({ "log": { "file": "no-folder/tracker.log" } }));
    mika.signal(Signal::USR2);
    poll(PROGRAM_DEADLINE, "the reload is refused", || {
        file_of(&mika, "tracker.log").contains("log.file: can't write to no-folder/tracker.log")
    });
    let said = reload(&mut mika, &json!({ "log": { "file": "" } }));
    assert!(said.contains(" reloaded "), "{said}");
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_log_that_cant_be_written_ends_the_start() {
    let mut mika = Mika::prepare(&json!({ "log": { "file": "no-folder/tracker.log" } }));
    mika.launch();
    assert_eq!(mika.wait(PROGRAM_DEADLINE), 2);
    let log = mika.log();
    assert!(
        log.contains("mika: config.json: log.file: can't write to no-folder/tracker.log: "),
        "{log}"
    );
}

/// The reason of the end is in the file too, for those without its stderr.
#[test]
fn the_log_file_has_the_reason_of_a_failed_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let mut mika = Mika::prepare_on(address, &json!({ "log": { "file": "tracker.log" } }));
    mika.launch();
    assert_eq!(mika.wait(PROGRAM_DEADLINE), 1);
    for text in [mika.log(), file_of(&mika, "tracker.log")] {
        assert!(text.contains("another program listens there"), "{text}");
    }
}
