//! Requests cut anywhere and malformed in any way: how they are parsed, and how their connection ends.

mod garbled;

use std::io;
use std::net::Ipv4Addr;
use std::task::Poll;

use super::conn::{HttpConnection, Next, NonBlockingIo, TurnOutcome};
use super::http1::{
    self, HEAD_MAX, HeadError, HttpVersion, LINE_MAX, RequestBody, RequestHead, Status, parse,
};
use super::respond::Response;
use super::turn::{Buffers, INPUT_BYTES, on_readable};

const GET: &[u8] =
    b"GET /announce?info_hash=a&x=<>\"#b HTTP/1.1\r\nHost: x\r\nUser-Agent: a <b>\r\n\r\n";

/// How a connection went.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    replies: Vec<u8>,
    /// How it ended, if it did.
    end: Option<Next>,
    /// It ended in the middle of a request.
    in_request: bool,
}

/// A client that has sent `input`, and reads every reply.
#[derive(Default)]
struct Client<'a> {
    input: &'a [u8],
    replies: Vec<u8>,
}

/// A connection with the buffers of its worker.
struct Server {
    connection: HttpConnection,
    buffers: Buffers,
    is_stopping: bool,
}

// === impl Client ===

impl NonBlockingIo for Client<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let (read, rest) = self.input.split_at(self.input.len().min(buffer.len()));
        buffer[..read.len()].copy_from_slice(read);
        self.input = rest;
        Poll::Ready(Ok(read.len()))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.replies.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

// === impl Server ===

impl Server {
    fn new() -> Self {
        Self {
            connection: HttpConnection::new(Ipv4Addr::LOCALHOST.into()),
            buffers: Buffers::default(),
            is_stopping: false,
        }
    }

    /// Runs a turn; none if there is nothing to read.
    fn turn(
        &mut self,
        client: &mut Client<'_>,
        next: Next,
        respond: impl FnMut(&RequestHead, &mut Vec<u8>) -> Response,
    ) -> Option<TurnOutcome> {
        let (connection, buffers) = (&mut self.connection, &mut self.buffers);
        match on_readable(client, connection, next, buffers, self.is_stopping, respond) {
            Poll::Ready(turn) => Some(turn.unwrap()),
            Poll::Pending => None,
        }
    }
}

/// Answers with the query, and to anything but GET with 405.
fn echo(head: &RequestHead, body: &mut Vec<u8>) -> Response {
    body.extend_from_slice(head.query);
    Response::new(if head.method == b"GET" {
        Status::Ok
    } else {
        Status::MethodNotAllowed
    })
}

/// Sends the pieces over a connection, one per turn.
fn talk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Talk {
    let (mut server, mut client) = (Server::new(), Client::default());
    let mut next = Next::Read { in_request: false };
    for piece in pieces {
        client.input = piece;
        while !client.input.is_empty() || next == Next::Answer {
            next = server.turn(&mut client, next, echo).unwrap().next;
            if let Next::Close { .. } = next {
                return Talk {
                    replies: client.replies,
                    end: Some(next),
                    in_request: false,
                };
            }
        }
    }
    Talk {
        replies: client.replies,
        end: None,
        in_request: next == Next::Read { in_request: true },
    }
}

fn count(talk: &Talk, what: &str) -> usize {
    String::from_utf8_lossy(&talk.replies).matches(what).count()
}

fn head(bytes: &[u8]) -> RequestHead<'_> {
    let (head, length) = parse(bytes).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    head
}

// === heads ===

#[test]
fn heads_are_parsed() {
    let get = head(GET);
    assert_eq!(get.method, b"GET");
    assert_eq!(get.path, b"/announce");
    assert_eq!(get.query, b"info_hash=a&x=<>\"#b");
    assert_eq!((get.version, get.keep_alive), (HttpVersion::Http11, true));
    assert_eq!(get.body, RequestBody::Bytes(0));
    assert_eq!(head(b"GET /a?\xff HTTP/1.1\r\n\r\n").query, b"\xff");
    let proxied = head(
        b"GET / HTTP/1.0\nX-Forwarded-For: 1.1.1.1\nx-forwarded-FOR:2.2.2.2 , 3.3.3.3\t\r\n\
          X-Forwarded-For-Real: 4.4.4.4\nX-Forwarded-For: \xff\n\n",
    );
    let hops: Vec<&str> = proxied.values("x-forwarded-for").collect();
    assert_eq!(hops, ["1.1.1.1", "2.2.2.2 , 3.3.3.3", "?"]);
    assert_eq!(
        (proxied.version, proxied.keep_alive),
        (HttpVersion::Http10, false)
    );
}

