//! Failures around the tracker: each gives one clear line that says what to do, and the right
//! exit code, and nothing is lost.

#![allow(clippy::print_stderr)] // what a failed test leaves behind

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::http::{Connection, escape, get};
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

/// Exit codes of `mika`.
const CANNOT_GO_ON: i32 = 1;
const BAD_CONFIG: i32 = 2;

/// A small disk of its own, unmounted on drop.
struct Disk {
    folder: TempDir,
}

/// A client of the user `first` that records what it reported.
struct Client {
    peer_id: String,
    port: usize,
    uploaded: u64,
}

/// Starts the daemon, which must exit: with that code, and with one line that has all of `words`.
fn fails(mika: &mut Mika, code: i32, words: &[&str]) {
    let before = mika.log().len();
    mika.launch();
    let status = mika.wait(PROGRAM_DEADLINE);
    let log = mika.log().split_off(before);
    assert_eq!(status, code, "{log}");
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    let [line] = lines[..] else {
        panic!("not one line:\n{log}")
    };
    assert!(line.starts_with("mika: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

fn errors(mika: &Mika) -> Vec<String> {
    let log = mika.log();
    let lines = log.lines().filter(|line| line.contains(" ERROR "));
    lines.map(str::to_owned).collect()
}

// === the config ===

#[test]
fn a_wrong_config_is_reported_with_file_key_and_remedy() {
    let table = [
        (
            json!({ "trakcer": {} }),
            &["config.json: ", "trakcer", "did you mean", "tracker"][..],
        ),
        (
            json!({ "tracker": { "peer_tll": "1h" } }),
            &["config.json: ", "tracker.peer_tll", "peer_ttl"],
        ),
        (
            json!({ "tracker": { "numwant": "many" } }),
            &["config.json: ", "tracker.numwant", "many"],
        ),
        (
            json!({ "tracker": { "announce_interval": "soon" } }),
            &["config.json: ", "tracker.announce_interval", "soon"],
        ),
        (
            json!({ "http": { "listen": ["localhost"] } }),
            &["config.json: ", "http.listen[0]", "localhost"],
        ),
        (
            json!({ "storage": { "driver": "sqlit" } }),
            &["config.json: ", "storage.driver", "sqlite"],
        ),
        (
            json!({ "storage": { "url": "mika.db" } }),
            &["config.json: ", "storage.url", "sqlite://PATH"],
        ),
        (
            json!({ "api": { "listen": ["0.0.0.0:1"] } }),
            &["config.json: ", "api.password"],
        ),
    ];
    for (config, words) in table {
        fails(&mut Mika::prepare(&config), BAD_CONFIG, words);
    }
    let mut mika = Mika::prepare(&json!({}));
    fs::write(mika.path("config.json"), "{\n  \"mode\": \"public\",\n}").expect("a bad config");
    fails(&mut mika, BAD_CONFIG, &["config.json: ", "line 3"]);
    fs::remove_file(mika.path("config.json")).expect("the config");
    fails(
        &mut mika,
        BAD_CONFIG,
        &["config.json: ", "no such file", "config.json.dist"],
    );
}

#[test]
fn wrong_tls_files_are_reported_before_anything_starts() {
    let tls = |key: &str, cert: &str| json!({ "http": { "tls": { "key": key, "cert": cert } } });
    let made = Mika::prepare(&json!({ "api": { "tls": { "key": "one.key", "cert": "one.pem" } } }));
    made.managed(&["genkey"]);
    let other =
        Mika::prepare(&json!({ "api": { "tls": { "key": "two.key", "cert": "two.pem" } } }));
    other.managed(&["genkey"]);
    let file = |mika: &Mika, name: &str| mika.path(name).display().to_string();
    let (key, cert) = (file(&made, "one.key"), file(&made, "one.pem"));
    let table = [
        (tls("nowhere.key", &cert), "nowhere.key"),
        (tls(&key, "nowhere.pem"), "nowhere.pem"),
        (tls("config.json", &cert), "config.json"),
        (tls(&key, "config.json"), "config.json"),
        (tls(&key, &file(&other, "two.pem")), "two.pem"),
    ];
    for (config, word) in table {
        fails(
            &mut Mika::prepare(&config),
            BAD_CONFIG,
            &["config.json: http.tls: ", word],
        );
    }
}

// === what others hold ===

#[test]
fn a_port_in_use_is_reported() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = other.local_addr().expect("its address");
    let words = [&*address.to_string(), "http.listen", "stop it"];
    fails(
        &mut Mika::prepare_on(address, &json!({})),
        CANNOT_GO_ON,
        &words,
    );

    let first = Mika::start(&json!({}));
    let words = [&*first.http().to_string(), "http.listen", "stop it"];
    fails(
        &mut Mika::prepare_on(first.http(), &json!({})),
        CANNOT_GO_ON,
        &words,
    );
    assert_eq!(
        get(first.http(), "/scrape").status,
        200,
        "the first one goes on"
    );
}

#[test]
fn a_database_has_one_daemon() {
    let mut first = Mika::start(&json!({}));
    let url = format!("sqlite://{}", first.path("mika.db").display());
    let mut second = Mika::prepare(&json!({ "storage": { "url": url } }));
    fails(
        &mut second,
        CANNOT_GO_ON,
        &["mika.db", "another mika", "storage.url"],
    );
    assert_eq!(first.stop(), 0);
    second.run();
}

// === the database ===

#[test]
fn a_file_that_is_not_a_database_is_refused() {
    let storage = |url: &str| Mika::prepare(&json!({ "storage": { "url": url } }));
    let mut mika = storage("sqlite://config.json");
    // A database that others can read would be warned of first.
    let only_mine = fs::Permissions::from_mode(0o600);
    fs::set_permissions(mika.folder().join("config.json"), only_mine).expect("its mode");
    fails(
        &mut mika,
        CANNOT_GO_ON,
        &["config.json", "not an SQLite database", "storage.url"],
    );
    fails(
        &mut storage("sqlite:///proc"),
        CANNOT_GO_ON,
        &["/proc", "folder", "storage.url"],
    );
    fails(
        &mut storage("sqlite://no/where.db"),
        CANNOT_GO_ON,
        &["no/where.db", "folder does not exist", "storage.url"],
    );
}

#[test]
fn tables_of_a_newer_version_are_left_alone() {
    let mut mika = Mika::prepare(&json!({}));
    mika.managed(&["migrate"]);
    let newer = "INSERT INTO mika_migrations (name) VALUES ('9999_from_the_future')";
    mika.storage().execute(newer, ()).expect("a migration");
    fails(
        &mut mika,
        CANNOT_GO_ON,
        &["mika.db", "newer Mika", "9999_from_the_future", "install"],
    );
}

#[test]
fn a_read_only_folder_is_reported() {
    let disk = Disk::new("4m");
    let mut mika = Mika::prepare(&json!({ "storage": { "url": disk.url() } }));
    disk.remount("ro");
    fails(&mut mika, CANNOT_GO_ON, &["mika.db", "read-only", "write"]);
    disk.remount("rw");
    mika.run();
    assert_eq!(mika.stop(), 0);
    disk.remount("ro");
    fails(&mut mika, CANNOT_GO_ON, &["mika.db", "read-only", "write"]);
}

#[test]
fn a_damaged_torrent_file_does_not_stop_an_import() {
    let mika = Mika::prepare(&json!({ "mode": "private" }));
    let good =
        b"d4:infod6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    fs::write(mika.path("good.torrent"), good).expect("a file");
    fs::write(mika.path("bad.torrent"), &good[..40]).expect("a file");
    let output = mika.manage(&["torrents", "import", "bad.torrent", "good.torrent"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(
        stderr
            .lines()
            .filter(|line| line.contains("bad.torrent"))
            .count(),
        1,
        "{stderr}"
    );
    assert_eq!(mika.row("SELECT count(*) FROM torrents"), [1]);
}

// === a full disk ===

/// A private tracker whose database is on that disk.
fn private_on(disk: &Disk) -> Mika {
    let mika = Mika::prepare(&json!({
        "mode": "private",
        "tracker": { "whitelist": false, "max_peers_per_user": 100 },
        "storage": { "url": disk.url() },
        "journal": { "flush_interval": "100ms", "ack_timeout": "200ms" },
    }));
    mika.managed(&[
        "users",
        "add",
        "first",
        "--passkey",
        "Passkey-of-the-first-user",
    ]);
    mika.managed(&["torrents", "add", &"61".repeat(20), "--name", "A torrent"]);
    mika
}

impl Client {
    fn new(number: usize) -> Self {
        Self {
            peer_id: format!("-MK0001-{number:012}"),
            port: 7000 + number,
            uploaded: 1000 * number as u64,
        }
    }

    /// Announces `more` bytes than before, which must be answered.
    fn announce(&mut self, connection: &mut Connection, event: &str, more: u64) {
        self.uploaded += more;
        let target = format!(
            "/Passkey-of-the-first-user/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id={}&port={}&uploaded={}&downloaded=0&left=0&event={event}",
            escape(self.peer_id.as_bytes()),
            self.port,
            self.uploaded,
        );
        let reply = connection.get(&target).expect("an answer");
        assert_eq!((reply.status, reply.failure()), (200, None), "{target}");
    }
}

/// Announces continue, one line is logged, and when there is space again all is written.
#[test]
fn a_full_disk_loses_no_credit() {
    let disk = Disk::new("3m");
    let mut mika = private_on(&disk);
    mika.run();
    let mut connection = Connection::open(mika.http()).expect("a connection");
    let mut clients: Vec<Client> = (0..20).map(Client::new).collect();
    for client in &mut clients {
        client.announce(&mut connection, "started", 0);
    }
    let mut credit = 0;
    let filler = disk.fill();
    let mut round = |clients: &mut [Client], event: &str| {
        for client in clients {
            client.announce(&mut connection, event, 777_777);
            credit += 777_777;
        }
    };
    poll(PROGRAM_DEADLINE, "the disk is full", || {
        round(&mut clients, "");
        !errors(&mika).is_empty()
    });
    // New clients come, old ones go, and the journal tries again several times.
    let mut more: Vec<Client> = (20..25).map(Client::new).collect();
    for client in &mut more {
        let mut connection = Connection::open(mika.http()).expect("a connection");
        client.announce(&mut connection, "started", 0);
    }
    for _ in 0..20 {
        round(&mut clients, "");
        round(&mut more, "");
    }
    round(&mut more, "stopped");
    let [error] = &errors(&mika)[..] else {
        panic!("not one line: {:#?}", errors(&mika))
    };
    assert!(
        error.contains("full") && error.contains("free some space"),
        "{error}"
    );

    fs::remove_file(filler).expect("space");
    poll(PROGRAM_DEADLINE, "the journal is written again", || {
        mika.log().contains("takes the journal again")
    });
    round(&mut clients, "stopped");
    drop(connection);
    assert_eq!(mika.stop(), 0);
    assert_eq!(errors(&mika).len(), 1);
    assert_eq!(
        disk.row("SELECT uploaded, downloaded FROM users"),
        [credit, 0]
    );
    assert_eq!(disk.row("SELECT count(*), sum(active) FROM peers"), [25, 0]);
}

#[test]
fn a_new_database_on_a_full_disk_is_refused() {
    let disk = Disk::new("1m");
    disk.fill();
    let mut mika = Mika::prepare(&json!({ "storage": { "url": disk.url() } }));
    fails(
        &mut mika,
        CANNOT_GO_ON,
        &["mika.db", "full", "free some space"],
    );
}

/// What can't be saved at the stop is logged; the clients' next announces make up for it.
#[test]
fn a_stop_on_a_full_disk_reports_unsaved_changes() {
    let disk = Disk::new("3m");
    let mut mika = private_on(&disk);
    let mut client = Client::new(1);
    mika.run();
    let mut connection = Connection::open(mika.http()).expect("a connection");
    client.announce(&mut connection, "started", 0);
    let filler = disk.fill();
    let mut credit = 0;
    poll(PROGRAM_DEADLINE, "the disk is full", || {
        client.announce(&mut connection, "", 1000);
        credit += 1000;
        !errors(&mika).is_empty()
    });
    let before = mika.log().len();
    mika.signal(Signal::TERM);
    assert_eq!(mika.wait(2 * PROGRAM_DEADLINE), CANNOT_GO_ON);
    let log = mika.log().split_off(before);
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    let [line] = lines[..] else {
        panic!("not one line:\n{log}")
    };
    for word in ["mika: ", "could not be saved", "full", "free some space"] {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
    // It starts all the same, and answers from memory until there is space.
    mika.run();
    let mut connection = Connection::open(mika.http()).expect("a connection");
    client.announce(&mut connection, "", 1000);
    fs::remove_file(filler).expect("space");
    client.announce(&mut connection, "stopped", 1000);
    credit += 2000;
    drop(connection);
    assert_eq!(mika.stop(), 0);
    assert_eq!(
        disk.row("SELECT uploaded, downloaded FROM users"),
        [credit, 0]
    );
}

// === too many connections ===

/// Idle connections lock out no client.
#[test]
fn idle_connections_are_bounded_and_evicted() {
    let limit = 8;
    let mika = Mika::start(&json!({ "http": { "max_connections": limit } }));
    let hold = |_| {
        let mut stream = TcpStream::connect(mika.http()).expect("the kernel takes it");
        stream
            .write_all(b"GET /announce?info_hash=")
            .expect("a beginning");
        stream
    };
    let crowd: Vec<TcpStream> = (0..limit + limit / 2).map(hold).collect();
    let sockets = || {
        let files =
            fs::read_dir(format!("/proc/{}/fd", mika.pid().as_raw_nonzero())).expect("its files");
        let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        links
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let honest = honest_get(mika.http());
    assert!(honest.starts_with("HTTP/1.1 200 OK"), "{honest}");
    // Listeners, signals and the like are sockets too.
    assert!(sockets() <= limit + 40, "{} sockets", sockets());
    drop(crowd);
}

/// A GET with a long timeout.
fn honest_get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the kernel takes it");
    stream
        .set_read_timeout(Some(2 * PROGRAM_DEADLINE))
        .expect("a timeout");
    stream
        .write_all(b"GET /scrape HTTP/1.1\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply
}

// === impl Disk ===

impl Disk {
    fn new(size: &str) -> Self {
        let disk = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let options = format!("size={size}");
        let mounted = disk.command("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"]);
        mounted.unwrap_or_else(|error| {
            panic!("small disks need rights, so run these tests as root: {error}")
        });
        disk
    }

    /// `ro` or `rw`.
    fn remount(&self, how: &str) {
        self.command("mount", &["-o", &format!("remount,{how}")])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Leaves no byte free; the file that takes them.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    fn url(&self) -> String {
        format!("sqlite://{}/mika.db", self.path().display())
    }

    fn row(&self, sql: &str) -> [i64; 2] {
        let storage =
            rusqlite::Connection::open(self.path().join("mika.db")).expect("the database");
        storage
            .query_row(sql, (), |row| Ok([row.get(0)?, row.get(1)?]))
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(program);
        let output = command
            .args(arguments)
            .arg(self.path())
            .output()
            .map_err(|error| error.to_string())?;
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        output.status.success().then_some(()).ok_or(stderr)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.command("umount", &["--lazy"]) {
            eprintln!("{}: {error}", self.path().display());
        }
    }
}
