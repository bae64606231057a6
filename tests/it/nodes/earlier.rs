//! What an earlier version wrote to Redis and to its spill file, recorded from its programs: this one credits all of
//! it, and writes nothing of another form.
//!
//! To record it again, from the programs in the folder that `MIKA_EARLIER` names:
//! `MIKA_EARLIER=… cargo test --all-features --test it -- nodes::earlier::record --ignored`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::pair::{Client, knows_user};
use crate::harness::Mika;
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::{Site, settles};

const MB: u64 = 1_000_000;

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(40);

/// Bytes up and snatches that the clients of the record are owed, user by user.
const OWED: [(u64, u64); 3] = [(500 * MB, 0), (5 * MB, 1), (70 * MB, 0)];

/// The database that the record belongs to.
const IDENTITY: &str = "0123456789abcdef0123456789abcdef";

/// The commands that bring what Redis had back, and the spill file.
fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recorded")
        .join(name)
}

/// A node whose database has that identity, and a Redis that belongs to it.
fn prepare(change: impl FnOnce(&mut Mika)) -> Site {
    let config = json!({ "node": "earlier", "journal": { "keep": "60s" } });
    let site = Site::prepare_with(Database::MariaDb, OWED.len(), &AOF, &config, change);
    let sql = format!("UPDATE mika_identity SET id = '{IDENTITY}'");
    site.database.sql(&sql);
    assert_eq!(site.redis.cli(&["FLUSHALL"]), "OK");
    site.mika.managed(&["warmup"]);
    site
}

/// Clients report to a node, of which storage has nothing; the last report is in the spill file only. Kills the node.
fn announce(site: &mut Site) {
    site.mika.run();
    let node = site.mika.http();
    assert!(knows_user(node, &passkey(0)));
    site.database.pause();
    let mut leaves = Client::new(0, 1);
    leaves.accepted(node, "started");
    for (uploaded, event) in [(300 * MB, ""), (500 * MB, "stopped")] {
        leaves.uploaded = uploaded;
        leaves.accepted(node, event);
    }
    let mut completes = Client {
        left: 10,
        ..Client::new(1, 2)
    };
    completes.accepted(node, "started");
    (completes.uploaded, completes.downloaded, completes.left) = (5 * MB, 10, 0);
    completes.accepted(node, "completed");
    let mut late = Client::new(2, 1);
    late.accepted(node, "started");
    site.redis.kill9();
    late.uploaded = 70 * MB;
    late.accepted(node, "stopped");
    site.mika.kill9();
    site.redis.restart();
    site.database.resume();
}

/// Commands that write the nodes, journals and peers of a Redis again.
fn commands(site: &Site) -> Vec<Vec<String>> {
    let keys = |pattern: &str| {
        let keys = site.redis.cli(&["KEYS", pattern]);
        keys.lines().map(str::to_owned).collect::<Vec<String>>()
    };
    let mut commands = Vec::new();
    for key in keys("t:nodes").into_iter().chain(keys("t:p:*")) {
        let pairs = site.redis.cli(&["HGETALL", &key]);
        let pairs: Vec<String> = pairs.lines().map(str::to_owned).collect();
        commands.push([vec!["HSET".into(), key], pairs].concat());
    }
    for key in keys("t:journal:*") {
        let entries = site.redis.cli(&["--json", "XRANGE", &key, "-", "+"]);
        let entries: Vec<(String, Vec<String>)> = serde_json::from_str(&entries).expect("JSON");
        for (id, fields) in entries {
            let head = ["XADD".into(), key.clone(), id];
            commands.push([&head[..], &fields].concat());
        }
    }
    commands
}

#[test]
#[ignore = "it needs the programs of the earlier version"]
fn record() {
    let folder = PathBuf::from(env::var("MIKA_EARLIER").expect("MIKA_EARLIER: a folder"));
    let mut site = prepare(|mika| mika.use_release(Some(&folder)));
    announce(&mut site);
    let mut commands = commands(&site);
    // Host and boot say nothing of the version.
    for value in commands
        .iter_mut()
        .filter(|it| it[1] == "t:nodes")
        .flatten()
        .skip(2)
    {
        let process = value.splitn(3, ' ').nth(2).map(str::to_owned);
        if let Some(process) = process {
            *value = format!("host boot {process}");
        }
    }
    let text = serde_json::to_string_pretty(&commands).expect("JSON");
    fs::write(recorded("redis.json"), text + "\n").expect("a file");
    // The file alone, without its log.
    let spill = Connection::open(site.mika.path("mika.spill")).expect("the spill file");
    let target = recorded("mika.spill");
    let _ = fs::remove_file(&target);
    let path = target.to_str().expect("UTF-8");
    spill.execute("VACUUM INTO ?1", [path]).expect("a copy");
}

