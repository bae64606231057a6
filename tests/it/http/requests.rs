//! Vectors of requests: rules H1 to H8.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{IH_BYTES, Swarm, a, a_of, one, public, talk};
use crate::harness::http::Connection;
use crate::harness::{Mika, now, poll};

/// Rules H1, H2, H4, H5: how a request may be written, and whether the connection stays.
#[allow(clippy::too_many_lines)] // a table
#[test]
fn vectors_of_requests() {
    let tracker = public();
    let target = a("");
    // Request head, status, whether the connection stays open.
    let table = [
        (format!("GET {target} HTTP/1.1\r\nHost: x\r\n"), 200, true),
        (format!("GET {target} HTTP/1.1\r\n"), 200, true),
        (format!("GET http://any{target} HTTP/1.1\r\n"), 200, true),
        (
            format!("GET http://any:99{target} HTTP/1.1\r\nHost: other\r\n"),
            200,
            true,
        ),
        (format!("GET /{target} HTTP/1.1\r\n"), 200, true),
        (
            format!(
                "GET {} HTTP/1.1\r\n",
                target.replace("announce?", "announce/?")
            ),
            200,
            true,
        ),
        (format!("GET {target} HTTP/1.0\r\n"), 200, false),
        (
            format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n"),
            200,
            true,
        ),
        (
            format!("GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n"),
            200,
            true,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: close\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nconnection: CLOSE\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: keep-alive, Close\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: x,close ,y\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: closed\r\n"),
            200,
            true,
        ),
        ("GET / HTTP/1.1\r\n".into(), 404, true),
        ("GET /announce.php HTTP/1.1\r\n".into(), 404, true),
        ("GET /short/announce HTTP/1.1\r\n".into(), 404, true),
        ("GET /announces HTTP/1.1\r\n".into(), 404, true),
        (format!("GET {target}\x01 HTTP/1.1\r\n"), 400, false),
        (format!("GET {target}\x7f HTTP/1.1\r\n"), 400, false),
        (format!("GET {target} HTTP/9.9\r\n"), 400, false),
        ("nonsense\r\n".into(), 400, false),
    ];
    for (head, status, stays) in table {
        let (reply, mut connection) = one(tracker.http(), format!("{head}\r\n").as_bytes());
        assert_eq!(reply.status, status, "{head}");
        if head.contains("HTTP/1.0") && stays {
            let said = reply.header("connection").unwrap_or_default();
            assert!(said.eq_ignore_ascii_case("keep-alive"), "{head}");
        }
        if stays {
            assert_eq!(
                connection.get(&target).expect("a second reply").status,
                200,
                "{head}"
            );
        } else {
            assert!(connection.is_closed(), "{head}");
        }
    }
}

/// Vector 32: only GET does anything, and what follows a POST is not executed.
#[test]
fn other_methods_change_nothing() {
    let tracker = public();
    let swarm = Swarm {
        info_hash: IH_BYTES,
        ..Swarm::new(&tracker)
    };
    let hidden = format!("GET {} HTTP/1.1\r\n\r\n", a("event=started"));
    let length = hidden.len();
    for head in [
        format!(
            "POST {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n",
            a("")
        ),
        format!("POST {} HTTP/1.1\r\n\r\n", a("")),
        format!(
            "POST {} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            a("")
        ),
        format!("PUT {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n", a("")),
        format!("DELETE {} HTTP/1.1\r\n\r\n", a("")),
        format!("get {} HTTP/1.1\r\n\r\n", a("")),
    ] {
        let (replies, _) = talk(tracker.http(), format!("{head}{hidden}").as_bytes(), 2);
        let [reply] = &replies[..] else {
            panic!("{} replies to {head}", replies.len())
        };
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET")),
            "{head}"
        );
        assert_eq!(reply.header("connection"), Some("close"), "{head}");
        assert_eq!(swarm.scrape(), [0, 0, 0], "{head}");
    }
    let post = format!("POST {} HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", a(""));
    let post = [post.as_bytes(), &vec![b'x'; 1_000_000]].concat();
    assert!(status_line(tracker.http(), &post).contains(" 405 "));

    let mut connection = Connection::open(tracker.http()).expect("a connection");
    connection
        .send(format!("HEAD {} HTTP/1.1\r\n\r\n", a("")).as_bytes())
        .expect("a HEAD");
    let reply = connection.receive_head().expect("a head");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    assert_eq!(swarm.scrape(), [0, 0, 0]);
    let next = connection
        .get(&a(""))
        .expect("a HEAD has no body, so the next reply begins at once");
    assert_eq!(next.status, 200);
}

