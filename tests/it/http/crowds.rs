//! Crowds that hold connections: idle ones, slow ones, over TLS and without. Requests are answered,
//! because idle connections are evicted.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{IH_BYTES, PASSKEY, a, escape, private};
use crate::harness::{Mika, poll};

/// Long enough for any machine, and shorter than an idle or slow connection may take by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

const DEADLINE: Duration = Duration::from_secs(20);

const NOT_FOUND: &str = "GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n";

/// A connection from that address of this host.
fn open(own: &str, tracker: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own: IpAddr = own.parse().expect("an address");
    socket
        .bind(&SocketAddr::new(own, 0).into())
        .expect("an address of this host");
    socket.connect(&tracker.into()).expect("a connection");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(AT_ONCE)).expect("a timeout");
    stream
}

/// Whether a request is answered at once.
fn is_answered(stream: &mut TcpStream, request: &str) -> bool {
    let sent = stream.write_all(request.as_bytes());
    sent.is_ok() && matches!(stream.read(&mut [0; 4096]), Ok(length) if length > 0)
}

/// A connection that has asked once, and stays.
fn kept(own: &str, tracker: SocketAddr) -> TcpStream {
    let mut stream = open(own, tracker);
    assert!(is_answered(&mut stream, NOT_FOUND), "{own}");
    stream
}

/// One that sends the beginning of a request.
fn slow(own: &str, tracker: SocketAddr) -> TcpStream {
    let mut stream = open(own, tracker);
    stream.write_all(b"GET /ann").expect("a beginning");
    stream
}

/// Whether the tracker has left the connection open.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let read = (&*stream).read(&mut [0; 1]);
    stream.set_nonblocking(false).expect("a socket");
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn open_ones(all: &[TcpStream]) -> Vec<usize> {
    let numbered = all.iter().enumerate();
    let open = numbered.filter(|(_, stream)| is_open(stream));
    open.map(|(number, _)| number).collect()
}

fn announce() -> String {
    format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", a(""))
}

fn tracker(connections: usize, workers: &str, http: Value) -> Mika {
    let mut config = json!({ "mode": "public", "http": { "max_connections": connections } });
    if let Some(http) = http.as_object() {
        for (key, value) in http {
            config["http"][key] = value.clone();
        }
    }
    Mika::start_with(&config, &["--procs", workers])
}

#[test]
fn a_new_connection_evicts_the_one_idle_longest() {
    let mika = tracker(8, "1", json!({}));
    // Of eight networks, so that none has more than its share.
    let mut crowd: Vec<TcpStream> = (0..8)
        .map(|net| kept(&format!("127.1.{net}.1"), mika.http()))
        .collect();
    assert!(
        is_answered(&mut crowd[0], NOT_FOUND),
        "it is the newest now"
    );
    let mut newcomer = open("127.2.0.1", mika.http());
    assert!(is_answered(&mut newcomer, &announce()));
    poll(AT_ONCE, "the second one is gone", || {
        open_ones(&crowd) == [0, 2, 3, 4, 5, 6, 7]
    });
}

#[test]
fn crowds_lock_out_no_client_with_any_number_of_workers() {
    for (workers, hold) in [
        ("1", kept as fn(&str, SocketAddr) -> _),
        ("3", kept),
        ("3", slow),
    ] {
        let mika = tracker(12, workers, json!({}));
        let _crowd: Vec<TcpStream> = (0..40).map(|_| hold("127.1.0.1", mika.http())).collect();
        let _others: Vec<TcpStream> = (0..20)
            .map(|net| hold(&format!("127.2.{net}.1"), mika.http()))
            .collect();
        for _ in 0..20 {
            // They stay as well, and each is answered.
            for own in ["127.3.0.1", "127.1.0.1"] {
                let mut newcomer = open(own, mika.http());
                assert!(is_answered(&mut newcomer, &announce()), "{own}, {workers}");
            }
        }
    }
}

#[test]
fn a_network_above_its_share_loses_its_own_connections_and_no_others() {
    let mika = tracker(16, "1", json!({}));
    let others: Vec<TcpStream> = (0..7)
        .map(|net| kept(&format!("127.2.{net}.1"), mika.http()))
        .collect();
    let _crowd: Vec<TcpStream> = (0..60)
        .map(|last| kept(&format!("127.1.0.{}", last % 7 + 1), mika.http()))
        .collect();
    let mut more = kept("127.4.0.1", mika.http());
    assert_eq!(open_ones(&others).len(), 7);
    assert!(is_answered(&mut more, NOT_FOUND));
}