fn recorded_commands() -> Vec<Vec<String>> {
    let text = fs::read_to_string(recorded("redis.json")).expect("the record");
    serde_json::from_str(&text).expect("JSON")
}

/// Starts a node on what the earlier version left, and waits for the credit.
fn takes_over(owed: [(u64, u64); 3], has_spill_file: bool) {
    let mut site = prepare(|_| ());
    for command in recorded_commands() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        site.redis.cli(&words);
    }
    if has_spill_file {
        fs::copy(recorded("mika.spill"), site.mika.path("mika.spill")).expect("a copy");
    }
    site.mika.run();
    let credited = |user: usize| {
        let passkey = passkey(user);
        let sql = format!("SELECT uploaded, snatches FROM users WHERE passkey = '{passkey}'");
        let [uploaded, snatches] = site.database.row(&sql);
        (uploaded.cast_unsigned(), snatches.cast_unsigned())
    };
    let mut found = [(0, 0); 3];
    let is_credited = settles(CREDITED, || {
        found = [0, 1, 2].map(credited);
        found == owed
    });
    assert!(is_credited, "{found:?} and not {owed:?}");
    // A restart credits nothing again.
    assert_eq!(site.mika.stop(), 0);
    site.mika.run();
    assert!(knows_user(site.mika.http(), &passkey(0)));
    assert_eq!(site.mika.stop(), 0);
    let credited = |user: usize| {
        let sql = format!(
            "SELECT uploaded FROM users WHERE passkey = '{}'",
            passkey(user)
        );
        site.database.row::<1>(&sql)[0].cast_unsigned()
    };
    assert_eq!([0, 1, 2].map(credited), owed.map(|(uploaded, _)| uploaded));
}

#[test]
fn what_an_earlier_version_left_in_redis_is_credited() {
    let [leaves, completes, _] = OWED;
    takes_over([leaves, completes, (0, 0)], false);
}

#[test]
fn what_an_earlier_version_left_in_its_spill_file_is_credited() {
    takes_over(OWED, true);
}

/// The forms that are read: of a hash its name and how many words values have, of a journal its fields and the kinds of
/// its lines with the number of their words.
fn forms(commands: &[Vec<String>]) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    for command in commands {
        let (kind, pairs) = match command[0].as_str() {
            "XADD" => ("t:journal", &command[3..]),
            _ => (&command[1][..3], &command[2..]),
        };
        for pair in pairs.chunks(2) {
            let (name, value) = (&pair[0], &pair[1]);
            match (kind, name.as_str()) {
                ("t:journal", "changes") => {
                    let lines = value.lines().map(|line| {
                        let words = line.split(' ').count();
                        format!("{} of {words}", line.split(' ').next().unwrap_or_default())
                    });
                    forms.extend(lines);
                }
                ("t:journal", name) => drop(forms.insert(format!("journal: {name}"))),
                // What follows the sixth word is skipped.
                ("t:n", _) => {
                    let words = value.split(' ').take(6).count();
                    forms.insert(format!("heartbeat of {words}"));
                }
                (kind, _) => {
                    let (version, rest) = value.split_once(' ').expect("a version");
                    let words = rest.split(' ').count();
                    forms.insert(format!("{kind}: version {version} of {words}"));
                }
            }
        }
    }
    forms
}

/// Tables of a spill file, and the version in it.
fn tables(path: &Path) -> (Vec<String>, i64) {
    let file = Connection::open(path).expect("the spill file");
    let mut tables = file
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        .expect("a statement");
    let names = tables.query_map([], |row| row.get(0)).expect("tables");
    let names: Vec<String> = names.map(|name| name.expect("a name")).collect();
    let version = file.query_row("SELECT version FROM head", [], |row| row.get(0));
    (names, version.expect("a version"))
}

/// A node of an earlier version skips what it can't read, so what all nodes write stays in the forms that it knows. If a new form is
/// needed, the changelog has to name it, and this test.
#[test]
fn an_earlier_version_can_read_what_this_one_writes() {
    let mut site = prepare(|_| ());
    announce(&mut site);
    assert_eq!(forms(&commands(&site)), forms(&recorded_commands()));
    let own = tables(&site.mika.path("mika.spill"));
    assert_eq!(own, tables(&recorded("mika.spill")));
}
