//! Restarts in place (SIGUSR1), and sockets of the service manager: no announce is lost or refused.
//!
//! `MIKA_RESTARTS` is how often, `MIKA_NODES` how many nodes there are, `MIKA_LOAD` how many clients of each kind
//! announce to each. `scripts/restart-test` sets them.

#![allow(clippy::print_stderr)] // what was measured

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::api::Api;
use crate::harness::http::{Connection, get};
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::{Site, settles};
use crate::harness::steady::{KINDS, Steady, all_answered};
use crate::harness::udp::{Announce, Client};
use crate::harness::{Mika, PROGRAM_DEADLINE, number, poll};

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(40);

/// Load before, between and after restarts.
const BETWEEN: Duration = Duration::from_millis(500);

const TARGET: &str =
    "/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=-MK0001-000000000001&port=6881&left=0";

/// Signals that came before are handled after so long: many times what a restart takes.
const SETTLED: Duration = Duration::from_secs(2);

/// How often a daemon has begun to serve.
fn starts(mika: &Mika) -> usize {
    mika.log().matches("announce URL: http").count()
}

/// Restarts a daemon in place, and waits until it serves again.
fn restart(mika: &Mika) {
    let before = starts(mika);
    mika.signal(Signal::USR1);
    poll(PROGRAM_DEADLINE, "it serves again", || {
        starts(mika) > before
    });
}

#[test]
fn restarts_of_a_public_tracker_lose_no_announce() {
    let mut mika = Mika::prepare_udp(&["127.0.0.1"], &json!({ "mode": "public" }));
    mika.run();
    let pid = mika.pid();
    let load = Steady::start(&[mika.http()], number("MIKA_LOAD", 1) as usize, false);
    for _ in 0..number("MIKA_RESTARTS", 3) {
        thread::sleep(BETWEEN);
        restart(&mika);
    }
    thread::sleep(BETWEEN);
    eprint!("{}", all_answered(&load.stop()));
    assert_eq!(mika.pid(), pid);
    assert_eq!(mika.stop(), 0);
}

#[test]
fn restarts_of_nodes_in_turn_lose_no_announce_and_no_credit() {
    let (nodes, each) = (
        number("MIKA_NODES", 2) as usize,
        number("MIKA_LOAD", 1) as usize,
    );
    let udp =
        |name: usize| json!({ "node": format!("n{name}"), "udp": { "listen": ["127.0.0.1:0"] } });
    let clients = nodes * each * KINDS.len();
    let mut site = Site::prepare(clients, &AOF, &udp(0));
    let mut others: Vec<Mika> = (1..nodes).map(|name| site.another(&udp(name))).collect();
    for mika in others.iter_mut().chain([&mut site.mika]) {
        let udp = json!({ "udp": { "listen": [mika.http()] } });
        mika.reconfigure(&udp);
        mika.run();
    }
    let all = || others.iter().chain([&site.mika]);
    let trackers: Vec<_> = all().map(Mika::http).collect();
    let load = Steady::start(&trackers, each, true);
    for mika in all().cycle().take(number("MIKA_RESTARTS", 4) as usize) {
        thread::sleep(BETWEEN);
        restart(mika);
    }
    thread::sleep(BETWEEN);
    let tallies = load.stop();
    eprint!("{}", all_answered(&tallies));
    for tally in tallies {
        let sql = format!(
            "SELECT uploaded FROM users WHERE passkey = '{}'",
            passkey(tally.user)
        );
        let mut found = 0;
        let is_exact = settles(CREDITED, || {
            [found] = site.database.row(&sql);
            found.cast_unsigned() == tally.uploaded
        });
        assert!(is_exact, "{tally:?}: {found} in storage");
    }
    for mut mika in others {
        assert_eq!(mika.stop(), 0);
    }
    assert_eq!(site.mika.stop(), 0);
}

