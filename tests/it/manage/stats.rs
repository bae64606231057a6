//! `stats` and `top`: the running daemon through its API.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

use super::{Folder, HASH};
use crate::harness::{Mika, PROGRAM_DEADLINE, free_port, http, poll};

const PASSWORD: &str = "a password";
const TOKEN: &str = "only-to-look-at-things";

/// A public tracker with an API and one peer.
fn tracker() -> (Mika, SocketAddr) {
    let api = free_port();
    let tokens = json!([{ "name": "wall", "token": TOKEN, "scope": "read" }]);
    let mut mika = Mika::prepare(&json!({
        "mode": "public",
        "api": { "listen": [api], "username": "ops", "password": PASSWORD, "tokens": tokens },
    }));
    mika.managed(&["genkey"]);
    mika.run();
    poll(PROGRAM_DEADLINE, "the API accepts", || {
        TcpStream::connect(api).is_ok()
    });
    let hash = http::escape(&HASH.parse::<mika::base::ids::InfoHash>().unwrap().0);
    let target = format!(
        "/announce?info_hash={hash}&peer_id=-TR4050-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=0&event=started"
    );
    assert_eq!(http::get(mika.http(), &target).failure(), None);
    (mika, api)
}

/// `mika-manage` beside the tracker, with other variables of the environment.
fn manage(mika: &Mika, variables: &[(&str, &str)], arguments: &[&str]) -> super::Outcome {
    let mut command = mika.command(env!("CARGO_BIN_EXE_mika-manage"));
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).output().unwrap().into()
}

#[test]
fn stats_show_what_the_daemon_did() {
    let (mika, api) = tracker();
    let text = mika.managed(&["stats"]);
    for line in [
        "announces     1 (HTTP 1, HTTPS 0, UDP 0)",
        "IPv4: 1 (1 seeders, 0 leechers, 0 paused)",
        "storage (sqlite): up",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let document: Value = serde_json::from_str(&mika.managed(&["--json", "stats"])).unwrap();
    assert_eq!(document["announces"]["http"], 1);
    assert_eq!(document["busiest"][0]["info_hash"], HASH);
    // Another login, and another way to the same daemon.
    let url = format!("https://{api}");
    for (variables, login) in [
        (&[("MIKA_API_TOKEN", TOKEN)][..], &[][..]),
        (
            &[("MIKA_API_PASSWORD", PASSWORD)][..],
            &["--username", "ops"][..],
        ),
    ] {
        let arguments = [
            &[
                "--config",
                "config.json",
                "stats",
                "--url",
                &url,
                "--cert",
                "key_ca",
            ],
            login,
        ]
        .concat();
        let outcome = manage(&mika, variables, &arguments);
        assert_eq!(outcome.status, 0, "{outcome:?}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let (mika, api) = tracker();
    let fails = |status: i32, variables: &[(&str, &str)], arguments: &[&str], parts: &[&str]| {
        let outcome = manage(
            &mika,
            variables,
            &[&["--config", "config.json"], arguments].concat(),
        );
        assert_eq!(outcome.status, status, "{outcome:?}");
        for part in parts {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
        }
        for secret in [PASSWORD, TOKEN, "hunter22"] {
            assert!(!outcome.stderr.contains(secret), "{outcome:?}");
        }
    };
    let address = api.to_string();
    let wrong = [("MIKA_API_PASSWORD", "hunter22")];
    fails(
        1,
        &wrong,
        &["stats"],
        &[&address, "refuses the login", "api.password"],
    );
    let wrong = [("MIKA_API_TOKEN", "hunter22")];
    fails(1, &wrong, &["stats"], &[&address, "MIKA_API_TOKEN"]);
    let unreachable = format!("https://{}", free_port());
    fails(
        1,
        &[],
        &["stats", "--url", &unreachable],
        &["no connection", &unreachable[8..]],
    );
    fails(
        2,
        &[],
        &["stats", "--url", "http://127.0.0.1:1"],
        &["expected https://host:port"],
    );
    fails(
        1,
        &[],
        &["stats", "--cert", "no-such-file"],
        &["no-such-file", "genkey"],
    );
    let other = Folder::new();
    other.ok(&["genkey"]);
    let cert = other.path("key_ca");
    let cert = cert.to_str().unwrap();
    fails(
        1,
        &[],
        &["stats", "--cert", cert],
        &[cert, "its certificate differs"],
    );
    fails(2, &[], &["top"], &["mika-manage stats"]);
    fails(2, &[], &["top", "--interval", "1ms"], &["200ms"]);
    let none = Folder::with_config(&json!({ "api": { "listen": [] } }));
    assert!(none.fails(2, &["stats"]).contains("api.listen"));
}

#[test]
fn top_draws_on_a_terminal_and_restores_it() {
    let (mika, _) = tracker();
    let mut terminal = Pty::open();
    let mut top = top(&mika, &terminal);
    terminal.read_until("all is well");
    terminal.read_until("Announces a second");
    kill_process(Pid::from_child(&top), Signal::TERM).unwrap();
    terminal.read_until(LEAVE);
    assert_eq!(end(&mut top), Some(0));

    let mut top = self::top(&mika, &terminal);
    terminal.read_until("Announces a second");
    terminal.write("?");
    terminal.read_until("any key closes it");
    terminal.write("?");
    // The tracker stops: top stays, and shows it.
    mika.signal(Signal::KILL);
    terminal.read_until("no contact");
    terminal.write("q");
    terminal.read_until(LEAVE);
    assert_eq!(end(&mut top), Some(0));
}

/// What gives a terminal back the screen that it had.
const LEAVE: &str = "\x1b[?1049l";

/// `top` in a session of its own, which that terminal controls.
fn top(mika: &Mika, terminal: &Pty) -> Child {
    let mut command = mika.command("setsid");
    let program = env!("CARGO_BIN_EXE_mika-manage");
    command.args(["--ctty", program, "--config", "config.json"]);
    command.args(["top", "--interval", "200ms"]);
    terminal.attach(command).spawn().unwrap()
}

/// The exit code, once it has ended.
fn end(child: &mut Child) -> Option<i32> {
    let mut status = None;
    poll(PROGRAM_DEADLINE, "top ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// A terminal of 80 columns and 24 lines, and what was written on it.
struct Pty {
    ours: File,
    path: std::path::PathBuf,
    seen: Vec<u8>,
}

// === impl Pty ===

impl Pty {
    fn open() -> Self {
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&ours, size).unwrap();
        let path = ptsname(&ours, Vec::new())
            .unwrap()
            .into_string()
            .unwrap()
            .into();
        // A read that finds nothing comes back, so that there is a deadline.
        rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK).unwrap();
        Self {
            ours: ours.into(),
            path,
            seen: Vec::new(),
        }
    }

    fn attach(&self, mut command: Command) -> Command {
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        command
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs);
        command
    }

    fn write(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text has been written after those that were waited for before.
    fn read_until(&mut self, text: &str) {
        poll(PROGRAM_DEADLINE, text, || {
            let mut chunk = [0; 4096];
            match self.ours.read(&mut chunk) {
                Ok(length) => self.seen.extend_from_slice(&chunk[..length]),
                // The other end has no reader or nothing to say.
                Err(error) => assert!(
                    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(5),
                    "{error}"
                ),
            }
            let at = self
                .seen
                .windows(text.len())
                .position(|bytes| bytes == text.as_bytes());
            if let Some(at) = at {
                self.seen.drain(..at + text.len());
            }
            at.is_some()
        });
    }
}
