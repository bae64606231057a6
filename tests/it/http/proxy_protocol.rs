//! Clients behind a balancer of TCP connections, which names them by the PROXY protocol: HAProxy, and bytes
//! that it would not send.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{a, talk};
use crate::harness::api::Api;
use crate::harness::http::{Connection, Reply, get};
use crate::harness::{Mika, PROGRAM_DEADLINE, free_port, poll};

/// Where clients connect from; the balancer connects from 127.0.0.1.
const CLIENT: &str = "127.0.0.9";

/// How long a header may take to arrive (rule H8), and some more.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running HAProxy, with a port for each way to send the header.
struct Balancer {
    process: Child,
    listen: Vec<SocketAddr>,
    _folder: TempDir,
}

// === impl Balancer ===

impl Balancer {
    /// In front of `server`, with these options of its `server` line.
    fn start(server: SocketAddr, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\n"
            .to_owned();
        let listen: Vec<SocketAddr> = options.iter().map(|_| free_port()).collect();
        for (number, (options, bind)) in options.iter().zip(&listen).enumerate() {
            writeln!(
                config,
                "listen tracker{number}\n  bind {bind}\n  server mika {server} {options}"
            )
            .expect("a String takes everything");
        }
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, config).expect("its config");
        let process = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy starts");
        let balancer = Self {
            process,
            listen,
            _folder: folder,
        };
        poll(PROGRAM_DEADLINE, "haproxy listens", || {
            let mut listen = balancer.listen.iter();
            listen.all(|address| TcpListener::bind(address).is_err())
        });
        balancer
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tracker(http: Value) -> Mika {
    let mut config = json!({ "mode": "public", "http": http });
    config["http"]["trusted_proxies"] = json!(["127.0.0.1/32"]);
    config["http"]["proxy_protocol"] = json!(true);
    Mika::prepare(&config)
}

/// A connection from the client's address.
fn from_client(to: SocketAddr) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::new(CLIENT.parse().expect("an address"), 0);
    socket.bind(&own.into()).expect("a free port");
    socket.connect(&to.into()).expect("it accepts");
    Connection::from_stream(TcpStream::from(socket)).expect("a connection")
}

/// The address that the tracker takes the client to have.
fn seen(reply: &Reply) -> IpAddr {
    let ip = reply
        .bytes("external ip")
        .expect("an answer to an announce");
    match ip.len() {
        4 => IpAddr::from(*ip.first_chunk::<4>().expect("4 bytes")),
        _ => IpAddr::from(*ip.first_chunk::<16>().expect("16 bytes")),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A request behind a header.
fn behind(header: &[u8]) -> Vec<u8> {
    [
        header,
        format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", a("")).as_bytes(),
    ]
    .concat()
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        rest,
    ]
    .concat()
}

#[test]
fn haproxy_names_the_client_in_either_version() {
    let mut mika = tracker(json!({}));
    mika.run();
    let options = [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ];
    let balancer = Balancer::start(mika.http(), &options);
    for (listen, options) in balancer.listen.iter().zip(options) {
        let mut connection = from_client(*listen);
        for _ in 0..2 {
            let reply = connection.get(&a("")).expect("a reply");
            assert_eq!(seen(&reply), ip(CLIENT), "{options}");
        }
    }
    // Not through the balancer, and not one.
    let mut direct = from_client(mika.http());
    assert_eq!(seen(&direct.get(&a("")).expect("a reply")), ip(CLIENT));
    assert_eq!(mika.stop(), 0);
}

#[test]
fn the_header_comes_before_tls() {
    let mut mika = tracker(json!({ "tls": { "key": "key_priv", "cert": "key_ca" } }));
    mika.managed(&["genkey"]);
    mika.run();
    let balancer = Balancer::start(mika.http(), &["send-proxy", "send-proxy-v2"]);
    for listen in &balancer.listen {
        let mut connection = Api::at(&mika, *listen).connect().expect("a handshake");
        for _ in 0..2 {
            let asked = connection.request("GET", &a(""), "", &[], &[]);
            asked.expect("it takes it");
            let answer = connection.answer().expect("an answer");
            assert!(answer.body.starts_with(b"d8:complete"), "{answer:?}");
        }
    }
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_trusted_proxy_has_to_send_a_header_and_others_must_not() {
    let mut mika = tracker(json!({}));
    mika.run();
    let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4];
    for (header, client) in [
        (
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            "192.0.2.1",
        ),
        (
            b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
            "2001:db8::1",
        ),
        (v2(0x21, 0x11, &v4), "192.0.2.1"),
        // Nobody is named.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
        (v2(0x21, 0x31, &[0; 216]), "127.0.0.1"),
    ] {
        let (replies, _) = talk(mika.http(), &behind(&header), 1);
        let shown = header.escape_ascii();
        assert_eq!(
            seen(replies.first().expect("a reply")),
            ip(client),
            "{shown}"
        );
        // In two pieces, of which the second comes later.
        let request = behind(&header);
        let mut connection = Connection::open(mika.http()).expect("a connection");
        connection.send(&request[..5]).expect("a beginning");
        let (other, _) = talk(mika.http(), &behind(b"PROXY UNKNOWN\r\n"), 1);
        assert_eq!(other.len(), 1, "the first waits");
        connection.send(&request[5..]).expect("the rest");
        assert_eq!(
            seen(&connection.receive().expect("a reply")),
            ip(client),
            "{shown}"
        );
    }
    for header in [
        &b""[..],
        b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n",
        &v2(0x21, 0x12, &v4),
    ] {
        let mut connection = Connection::open(mika.http()).expect("a connection");
        connection
            .send(&behind(header))
            .expect("the kernel takes it");
        assert!(connection.is_closed(), "{}", header.escape_ascii());
    }
    let log = mika.log();
    assert_eq!(
        log.matches("sends no valid PROXY header").count(),
        1,
        "{log}"
    );
    for header in [
        &b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n"[..],
        &v2(0x21, 0x11, &v4),
    ] {
        let mut connection = from_client(mika.http());
        connection
            .send(&behind(header))
            .expect("the kernel takes it");
        assert_eq!(connection.receive().expect("a refusal").status, 400);
    }
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_header_has_to_be_complete_in_time() {
    let mut mika = tracker(json!({}));
    mika.run();
    let mut silent = Connection::open(mika.http()).expect("a connection");
    let mut slow = Connection::open(mika.http()).expect("a connection");
    slow.send(b"PROXY TCP4").expect("a beginning");
    for connection in [&mut silent, &mut slow] {
        connection.wait_up_to(TIMEOUT).expect("a timeout");
        assert!(connection.is_closed());
    }
    assert_eq!(mika.stop(), 0);
}

#[test]
fn a_reload_turns_the_protocol_on() {
    let mut mika = Mika::start(&json!({
        "mode": "public",
        "http": { "trusted_proxies": ["127.0.0.1/32"] },
    }));
    assert_eq!(get(mika.http(), &a("")).failure(), None);
    mika.reconfigure(&json!({ "http": { "proxy_protocol": true } }));
    mika.signal(rustix::process::Signal::USR2);
    poll(PROGRAM_DEADLINE, "it is reloaded", || {
        let (replies, _) = talk(
            mika.http(),
            &behind(b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n"),
            1,
        );
        replies.first().is_some_and(|reply| reply.status == 200)
    });
    assert_eq!(mika.stop(), 0);
}