/// Signals that come while the next program is being executed must not end it.
#[test]
fn signals_in_quick_succession_do_no_harm() {
    let mut mika = Mika::prepare_udp(&["127.0.0.1"], &json!({ "mode": "public" }));
    mika.run();
    let load = Steady::start(&[mika.http()], 1, false);
    let before = starts(&mika);
    poll(PROGRAM_DEADLINE, "it has restarted several times", || {
        for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
            mika.signal(signal);
        }
        starts(&mika) > before + 3
    });
    poll(PROGRAM_DEADLINE, "it has settled", || {
        let before = starts(&mika);
        thread::sleep(SETTLED);
        starts(&mika) == before
    });
    eprint!("{}", all_answered(&load.stop()));
    assert_eq!(mika.stop(), 0);
}

#[test]
fn open_connections_go_on_in_the_next_process() {
    let mut mika = Mika::prepare(&json!({ "mode": "public" }));
    mika.run();
    let mut idle = Connection::open(mika.http()).expect("a connection");
    assert_eq!(idle.get(TARGET).expect("a reply").failure(), None);
    let mut halfway = Connection::open(mika.http()).expect("a connection");
    halfway
        .send(format!("GET {TARGET} HTTP/1.1\r\nHo").as_bytes())
        .expect("half a request");
    // It has arrived once a later connection is answered.
    get(mika.http(), TARGET);
    restart(&mika);
    halfway.send(b"st: x\r\n\r\n").expect("the rest");
    assert_eq!(halfway.receive().expect("a reply").failure(), None);
    for _ in 0..2 {
        let reply = idle.get(TARGET).expect("a reply");
        assert_eq!((reply.status, reply.failure()), (200, None));
    }
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_public_tracker_keeps_its_swarms() {
    let mut mika = Mika::prepare(&json!({ "mode": "public" }));
    mika.run();
    assert_eq!(get(mika.http(), TARGET).failure(), None);
    for restarts in 1..=2 {
        restart(&mika);
        assert!(
            mika.log()
                .contains("swarms taken over from the process before")
        );
        let other = TARGET.replace("6881", &format!("{}", 7000 + restarts));
        let other = other.replace("000001", &format!("00001{restarts}"));
        let reply = get(mika.http(), &format!("{other}&compact=1"));
        assert_eq!(reply.int("complete"), Some(1 + restarts), "{reply:?}");
    }
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_restart_with_an_invalid_config_does_not_take_place() {
    let mut mika = Mika::prepare(&json!({ "mode": "public" }));
    mika.run();
    let config = fs::read_to_string(mika.path("config.json")).expect("the config");
    fs::write(mika.path("config.json"), "{").expect("another one");
    mika.signal(Signal::USR1);
    poll(PROGRAM_DEADLINE, "it says so", || {
        let log = mika.log();
        log.contains("not restarted") && log.contains("config.json: line 1")
    });
    assert!(mika.accepts());
    fs::write(mika.path("config.json"), config).expect("the first one");
    restart(&mika);
    assert_eq!(mika.stop(), 0);
}

/// A package replaces the program while it runs.
#[test]
fn a_restart_executes_the_program_on_disk() {
    let mut mika = Mika::prepare(&json!({ "mode": "public" }));
    let program = mika.path("mika");
    fs::copy(env!("CARGO_BIN_EXE_mika"), &program).expect("a copy");
    mika.use_program(program.clone());
    mika.run();
    let next = mika.path("next");
    let script = format!(
        "#!/bin/sh\necho the next version >&2\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_mika")
    );
    fs::write(&next, script).expect("a script");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).expect("it can be executed");
    fs::rename(&next, &program).expect("it takes the place of the program");
    let mut idle = Connection::open(mika.http()).expect("a connection");
    assert!(idle.get("/").is_ok());
    restart(&mika);
    assert!(mika.log().contains("the next version"));
    assert!(idle.get("/").is_ok());
    assert_eq!(mika.stop(), 0);
}

