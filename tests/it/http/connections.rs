//! Connections of difficult clients: half-closed, flooded, never read from; and replies that
//! wait. Rules H3 to H8.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::requests::memory;
use super::{PASSKEY, Swarm, a, counts, private, public, talk};
use crate::harness::http::{Connection, Reply, get};
use crate::harness::{Mika, poll};

const TIMEOUT: Duration = Duration::from_secs(20);

/// What comes until the server closes, which must not be a reset.
fn read_all(mut stream: &TcpStream) -> String {
    let mut replies = Vec::new();
    stream
        .read_to_end(&mut replies)
        .expect("an orderly end of the connection");
    String::from_utf8_lossy(&replies).into_owned()
}

/// A connection whose client has little room for what it does not read.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&address.into()).expect("a connection");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream
}

/// Connections and other sockets that the daemon has open.
fn sockets(tracker: &Mika) -> usize {
    let folder = format!("/proc/{}/fd", tracker.pid().as_raw_nonzero());
    let files = fs::read_dir(folder).expect("its files");
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let is_socket = |link: &std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
    links.filter(is_socket).count()
}

#[test]
fn half_closed_clients_get_their_replies() {
    let tracker = public();
    for (count, rest) in [(1, ""), (3, ""), (3, "GET /announce?info"), (500, "")] {
        let request = format!("GET {} HTTP/1.1\r\n\r\n", a(""));
        let mut stream = TcpStream::connect(tracker.http()).expect("a connection");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let requests = request.repeat(count) + rest;
        stream.write_all(requests.as_bytes()).expect("requests");
        stream.shutdown(Shutdown::Write).expect("half a close");
        let replies = read_all(&stream);
        assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), count);
        assert!(replies.ends_with('e'), "{replies}");
    }
}

/// A client that goes on sending to a connection that ends still gets the whole reply: closing a socket
/// that holds unread bytes would reset it.
#[test]
fn replies_are_complete_despite_unread_input() {
    let tracker = public();
    let junk = "x".repeat(2 << 20);
    let table = [
        (format!("POST {} HTTP/1.1\r\n\r\n", a("")), "405"),
        (
            format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", a("")),
            "200",
        ),
        (format!("GET {} HTTP/1.0\r\n\r\n", a("")), "200"),
        (
            format!("GET {} HTTP/1.1\r\nContent-Length: 2097152\r\n\r\n", a("")),
            "200",
        ),
        (
            format!(
                "GET {} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                a("")
            ),
            "200",
        ),
        ("GET /announce?".to_owned(), "414"),
        ("GET / HTTP/1.1\r\nX: ".to_owned(), "431"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ];
    for (start, status) in table {
        let mut stream = TcpStream::connect(tracker.http()).expect("a connection");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let request = [start.as_bytes(), junk.as_bytes()].concat();
        stream.write_all(&request).expect("all of it is taken");
        stream.shutdown(Shutdown::Write).expect("half a close");
        let reply = read_all(&stream);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        assert_eq!(reply.matches("HTTP/1.1 ").count(), 1, "{reply}");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let length = format!("\r\nContent-Length: {}", body.len());
        assert!(head.contains(&length), "{reply}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{reply}");
    }
}

/// Clients that ask and do not read cost bounded memory, block no other client, get
/// everything once they read, and are let go if they don't.
#[test]
fn clients_that_do_not_read_are_bounded_and_closed() {
    const CLIENTS: usize = 20;
    let tracker = public();
    let swarm = Swarm::new(&tracker);
    swarm.others(200, "left=0");
    let target = super::a_of(&swarm.info_hash, "numwant=200");
    let request = format!("GET {target} HTTP/1.1\r\n\r\n");
    let least = get(tracker.http(), &target).body.len();
    assert!(least > 1000, "{least} bytes are no long reply");

    let before = (memory(&tracker), sockets(&tracker));
    let requests = request.repeat(100);
    let mut clients: Vec<(TcpStream, usize)> = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = narrow(tracker.http());
        stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        let mut sent = 0;
        loop {
            let rest = &requests.as_bytes()[sent % requests.len()..];
            match stream.write(rest) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 100 << 20, "it reads on and on");
        }
        clients.push((stream, sent));
    }
    let grown = memory(&tracker).saturating_sub(before.0);
    assert!(
        grown < CLIENTS as u64 * 160,
        "{grown} KiB for {CLIENTS} clients"
    );
    assert_eq!(get(tracker.http(), &target).status, 200);

    let (reader, sent) = clients.pop().expect("a client");
    reader.shutdown(Shutdown::Write).expect("half a close");
    let replies = read_all(&reader);
    let answered = replies.matches("HTTP/1.1 200 OK").count();
    assert_eq!(answered, sent / request.len());

    poll(Duration::from_secs(60), "they are let go", || {
        sockets(&tracker) <= before.1
    });
    drop(clients);
}

/// Replies that wait for the journal keep their order, and those of one connection wait together.
#[test]
fn replies_that_wait_keep_their_order() {
    let mut tracker = private(&json!({}));
    tracker.run();
    let request = |with: &str| format!("GET /{PASSKEY}{} HTTP/1.1\r\n\r\n", a(with));
    let events = [
        "event=started",
        "",
        "event=completed, left=0",
        "event=stopped, left=0",
    ];
    let requests: String = events.into_iter().map(request).collect();
    let (replies, _) = talk(tracker.http(), requests.as_bytes(), events.len());
    let counts: Vec<[i64; 3]> = replies.iter().map(counts).collect();
    assert_eq!(counts, [[0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]]);
}

/// Any number may wait at the same time, half-closed ones and those that close too, and others
/// are answered meanwhile.
#[test]
fn waiting_replies_do_not_block_others() {
    const CLIENTS: usize = 50;
    let mut tracker = private(&json!({
        "journal": { "ack_timeout": "60s" },
        "tracker": { "max_peers_per_user": CLIENTS },
    }));
    tracker.run();
    let address = tracker.http();
    let scrape = format!(
        "/{PASSKEY}/scrape?info_hash={}",
        super::escape(&super::IH_BYTES)
    );
    get(address, &scrape);
    let storage = tracker.storage();
    storage.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let waiting: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let who = format!(
                "event=started, peer_id=-MK0001-{number:012}, port={}",
                7000 + number
            );
            let kind = ["", "Connection: close\r\n"][number % 2];
            let request = format!("GET /{PASSKEY}{} HTTP/1.1\r\n{kind}\r\n", a(&who));
            thread::spawn(move || {
                let mut connection = Connection::open(address).expect("a connection");
                connection.send(request.as_bytes()).expect("a request");
                connection.receive().expect("a reply")
            })
        })
        .collect();
    let mut other = Connection::open(address).expect("a connection");
    poll(TIMEOUT, "all are at work", || {
        let reply = other.get(&scrape).expect("a reply at once");
        let all = format!("10:incompletei{CLIENTS}e");
        String::from_utf8_lossy(&reply.body).contains(&all)
    });
    assert!(waiting.iter().all(|client| !client.is_finished()));
    storage.execute_batch("COMMIT").expect("the lock is gone");
    let replies = waiting
        .into_iter()
        .map(|client| client.join().expect("a client"));
    let replies: Vec<Reply> = replies.collect();
    assert!(replies.iter().all(|reply| reply.failure().is_none()));
}