#[test]
fn targets_lose_their_scheme_and_host() {
    let table = [
        ("/a/b?c?d", "/a/b", "c?d"),
        ("http://any:99/a?b", "/a", "b"),
        ("HTTPS://any/a?b=http://c/d", "/a", "b=http://c/d"),
        ("http://any?b", "", "b"),
        ("http://any", "", ""),
        ("any/a?b", "", "b"),
        ("*", "", ""),
        ("//any/a", "//any/a", ""),
    ];
    for (target, path, query) in table {
        let text = format!("GET {target} HTTP/1.1\r\n\r\n");
        let head = head(text.as_bytes());
        assert_eq!(head.path, path.as_bytes(), "{target}");
        assert_eq!(head.query, query.as_bytes(), "{target}");
    }
}

#[test]
fn ambiguous_heads_are_refused() {
    let lines = [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /a\rb HTTP/1.1",
        "GET /a\0b HTTP/1.1",
        "GET /a\x7fb HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "GET /",
        "GET  HTTP/1.1",
        " / HTTP/1.1",
        "G@T / HTTP/1.1",
        "\x16\x03\x01",
        "GET / HTTP/1.1\r\nHost : x",
        "GET / HTTP/1.1\r\n Host: x",
        "GET / HTTP/1.1\r\n\tHost: x",
        "GET / HTTP/1.1\r\nHost: x\r\n folded",
        "GET / HTTP/1.1\r\nHo st: x",
        "GET / HTTP/1.1\r\nHost",
        "GET / HTTP/1.1\r\n: x",
        "GET / HTTP/1.1\r\nHost: x\ry: z",
        "GET / HTTP/1.1\r\nHost: x\r",
        "GET / HTTP/1.1\r\nHost: \0",
        "GET / HTTP/1.1\r\nHost: \x7f",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2",
        "GET / HTTP/1.1\r\nContent-Length: 1, 1",
        "GET / HTTP/1.1\r\nContent-Length: +1",
        "GET / HTTP/1.1\r\nContent-Length: -1",
        "GET / HTTP/1.1\r\nContent-Length: 0x1",
        "GET / HTTP/1.1\r\nContent-Length:",
        "GET / HTTP/1.1\r\nContent-Length: 18446744073709551616",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: identity",
    ];
    for line in lines {
        let request = format!("{line}\r\n\r\n");
        assert_eq!(
            parse(request.as_bytes()),
            Err(HeadError::Malformed),
            "{line:?}"
        );
        let talk = talk([request.as_bytes()]);
        assert_eq!(talk.end, Some(Next::Close { linger: true }), "{line:?}");
        assert_eq!(count(&talk, "HTTP/1.1 400 "), 1, "{line:?}");
        assert_eq!(count(&talk, "HTTP/1.1 "), 1, "{line:?}");
    }
}

#[test]
fn the_connection_header_is_a_list() {
    let table = [
        ("Connection: close", false, false),
        ("CONNECTION: Close", false, false),
        ("Connection: x, close ,y", false, false),
        ("Connection: keep-alive\r\nConnection: close", false, false),
        ("Connection: closed", true, false),
        ("Connection: keep-alive", true, true),
        ("Connection:\tx,Keep-Alive", true, true),
        ("Connection: ", true, false),
    ];
    for (line, by_11, by_10) in table {
        for (version, expected) in [("1.1", by_11), ("1.0", by_10)] {
            let text = format!("GET / HTTP/{version}\r\n{line}\r\n\r\n");
            assert_eq!(head(text.as_bytes()).keep_alive, expected, "{text}");
        }
    }
}

#[test]
fn limits_are_exact() {
    let line = |length: usize| {
        let bare = "GET / HTTP/1.1".len();
        format!("GET /{} HTTP/1.1", "x".repeat(length - bare))
    };
    for end in ["\r\n", "\n"] {
        let fits = line(LINE_MAX) + end;
        assert_eq!(parse(fits.as_bytes()), Ok(None));
        assert!(parse(format!("{fits}{end}").as_bytes()).unwrap().is_some());
        let long = line(LINE_MAX + 1) + end;
        assert_eq!(parse(long.as_bytes()), Err(HeadError::LineTooLong));
    }
    assert_eq!(parse(&b"x".repeat(LINE_MAX + 1)), Ok(None));
    assert_eq!(
        parse(&b"x".repeat(LINE_MAX + 2)),
        Err(HeadError::LineTooLong)
    );

    let start = "GET / HTTP/1.1\r\nX: ";
    let head =
        |length: usize| start.to_owned() + &"y".repeat(length - start.len() - 4) + "\r\n\r\n";
    assert!(parse(head(HEAD_MAX).as_bytes()).unwrap().is_some());
    for more in ["", "GET /"] {
        let long = head(HEAD_MAX + 1) + more;
        assert_eq!(parse(long.as_bytes()), Err(HeadError::HeadTooLong));
        let unended = start.to_owned() + &"y".repeat(HEAD_MAX) + more;
        assert_eq!(parse(unended.as_bytes()), Err(HeadError::HeadTooLong));
    }
    let headers = |count: usize| format!("GET / HTTP/1.1\n{}\n", "X: y\n".repeat(count));
    assert!(parse(headers(64).as_bytes()).unwrap().is_some());
    assert_eq!(
        parse(headers(65).as_bytes()),
        Err(HeadError::TooManyHeaders)
    );
}