/// A TLS session can't be handed over, so each connection is closed by a reply that says so before.
#[test]
fn restarts_lose_no_announce_over_tls() {
    let mut mika = Mika::prepare(&json!({
        "mode": "public",
        "http": { "tls": { "key": "key_priv", "cert": "key_ca" } },
    }));
    mika.managed(&["genkey"]);
    mika.run();
    let client = Api::at(&mika, mika.http());
    let stop = AtomicBool::new(false);
    let announce_until_stopped = |keeps: bool| {
        let (mut answered, mut open) = (0, None);
        while !stop.load(Ordering::Relaxed) {
            let mut connection = open
                .take()
                .unwrap_or_else(|| client.connect().expect("TLS"));
            connection
                .request("GET", TARGET, "", &[], &[])
                .expect("a request");
            let answer = connection.answer().expect("an answer");
            assert!(answer.body.starts_with(b"d8:complete"), "{answer:?}");
            answered += 1;
            let closes =
                |(name, value): &(String, String)| name == "connection" && value == "close";
            if keeps && !answer.headers.iter().any(closes) {
                open = Some(connection);
            }
            thread::sleep(Duration::from_millis(5));
        }
        answered
    };
    thread::scope(|scope| {
        let clients = [true, false].map(|keeps| scope.spawn(move || announce_until_stopped(keeps)));
        for _ in 0..2 {
            thread::sleep(BETWEEN);
            restart(&mika);
        }
        thread::sleep(BETWEEN);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("each announce is answered") > 0);
        }
    });
    assert_eq!(mika.stop(), 0);
}

/// Starts a daemon as systemd starts one whose sockets it holds: they are descriptors 3 and up.
fn run_with(mika: &mut Mika, listener: &TcpListener, udp: &UdpSocket) {
    for socket in [listener.as_fd(), udp.as_fd()] {
        fcntl_setfd(socket, FdFlags::empty()).expect("it is inherited");
    }
    let script = format!(
        "#!/bin/bash\nexec 3<&{}- 4<&{}-\nexport LISTEN_FDS=2 LISTEN_PID=$$\nexec {} \"$@\"\n",
        listener.as_raw_fd(),
        udp.as_raw_fd(),
        env!("CARGO_BIN_EXE_mika")
    );
    let path = mika.path("activated");
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be executed");
    mika.use_program(path);
    let before = starts(mika);
    mika.launch();
    poll(PROGRAM_DEADLINE, "it serves", || starts(mika) > before);
    for socket in [listener.as_fd(), udp.as_fd()] {
        fcntl_setfd(socket, FdFlags::CLOEXEC).expect("others do not inherit it");
    }
}

#[test]
fn sockets_of_the_service_manager_keep_what_arrives_between_two_starts() {
    let mut mika = Mika::prepare_udp(&["127.0.0.1"], &json!({ "mode": "public" }));
    let listener = TcpListener::bind(mika.http()).expect("the port is free");
    let udp = UdpSocket::bind(mika.http()).expect("the port is free");
    run_with(&mut mika, &listener, &udp);
    let client = Client::new(mika.http());
    let id = client.connect();
    assert_eq!(get(mika.http(), TARGET).failure(), None);
    assert_eq!(mika.stop(), 0);

    client.send(&Announce::new(id, *b"aaaaaaaaaaaaaaaaaaaa").packet());
    let mut connection = Connection::open(mika.http()).expect("the kernel accepts");
    let request = format!("GET {TARGET} HTTP/1.1\r\nHost: x\r\n\r\n");
    connection.send(request.as_bytes()).expect("it takes it");
    run_with(&mut mika, &listener, &udp);
    assert_eq!(connection.receive().expect("a reply").failure(), None);
    assert!(client.receive().is_ok(), "the packet was answered");

    // A restart in place has them, too.
    restart(&mika);
    assert_eq!(connection.get(TARGET).expect("a reply").failure(), None);
    client.announce(&Announce::new(id, *b"aaaaaaaaaaaaaaaaaaaa"));
    assert_eq!(mika.stop(), 0);
}

#[test]
fn an_inherited_socket_that_the_config_does_not_have_is_closed() {
    let mut mika = Mika::prepare(&json!({ "mode": "public" }));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    run_with(&mut mika, &listener, &udp);
    let log = mika.log();
    assert_eq!(
        log.matches("closed an inherited socket").count(),
        2,
        "{log}"
    );
    assert!(mika.accepts());
    assert_eq!(mika.stop(), 0);
}