/// Rule H6: as many requests as are there are answered in order, in whatever pieces they come.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let tracker = public();
    let swarm = Swarm::new(&tracker);
    let request = |number: usize| {
        let who = format!("port={}, peer_id=-MK0001-{number:012}", 1000 + number);
        format!(
            "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
            a_of(&swarm.info_hash, &who)
        )
    };
    let ten: String = (1..=10).map(request).collect();
    let (replies, _) = talk(tracker.http(), ten.as_bytes(), 10);
    let leechers: Vec<_> = replies
        .iter()
        .map(|reply| reply.int("incomplete"))
        .collect();
    assert_eq!(leechers, (1..=10).map(Some).collect::<Vec<_>>());

    let two = request(11) + &request(12).replace("compact=1", "x=<>\"#&compact=1");
    let mut connection = Connection::open(tracker.http()).expect("a connection");
    for split in 1..two.len() {
        for piece in [&two[..split], &two[split..]] {
            connection.send(piece.as_bytes()).expect("a piece");
        }
        for number in 1..=2 {
            let reply = connection.receive().expect("a reply");
            let case = format!("reply {number}, split at {split}");
            assert_eq!((reply.status, reply.failure()), (200, None), "{case}");
        }
    }
    assert_eq!(swarm.scrape(), [0, 0, 12]);
}

/// Rule H7: requests that are too long are refused, and cost no memory.
#[test]
fn long_requests_are_refused() {
    let tracker = public();
    let long = |length: usize| {
        let start = "/announce?x=";
        format!(
            "GET {start}{} HTTP/1.1\r\nHost: x\r\n\r\n",
            "x".repeat(length - start.len())
        )
    };
    let (fits, _) = one(tracker.http(), long(15 * 1024).as_bytes());
    assert_eq!(fits.failure().as_deref(), Some("missing info_hash"));
    for length in [
        16 * 1024,
        17 * 1024,
        31 * 1024,
        33 * 1024,
        100 * 1024,
        1 << 20,
    ] {
        let status = status_line(tracker.http(), long(length).as_bytes());
        assert_eq!(status, "HTTP/1.1 414 URI Too Long", "{length}");
    }
    let before = memory(&tracker);
    let endless: Vec<_> = (0..30)
        .map(|_| status_line(tracker.http(), long(1 << 20).as_bytes()))
        .collect();
    assert!(
        endless
            .iter()
            .all(|status| status.ends_with("414 URI Too Long"))
    );
    let grown = memory(&tracker).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");

    let headers = |count: usize| {
        let lines: String = (0..count).fold(String::new(), |mut lines, number| {
            write!(lines, "X-{number}: y\r\n").expect("a String takes everything");
            lines
        });
        format!("GET {} HTTP/1.1\r\n{lines}\r\n", a(""))
    };
    assert!(status_line(tracker.http(), headers(64).as_bytes()).contains(" 200 "));
    for count in [65, 100, 101, 300] {
        assert!(
            status_line(tracker.http(), headers(count).as_bytes()).contains(" 431 "),
            "{count}"
        );
    }
    let big = format!(
        "GET {} HTTP/1.1\r\nX: {}\r\n\r\n",
        a(""),
        "y".repeat(64 << 10)
    );
    assert!(status_line(tracker.http(), big.as_bytes()).contains(" 431 "));
}

/// The status line alone: the server may close while the rest of the request is still coming.
fn status_line(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    if let Err(error) = stream.write_all(request) {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ),
            "{error}"
        );
    }
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    while !reply.contains(&b'\n') {
        let length = stream.read(&mut chunk).expect("a reply");
        assert!(length > 0, "closed without a reply");
        reply.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&reply)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Resident memory in KiB.
pub fn memory(tracker: &Mika) -> u64 {
    let path = format!("/proc/{}/status", tracker.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).expect("its status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number")
}

/// Rule H4: an unexpected body is skipped, up to 64 KiB.
#[test]
fn bodies_are_skipped() {
    let tracker = public();
    for length in [1, 1000, 64 << 10] {
        let request = format!("GET {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n", a(""));
        let (reply, mut connection) = one(
            tracker.http(),
            &[request.as_bytes(), &vec![b'G'; length]].concat(),
        );
        assert_eq!(reply.failure(), None, "{length}");
        assert_eq!(
            connection
                .get(&a(""))
                .expect("the connection goes on")
                .status,
            200,
            "{length}"
        );
    }
    let request = format!("GET {} HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", a(""));
    let (reply, mut connection) = one(
        tracker.http(),
        &[request.as_bytes(), &vec![b'G'; 80 << 10]].concat(),
    );
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert!(connection.is_closed());
}

/// Rules H5 and H8: a slow request is closed after 10 s, an idle connection after 30 s.
#[test]
fn slow_and_idle_connections_are_closed() {
    let tracker = public();
    let start = now();
    let mut slow = Connection::open(tracker.http()).expect("a connection");
    let mut idle = Connection::open(tracker.http()).expect("a connection");
    assert_eq!(idle.get(&a("")).expect("a reply").status, 200);
    slow.send(b"GET /announce?info").expect("a beginning");
    poll(Duration::from_secs(20), "a slow head is given up", || {
        // A byte now and then does not help.
        let sent = slow.send(b"x");
        std::thread::sleep(Duration::from_millis(200));
        sent.is_err()
    });
    let seconds = start.elapsed().as_secs();
    assert!((8..=14).contains(&seconds), "a slow head lived {seconds} s");
    let mut still = || idle.is_closed();
    // One look waits for up to 20 s, so two see the end.
    assert!(
        still() || still(),
        "an idle connection is open after {:?}",
        start.elapsed()
    );
    let seconds = start.elapsed().as_secs();
    assert!(
        (28..=36).contains(&seconds),
        "an idle connection lived {seconds} s"
    );
}
