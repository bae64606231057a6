//! `mika-manage` as its users meet it: the real program in a folder of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use mika::ids::InfoHash;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
};

const HASH: &str = "00252b263d3b3f20232f7e7f80ffc328615a302d";

/// A folder with its own config and database.
struct Folder {
    dir: TempDir,
}

/// What a call of the program left behind.
#[derive(Debug)]
struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

// === impl Folder ===

impl Folder {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn with_config(config: &Value) -> Self {
        let folder = Self::new();
        folder.write("config.json", config.to_string().as_bytes());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mika-manage"));
        command.current_dir(self.dir.path()).args(arguments);
        for variable in ["MIKA_STORAGE_URL", "MIKA_CACHE_URL", "MIKA_API_PASSWORD"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().unwrap().into()
    }

    fn run_with_stdin(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Stdout of a call that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, 0, "{arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// The same with `--json`, read.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Stderr of a call that must fail with `status`, in one line after the program's name.
    fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, status, "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("mika-manage: "), "{outcome:?}");
        outcome.stderr
    }

    fn sql(&self, statements: &str) {
        let database = rusqlite::Connection::open(self.path("mika.db")).unwrap();
        database.execute_batch(statements).unwrap();
    }
}

// === impl Outcome ===

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

// --- users ---

#[test]
fn the_first_command_makes_the_database_and_prints_the_passkey_alone() {
    let folder = Folder::new();
    let outcome = folder.run(&["users", "add", "alice"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let passkey = outcome.stdout.strip_suffix('\n').unwrap();
    assert_eq!(passkey.len(), 32);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    assert!(passkey.bytes().all(plain), "{passkey}");

    let shown = folder.json(&["users", "show", "alice"]);
    let expected = json!({
        "id": 1, "username": "alice", "passkey": passkey, "enabled": true, "can_leech": true,
        "uploaded": 0, "downloaded": 0, "snatches": 0, "announces": 0, "seed_time": 0,
    });
    assert_eq!(shown, expected);
    assert!(!folder.ok(&["users", "list"]).contains(passkey));
    assert!(!folder.ok(&["users", "list", "--json"]).contains(passkey));
}

#[test]
fn a_user_is_named_by_id_or_name_and_a_shared_name_is_refused() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    folder.ok(&["users", "add", "1"]);
    assert_eq!(folder.json(&["users", "show", "1"])["username"], "alice");
    assert_eq!(folder.json(&["users", "show", "2"])["username"], "1");
    folder.sql("INSERT INTO users(passkey, username) VALUES ('another_passkey', 'alice')");
    let error = folder.fails(1, &["users", "show", "alice"]);
    assert!(error.contains("1, 3"), "{error}");
    assert!(
        folder
            .fails(1, &["users", "show", "bob"])
            .contains("no user bob")
    );
}

#[test]
fn users_are_disabled_enabled_and_given_new_passkeys() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    folder.ok(&["users", "disable", "alice"]);
    assert_eq!(folder.json(&["users", "show", "1"])["enabled"], false);
    assert_eq!(folder.json(&["users", "enable", "alice"])["enabled"], true);
    assert_eq!(folder.json(&["users", "show", "1"])["enabled"], true);
    let passkey = folder.ok(&["users", "passkey", "alice"]);
    assert_eq!(
        folder.json(&["users", "show", "1"])["passkey"],
        passkey.trim()
    );
    assert_ne!(passkey.trim(), "alices_passkey");
}

#[test]
fn users_that_can_not_be_are_refused() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    folder.fails(1, &["users", "add", "alice"]);
    folder.fails(1, &["users", "add", "bob", "--passkey", "alices_passkey"]);
    folder.fails(2, &["users", "add", "bob", "--passkey", "short"]);
    folder.fails(2, &["users", "add", ""]);
    folder.fails(2, &["users", "add", "evil\x1b[31m"]);
    folder.fails(2, &["users", "add", &"x".repeat(256)]);
    assert_eq!(folder.json(&["users", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn lists_are_sorted_and_streamed_and_show_no_terminal_escapes() {
    let folder = Folder::new();
    folder.ok(&["migrate"]);
    folder.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO users(passkey, username, uploaded)
         SELECT printf('passkey%d', i), 'user' || i || char(27) || '[31m', i * 1073741824 FROM n",
    );
    let text = folder.ok(&["users", "list"]);
    assert_eq!(text.lines().count(), 2501);
    assert!(!text.contains('\x1b') && text.contains("user1\\u{1b}[31m"));
    let first = folder.ok(&["users", "list", "-s", "uploaded"]);
    assert!(first.lines().nth(1).unwrap().contains("2500.00 GiB") || first.contains("2.44 TiB"));
    let all = folder.json(&["users", "list", "-s", "uploaded"]);
    assert_eq!(all.as_array().unwrap().len(), 2500);
    assert_eq!(all[0]["id"], 2500);
    assert_eq!(all[0]["username"], "user2500\x1b[31m");
    folder.fails(2, &["users", "list", "-s", "colour"]);
}

// --- torrents ---

#[test]
fn torrents_are_added_shown_disabled_with_a_reason_and_enabled() {
    let folder = Folder::new();
    folder.ok(&["torrents", "add", HASH, "--name", "Debian 12"]);
    folder.ok(&["torrents", "disable", HASH, "not here"]);
    let shown = folder.json(&["torrents", "show", &HASH.to_uppercase()]);
    assert_eq!(shown["info_hash"], HASH);
    assert_eq!(shown["name"], "Debian 12");
    assert_eq!(
        (&shown["enabled"], &shown["reason"]),
        (&json!(false), &json!("not here"))
    );
    folder.ok(&["torrents", "enable", HASH]);
    let shown = folder.json(&["torrents", "list"]);
    assert_eq!(
        (&shown[0]["enabled"], &shown[0]["reason"]),
        (&json!(true), &json!(null))
    );

    folder.fails(1, &["torrents", "add", HASH, "--name", "again"]);
    folder.fails(2, &["torrents", "add", "0025", "--name", "short"]);
    folder.fails(1, &["torrents", "show", &HASH.replace("00", "ff")]);
    folder.fails(1, &["torrents", "disable", &HASH.replace("00", "ff")]);
    folder.fails(2, &["torrents", "disable", HASH, &"x".repeat(256)]);
}

#[test]
fn import_takes_every_kind_of_torrent_and_names_the_bad_ones() {
    const PIECES: &str = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";
    let folder = Folder::with_config(&json!({"mode": "private"}));
    let v1 = format!("d6:lengthi5e4:name2:v112:piece lengthi16384e{PIECES}7:privatei1ee");
    let v2 = "d9:file treede12:meta versioni2e4:name2:v2e".to_owned();
    let hybrid = format!("d9:file treede12:meta versioni2e4:name6:hybrid{PIECES}e");
    let unsorted = format!("d{PIECES}4:name8:unsortede");
    for (name, info) in [
        ("v1.torrent", &v1),
        ("sub/v2.torrent", &v2),
        ("sub/deep/hybrid.TORRENT", &hybrid),
        ("unsorted.torrent", &unsorted),
        ("copy-of-v1.torrent", &v1),
    ] {
        folder.write(&format!("t/{name}"), format!("d4:info{info}e").as_bytes());
    }
    folder.write(
        "t/corrupt.torrent",
        format!("d4:info{}", &v1[..40]).as_bytes(),
    );
    folder.write("t/not-a-torrent.txt", b"");
    symlink("..", folder.path("t/sub/circle")).unwrap();

    let outcome = folder.run(&["torrents", "import", "t"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert_eq!(outcome.stdout, "4 added, 1 known already, 1 refused\n");
    assert!(
        outcome.stderr.contains("t/corrupt.torrent: "),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("3 of them lack private=1"),
        "{outcome:?}"
    );

    let sha1 = |info: &str| info_hash(&Sha1::digest(info));
    let sha256 = |info: &str| info_hash(&Sha256::digest(info));
    for (hash, name, second) in [
        (sha1(&v1), "v1", None),
        (sha256(&v2), "v2", None),
        (sha1(&hybrid), "hybrid", Some(sha256(&hybrid))),
        (sha1(&unsorted), "unsorted", None),
    ] {
        let shown = folder.json(&["torrents", "show", &hash]);
        assert_eq!(shown["name"], name);
        assert_eq!(shown["info_hash_v2"], json!(second));
    }
    fs::remove_file(folder.path("t/corrupt.torrent")).unwrap();
    let again = folder.json(&["torrents", "import", "t"]);
    assert_eq!(
        again,
        json!({"added": 0, "known": 5, "refused": [], "not_private": 0})
    );
    folder.fails(1, &["torrents", "import", "nowhere.torrent"]);
}

// --- whitelist ---

#[test]
fn the_whitelist_survives_its_own_export_and_import() {
    let folder = Folder::new();
    folder.ok(&["whitelist", "add", "-TR", "Transmission"]);
    folder.ok(&["whitelist", "add", "-qB4500-", "qBittorrent 4.5"]);
    folder.ok(&["whitelist", "add", "-TR", "Transmission BT"]);
    let exported = folder.ok(&["whitelist", "export"]);
    assert_eq!(
        exported,
        "-TR\tTransmission BT\n-qB4500-\tqBittorrent 4.5\n"
    );
    folder.ok(&["whitelist", "remove", "-TR"]);
    folder.fails(1, &["whitelist", "remove", "-TR"]);

    let outcome = folder.run_with_stdin(&["whitelist", "import", "-"], &exported);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(folder.ok(&["whitelist", "export"]), exported);
    let expected = json!([
        {"prefix": "-TR", "client": "Transmission BT"},
        {"prefix": "-qB4500-", "client": "qBittorrent 4.5"},
    ]);
    assert_eq!(folder.json(&["whitelist", "list"]), expected);
}

#[test]
fn a_list_with_a_bad_line_changes_nothing() {
    let folder = Folder::new();
    folder.write(
        "list",
        b"# ours\n\n-TR\tTransmission\nno tab here\n-prefix-longer-than-20\tX\n",
    );
    let error = folder.fails(1, &["whitelist", "import", "list"]);
    assert!(
        error.contains("list:4: ") && error.contains("list:5: "),
        "{error}"
    );
    assert_eq!(folder.json(&["whitelist", "list"]), json!([]));
    folder.fails(2, &["whitelist", "add", "", "nobody"]);
}

// --- tables, config ---

#[test]
fn migrate_says_what_it_did() {
    let folder = Folder::new();
    assert_eq!(folder.json(&["migrate", "--status"])[0]["applied"], false);
    assert!(folder.ok(&["migrate"]).starts_with("applied 0001_"));
    assert_eq!(folder.ok(&["migrate"]), "up to date\n");
    assert_eq!(folder.json(&["migrate"]), json!({"applied": []}));
    assert_eq!(folder.json(&["migrate", "--status"])[0]["applied"], true);
}

#[test]
fn wrong_arguments_and_configs_exit_with_2() {
    let folder = Folder::with_config(&json!({"storage": {"driver": "oracle"}}));
    folder.fails(2, &["users", "lits"]);
    let error = folder.fails(2, &["users", "list"]);
    assert!(
        error.contains("oracle") && error.contains("sqlite"),
        "{error}"
    );
    for config in ["-c", "--config", "-config"] {
        let error = folder.fails(2, &[config, "nowhere.json", "users", "list"]);
        assert!(error.contains("nowhere.json"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn looking_makes_no_database() {
    let folder = Folder::new();
    let said = folder.ok(&["check"]);
    assert!(said.contains("made at the first use"), "{said}");
    assert!(folder.ok(&["migrate", "--status"]).contains("0001_init"));
    assert!(!folder.path("mika.db").exists());
}

#[test]
fn a_passkey_that_is_none_is_not_shown() {
    let folder = Folder::new();
    let said = folder.fails(2, &["users", "add", "bob", "--passkey", "my secret"]);
    assert!(
        said.contains("8 to 64") && !said.contains("secret"),
        "{said}"
    );
}

#[test]
fn check_says_what_is_wrong_and_how_to_mend_it() {
    let folder = Folder::with_config(&json!({"mode": "private"}));
    folder.ok(&["migrate"]);
    let outcome = folder.run(&["check"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    let problems = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("problem"))
            .count()
    };
    assert_eq!(problems(&outcome.stdout), 1, "{outcome:?}");
    assert!(
        outcome.stdout.contains("→ mika-manage whitelist add"),
        "{outcome:?}"
    );
    folder.ok(&["whitelist", "add", "-TR", "Transmission"]);
    folder.ok(&["genkey"]);
    assert_eq!(problems(&folder.ok(&["check"])), 0);

    fs::copy(folder.path("key_priv"), folder.path("old")).unwrap();
    folder.ok(&["genkey", "--force"]);
    fs::rename(folder.path("old"), folder.path("key_priv")).unwrap();
    let outcome = folder.run(&["check", "--json"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    let tried: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let bad: Vec<&Value> = tried
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["ok"] == false)
        .collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0]["what"], "api.tls");

    let outcome = folder.run(&["-c", "nowhere.json", "check"]);
    assert_eq!(
        (outcome.status, problems(&outcome.stdout)),
        (1, 1),
        "{outcome:?}"
    );
}

// --- keys ---

#[test]
fn genkey_makes_a_pair_that_clients_trust_by_every_name() {
    let folder = Folder::new();
    let text = folder.ok(&[
        "genkey",
        "--san",
        "tracker.example.org",
        "--san",
        "192.0.2.7",
    ]);
    assert!(text.starts_with("> Generating new keys...\n"), "{text}");
    let mode = fs::metadata(folder.path("key_priv"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let cert = CertificateDer::from_pem_file(folder.path("key_ca")).unwrap();
    let digest = Sha256::digest(&cert);
    let fingerprint: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    assert!(text.contains(&fingerprint.join(":")), "{text}");
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "tracker.example.org",
        "192.0.2.7",
    ] {
        assert!(handshakes(&folder, &cert, name), "{name}");
    }
    assert!(!handshakes(&folder, &cert, "other.example.org"));
}

#[test]
fn a_key_that_is_there_is_kept_unless_forced() {
    let folder = Folder::new();
    folder.ok(&["genkey"]);
    let key = fs::read(folder.path("key_priv")).unwrap();
    assert!(folder.fails(1, &["genkey"]).contains("--force"));
    assert_eq!(fs::read(folder.path("key_priv")).unwrap(), key);
    let made = folder.json(&["genkey", "--force", "--days", "30"]);
    assert_ne!(fs::read(folder.path("key_priv")).unwrap(), key);
    assert_eq!(made["key"], "key_priv");
    let left: Vec<_> = fs::read_dir(folder.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "temporary files are left: {left:?}");
    folder.fails(2, &["genkey", "--force", "--days", "0"]);
    folder.fails(2, &["genkey", "--force", "--san", "a b"]);
}

#[test]
fn genkey_leaves_nothing_behind_where_it_can_not_write_both() {
    let tls = json!({"key": "nowhere/key", "cert": "cert"});
    let folder = Folder::with_config(&json!({"api": {"tls": tls}}));
    assert!(folder.fails(1, &["genkey"]).contains("nowhere/key"));
    assert_eq!(fs::read_dir(folder.dir.path()).unwrap().count(), 1);
}

// --- the shell ---

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new();
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["--help"],
        &["users", "list"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = folder
            .command(arguments)
            .stdout(writer)
            .stderr(Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = folder.command(&["man"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn every_command_is_in_help_manual_and_completions() {
    let folder = Folder::new();
    let help = folder.ok(&["--help"]);
    let manual = folder.ok(&["man"]);
    let completions = folder.ok(&["completions", "bash"]);
    for command in [
        "users",
        "torrents",
        "whitelist",
        "migrate",
        "check",
        "genkey",
    ] {
        assert!(
            help.contains(command) && manual.contains(command),
            "{command}"
        );
        assert!(completions.contains(command), "{command}");
    }
    assert!(manual.contains("torrents import PATH"), "{manual}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(!folder.ok(&["completions", shell]).is_empty());
    }
    folder.fails(2, &["completions", "cmd"]);
}

/// The first 20 bytes of a digest as an info hash is written.
fn info_hash(digest: &[u8]) -> String {
    InfoHash::from_slice(&digest[..20]).unwrap().to_string()
}

/// Whether a client that trusts `cert` alone meets a server with the pair of the folder as `name`.
fn handshakes(folder: &Folder, cert: &CertificateDer<'static>, name: &str) -> bool {
    let key = PrivateKeyDer::from_pem_file(folder.path("key_priv")).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();

    while client.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}