// === connections ===

/// However the bytes are cut into pieces, the replies are the same.
#[test]
fn replies_do_not_depend_on_how_the_requests_are_cut() {
    let body = b"GET /a HTTP/1.1\r\nContent-Length: 17\r\n\r\nGET /? HTTP/1.1\n\n";
    let whole = [
        b"\r\n\n\r\n",
        GET,
        b"\n",
        body,
        b"HEAD /x?head HTTP/1.1\n\n",
        b"GET /b?1.0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n",
        GET,
    ]
    .concat();
    let expected = talk([&whole[..]]);
    assert_eq!(count(&expected, "HTTP/1.1 200 OK\r\n"), 4);
    assert_eq!(count(&expected, "HTTP/1.1 405 "), 1);
    assert_eq!(count(&expected, "\r\n\r\ninfo_hash=a&x=<>\"#b"), 1);
    assert_eq!(expected.end, Some(Next::Close { linger: true }));
    for size in 1..whole.len() {
        let talk = talk(whole.chunks(size));
        assert_eq!(talk.replies, expected.replies, "{size}");
        assert!(talk.end.is_some(), "{size}");
    }
    for at in 0..whole.len() {
        let (first, second) = whole.split_at(at);
        assert_eq!(talk([first, second]).replies, expected.replies, "{at}");
    }
}

#[test]
fn a_connection_lingers_if_more_may_come() {
    let table: [(&str, Option<bool>); 12] = [
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", Some(false)),
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\nmore",
            Some(true),
        ),
        ("GET / HTTP/1.0\r\n\r\n", Some(false)),
        ("GET / HTTP/1.1\r\n\r\n", None),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some(true),
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
            Some(true),
        ),
        ("GET / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n", None),
        (
            "GET / HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            Some(true),
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
            None,
        ),
        ("GET / HTTP/1.0\r\nContent-Length: 9\r\n\r\n", Some(true)),
        ("POST / HTTP/1.1\r\n\r\n", Some(true)),
        ("HEAD / HTTP/1.1\r\n\r\n", None),
    ];
    for (request, linger) in table {
        let talk = talk([request.as_bytes()]);
        assert_eq!(
            talk.end,
            linger.map(|linger| Next::Close { linger }),
            "{request}"
        );
        assert_eq!(count(&talk, "HTTP/1.1 "), 1, "{request}");
        let has_header = count(&talk, "Connection: close\r\n") == 1;
        assert_eq!(has_header, linger.is_some(), "{request}");
    }
}

#[test]
fn replies_are_the_last_ones_while_the_worker_stops() {
    let (mut server, mut client) = (Server::new(), Client::default());
    server.is_stopping = true;
    client.input = GET;
    let next = Next::Read { in_request: true };
    let turn = server.turn(&mut client, next, echo).unwrap();
    assert_eq!(turn.next, Next::Close { linger: true });
    assert!(String::from_utf8_lossy(&client.replies).contains("Connection: close\r\n"));
}

/// A client that sends requests and does not read costs no more than the bound, and gets every reply.
#[test]
fn replies_are_sent_before_there_are_too_many() {
    let request = format!("GET /?{} HTTP/1.1\n\n", "x".repeat(4000));
    let three = request.repeat(3);
    let (mut server, mut client) = (Server::new(), Client::default());
    client.input = three.as_bytes();
    let mut next = Next::Read { in_request: true };
    let mut turns = 0;
    let mut replies = 0;
    loop {
        let turn = server.turn(&mut client, next, |_, body| {
            body.resize(10_000, b'y');
            Response::new(Status::Ok)
        });
        let (turn, out) = (turn.unwrap(), std::mem::take(&mut client.replies));
        assert!(out.len() < 26_500, "{}", out.len());
        replies += out
            .windows(9)
            .filter(|window| window == b"HTTP/1.1 ")
            .count();
        turns += 1;
        assert_eq!(turn.is_long, turn.next == Next::Answer);
        next = turn.next;
        match next {
            Next::Answer => {}
            Next::Read { in_request } => {
                assert!(!in_request);
                break;
            }
            Next::Close { .. } => panic!("it closed"),
        }
    }
    assert_eq!((turns, replies), (2, 3));
}

#[test]
fn a_full_input_buffer_makes_a_connection_linger() {
    let mut request = b"GET / HTTP/1.1\r\nConnection: close\r\nX: ".to_vec();
    request.resize(INPUT_BYTES - 4, b'y');
    request.extend_from_slice(b"\r\n\r\n");
    assert_eq!(talk([&request[..]]).end, Some(Next::Close { linger: true }));
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    assert_eq!(http1::skip_empty_lines(b"\r\n\n\r\nGET"), b"GET");
    assert_eq!(http1::skip_empty_lines(b"\r\rGET"), b"\r\rGET");
    let talk = talk([&b"\r\n".repeat(5000)[..], b"\r"]);
    assert_eq!((talk.end, talk.in_request), (None, true));
}
