//! Notifications to the service manager: the start, what it waits for, reloads, the stop, and that the
//! tracker works, as long as it does. The manager here is a datagram socket.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::harness::{Mika, PROGRAM_DEADLINE, free_port, now, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use socket2::SockRef;

/// How long silence lasts at least before it means something.
const SILENCE: Duration = Duration::from_secs(3);

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    received: Vec<String>,
}

// === impl Manager ===

impl Manager {
    /// Listens at a path that the daemon gets.
    fn of(mika: &mut Mika) -> Self {
        let path = mika.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        mika.set_variable("NOTIFY_SOCKET", path.to_str().expect("UTF-8"));
        Self {
            socket,
            received: Vec::new(),
        }
    }

    /// Takes what has come; whether there was anything.
    fn listen(&mut self) -> bool {
        let mut message = [0; 4096];
        match self.socket.recv(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                self.received.push(text);
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Listens until one message has all these lines; all that came until then.
    fn wait_for(&mut self, lines: &[&str]) -> Vec<String> {
        let mut number = None;
        poll(
            PROGRAM_DEADLINE,
            &format!("a message with {lines:?}"),
            || {
                self.listen();
                number = self.received.iter().position(|message| {
                    let given: Vec<&str> = message.lines().collect();
                    lines.iter().all(|line| given.contains(line))
                });
                number.is_some()
            },
        );
        self.received.drain(..=number.expect("found")).collect()
    }

    /// Listens for so long.
    fn listen_for(&mut self, time: Duration) -> Vec<String> {
        let start = now();
        while start.elapsed() < time {
            self.listen();
        }
        std::mem::take(&mut self.received)
    }
}

fn count(messages: &[String], line: &str) -> usize {
    let lines = messages.iter().flat_map(|message| message.lines());
    lines.filter(|it| *it == line).count()
}

#[test]
fn the_service_manager_is_notified_of_start_reload_and_stop() {
    let mut mika = Mika::prepare(&json!({ "log": { "stats_interval": "0s" } }));
    let mut manager = Manager::of(&mut mika);
    mika.run();
    let start = manager.wait_for(&["READY=1", "STATUS=serving 1 listener"]);
    assert_eq!(count(&start, "STOPPING=1"), 0);

    mika.signal(Signal::USR2);
    let reloading = manager.wait_for(&["RELOADING=1", "STATUS=reloading"]);
    let message = reloading.last().expect("the message");
    let since = message
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let since: u64 = since.expect("a time").parse().expect("a number");
    let uptime = fs::read_to_string("/proc/uptime").expect("the uptime");
    let uptime: f64 = uptime
        .split(' ')
        .next()
        .expect("two")
        .parse()
        .expect("a number");
    assert!(
        (since as f64 / 1e6 - uptime).abs() < 60.0,
        "{since} {uptime}"
    );
    manager.wait_for(&["READY=1", "STATUS=serving 1 listener"]);

    // A wrong config ends the reload too, and the manager shows why.
    fs::write(mika.path("config.json"), "{").expect("a bad config");
    mika.signal(Signal::HUP);
    manager.wait_for(&["RELOADING=1"]);
    let ended = manager.wait_for(&["READY=1"]);
    let status = ended.last().expect("the message");
    assert!(
        status.contains("STATUS=not reloaded: config.json: line 1"),
        "{status}"
    );

    mika.signal(Signal::TERM);
    manager.wait_for(&["STOPPING=1"]);
    assert_eq!(mika.wait(PROGRAM_DEADLINE), 0);
    // It had not asked to be watched.
    assert_eq!(count(&manager.listen_for(Duration::ZERO), "WATCHDOG=1"), 0);
}

#[test]
fn the_status_has_listeners_and_rates() {
    let mut mika = Mika::prepare_udp(
        &["127.0.0.1"],
        &json!({ "log": { "stats_interval": "100ms" } }),
    );
    let mut manager = Manager::of(&mut mika);
    mika.run();
    manager.wait_for(&["READY=1", "STATUS=serving 2 listeners"]);
    manager.wait_for(&["STATUS=serving 2 listeners: 0 announces/s, 0 swarms, 0 peers"]);
}

/// A start that has to wait reports for what and extends its timeout.
#[test]
fn a_waiting_start_reports_what_it_waits_for() {
    let away = free_port();
    let mut mika = Mika::prepare(&json!({
        "mode": "private",
        "storage": { "driver": "mysql", "url": format!("mysql://mika:hunter2@{away}/mika") },
    }));
    let mut manager = Manager::of(&mut mika);
    mika.launch();
    let mut waiting = Vec::new();
    poll(PROGRAM_DEADLINE, "it says for what", || {
        manager.listen();
        waiting.clone_from(&manager.received);
        waiting
            .iter()
            .any(|it| it.starts_with("STATUS=waiting for storage mysql://mika:***@"))
    });
    manager.wait_for(&["EXTEND_TIMEOUT_USEC=20000000"]);
    assert_eq!(count(&waiting, "READY=1"), 0);
    assert!(!waiting.concat().contains("hunter2"), "{waiting:?}");
    assert_eq!(mika.stop(), 0);
}

/// The watchdog is notified at half of its time, and no longer once a worker hangs: here in
/// writing a line of log to a full pipe. When it goes on, it notifies again.
#[test]
fn a_hanging_worker_stops_the_watchdog_notifications() {
    let mut mika = Mika::prepare(&json!({ "log": { "level": "trace", "stats_interval": "0s" } }));
    let mut manager = Manager::of(&mut mika);
    mika.set_variable("WATCHDOG_USEC", "1000000");
    let mut process = mika
        .command(env!("CARGO_BIN_EXE_mika"))
        .args(["--config", "config.json", "--procs", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("mika starts");
    let mut log = process.stderr.take().expect("a pipe");
    manager.wait_for(&["READY=1"]);
    let second = manager.listen_for(Duration::from_secs(4));
    let alive = count(&second, "WATCHDOG=1");
    assert!((5..=9).contains(&alive), "{alive} times in 4 s");

    // Each of these leaves a line, of which the pipe takes less than a thousand.
    for _ in 0..2000 {
        break_off(&mika);
    }
    poll(PROGRAM_DEADLINE, "it is not called alive any more", || {
        manager.listen_for(SILENCE).is_empty()
    });
    let drain = thread::spawn(move || io::copy(&mut log, &mut io::sink()));
    manager.wait_for(&["WATCHDOG=1"]);
    kill_process(Pid::from_child(&process), Signal::TERM).expect("mika runs");
    assert!(process.wait().expect("it ends").success());
    drain.join().expect("a thread").expect("all that was said");
}

/// Begins a request and resets the connection.
fn break_off(mika: &Mika) {
    let mut stream = TcpStream::connect(mika.http()).expect("the kernel takes it");
    stream.write_all(b"GET /").expect("a beginning");
    let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.expect("a reset at the end");
}
