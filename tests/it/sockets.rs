//! Starts on hosts without IPv6 or IPv4, or with ports in use.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::net::{Network, command_in};
use crate::harness::{Mika, poll};
use serde_json::json;
use socket2::{Domain, SockRef, Socket, Type};

const DEADLINE: Duration = Duration::from_secs(30);

/// A connection that this host has made itself, from a port that a tracker is to listen on.
struct Outgoing {
    stream: TcpStream,
    _peer: TcpListener,
}

// === impl Outgoing ===

impl Outgoing {
    /// From a port that the system chooses, at a loopback address that no connection of another test has: it could
    /// take the port over.
    fn new() -> Self {
        let peer = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = peer.local_addr().expect("its address");
        let from: SocketAddr = "127.66.0.1:0".parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&from.into()).expect("a free port");
        socket.connect(&to.into()).expect("a connection");
        Self {
            stream: socket.into(),
            _peer: peer,
        }
    }

    fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("its address")
    }

    /// Ends it without leaving anything behind.
    fn reset(self) {
        let socket = SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }
}

#[test]
fn a_host_without_ipv6_does_with_ipv4() {
    let mut network = Network::new();
    let host = network.host();
    host.disable_ipv6();
    let http: SocketAddr = "127.0.0.1:34000".parse().expect("an address");
    let mut mika = Mika::prepare_in(
        &host,
        http,
        &json!({
            "http": { "listen": ["[::1]:34000", "127.0.0.1:34000", "0.0.0.0:34002", "[::]:34002"] },
            "udp": { "listen": ["127.0.0.1:34000", "[::1]:34000"] },
        }),
    );
    mika.launch();
    poll(DEADLINE, "it serves", || mika.accepts());
    let log = mika.log();
    for listed in ["http.listen", "udp.listen"] {
        let left_out =
            |line: &&str| line.contains("this host has no IPv6") && line.contains(listed);
        assert_eq!(log.lines().filter(left_out).count(), 1, "{listed}: {log}");
    }
    assert_eq!(mika.stop(), 0);
    let checked = check(&mika);
    assert!(
        checked.contains("note     http.listen: [::1]:34000: this host has no IPv6"),
        "{checked}"
    );
    assert!(!checked.contains("problem"), "{checked}");

    // No client would be served with only IPv6 configured.
    mika.reconfigure(&json!({ "udp": { "listen": ["[::1]:34000"] } }));
    mika.launch();
    assert_eq!(mika.wait(DEADLINE), 1);
    let log = mika.log();
    let line =
        "can't listen on [::1]:34000: this host has no IPv6: take [::1]:34000 out of udp.listen";
    assert!(log.contains(line), "{log}");
    let checked = check(&mika);
    let problem = "problem  udp.listen: [::1]:34000: this host has no IPv6 → take [::1]:34000 out of udp.listen";
    assert!(checked.contains(problem), "{checked}");
}

/// The output of `mika-manage check`.
fn check(mika: &Mika) -> String {
    String::from_utf8_lossy(&mika.manage(&["check"]).stdout).into_owned()
}

#[test]
fn check_covers_ports_and_file_limits() {
    let mut network = Network::new();
    let host = network.host();
    let sysctl = |setting: &str| {
        let status = command_in(&host.namespace, "sysctl")
            .args(["-qw", setting])
            .status();
        assert!(status.expect("sysctl starts").success(), "{setting}");
    };
    sysctl("net.ipv4.ip_local_port_range=32768 60999");
    let http: SocketAddr = "127.0.0.1:34000".parse().expect("an address");
    let mika = Mika::prepare_in(
        &host,
        http,
        &json!({ "udp": { "listen": ["127.0.0.1:6969"] } }),
    );
    let checked = check(&mika);
    assert!(
        checked.contains("note     ports: outgoing connections"),
        "{checked}"
    );
    assert!(
        checked.contains("add 34000 to the sysctl net.ipv4.ip_local_reserved_ports"),
        "{checked}"
    );
    sysctl("net.ipv4.ip_local_reserved_ports=34000-34001");
    let checked = check(&mika);
    assert!(checked.contains("ok       ports: "), "{checked}");

    let output = mika
        .command("prlimit")
        .args([
            "--nofile=1000",
            env!("CARGO_BIN_EXE_mika-manage"),
            "-c",
            "config.json",
            "check",
        ])
        .output()
        .expect("prlimit starts");
    let checked = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        checked.contains("problem  files: 1000 files may be open"),
        "{checked}"
    );
    assert!(
        checked.contains("http.max_connections (16384) needs 16896"),
        "{checked}"
    );
}

#[test]
fn a_port_of_an_outgoing_connection_is_retried() {
    let outgoing = Outgoing::new();
    let address = outgoing.address();
    let mut mika = Mika::prepare_on(address, &json!({ "mode": "public" }));
    mika.launch();
    poll(DEADLINE, "it tries again", || {
        mika.log().contains("trying again")
    });
    outgoing.reset();
    poll(DEADLINE, "it serves", || mika.accepts());
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_port_of_an_outgoing_connection_is_explained() {
    let outgoing = Outgoing::new();
    let address = outgoing.address();
    let mut mika = Mika::prepare_on(address, &json!({ "mode": "public" }));
    mika.launch();
    assert_eq!(mika.wait(DEADLINE), 1);
    let log = mika.log();
    let advice = format!("net.ipv4.ip_local_reserved_ports={}", address.port());
    assert!(
        log.contains(&advice) && log.contains("http.listen"),
        "{log}"
    );
    assert!(!log.contains("another program"), "{log}");
}

#[test]
fn a_port_of_another_program_fails_at_once() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("its address");
    let mut mika = Mika::prepare_on(address, &json!({ "mode": "public" }));
    mika.launch();
    assert_eq!(mika.wait(DEADLINE), 1);
    let log = mika.log();
    assert!(log.contains("another program listens there"), "{log}");
    assert!(
        log.contains("http.listen") && !log.contains("trying again"),
        "{log}"
    );
}