#[test]
fn trusted_proxies_count_for_no_network() {
    let mika = tracker(16, "1", json!({ "trusted_proxies": ["127.1.0.0/16"] }));
    let proxy: Vec<TcpStream> = (0..16).map(|_| kept("127.1.0.1", mika.http())).collect();
    assert_eq!(open_ones(&proxy).len(), 16, "they may take all places");
    let mut newcomer = open("127.2.0.1", mika.http());
    assert!(is_answered(&mut newcomer, &announce()));
    poll(AT_ONCE, "its oldest one gave way", || {
        open_ones(&proxy) == (1..16).collect::<Vec<_>>()
    });
}

/// Replies that wait until they are durable are not cut while another connection is idle.
#[test]
fn requests_in_flight_are_not_evicted_while_others_are_idle() {
    let mut mika = private(&json!({
        "journal": { "ack_timeout": "60s" },
        "http": { "max_connections": 6 },
        "tracker": { "max_peers_per_user": 10 },
    }));
    mika.run();
    let address = mika.http();
    let _idle: Vec<TcpStream> = (0..3)
        .map(|net| kept(&format!("127.1.{net}.1"), address))
        .collect();
    let storage = mika.storage();
    storage.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            let who = format!("event=started, peer_id=-MK0001-{number:012}");
            let request = format!("GET /{PASSKEY}{} HTTP/1.1\r\n\r\n", a(&who));
            thread::spawn(move || {
                let mut stream = open(&format!("127.3.{number}.1"), address);
                stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
                is_answered(&mut stream, &request)
            })
        })
        .collect();
    let scrape = format!(
        "GET /{PASSKEY}/scrape?info_hash={} HTTP/1.1\r\n\r\n",
        escape(&IH_BYTES)
    );
    poll(DEADLINE, "all three wait", || {
        let mut other = open("127.4.0.1", address);
        other.write_all(scrape.as_bytes()).expect("a request");
        let mut reply = [0; 4096];
        let length = other.read(&mut reply).expect("a reply at once");
        String::from_utf8_lossy(&reply[..length]).contains("10:incompletei3e")
    });
    for net in 0..20 {
        kept(&format!("127.5.{net}.1"), address);
    }
    assert!(waiting.iter().all(|client| !client.is_finished()));
    storage.execute_batch("COMMIT").expect("the lock is gone");
    for client in waiting {
        assert!(client.join().expect("a client"), "its reply was not cut");
    }
}

/// A process with few files holds fewer connections, and answers as well.
#[test]
fn a_low_open_file_limit_refuses_no_client() {
    let mut mika = Mika::prepare(&json!({ "mode": "public" }));
    mika.limit_files(540);
    mika.run();
    let _crowd: Vec<TcpStream> = (0..800).map(|_| kept("127.1.0.1", mika.http())).collect();
    let mut newcomer = open("127.2.0.1", mika.http());
    assert!(is_answered(&mut newcomer, &announce()));
    assert!(mika.log().contains("the limit of open files is too low"));
}

/// A client that begins a TLS handshake and does not go on can be evicted.
#[test]
fn unfinished_handshakes_are_evicted() {
    let mut mika = Mika::prepare(&json!({
        "mode": "public",
        "http": { "max_connections": 6, "tls": { "key": "key_priv", "cert": "key_ca" } },
    }));
    mika.managed(&["genkey"]);
    mika.run();
    let _crowd: Vec<TcpStream> = (0..40)
        .map(|number| {
            let mut stream = open(&format!("127.1.{}.1", number % 8), mika.http());
            // The beginning of a `ClientHello`.
            stream.write_all(b"\x16\x03\x01\x02").expect("a beginning");
            stream
        })
        .collect();
    for _ in 0..3 {
        let url = format!("https://{}{}", mika.http(), a(""));
        let output = Command::new("curl")
            .args(["--silent", "--insecure", "--max-time", "5", "--globoff"])
            .arg(url)
            .output()
            .expect("curl starts");
        let reply = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            reply.starts_with("d8:complete"),
            "{reply} {:?}",
            output.status
        );
    }
}
