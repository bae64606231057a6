//! A plain HTTP client that sends exactly the bytes given.

use std::fmt::Write as _;
use std::io::{self, Error, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mika::wire::bencode::{self, Node};
use rustix::net::sockopt::set_socket_linger;

/// How long one read or write may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection, which stays open as long as the server wants.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that came after the last reply.
    rest: Vec<u8>,
}

/// A reply as it came over the wire.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> Reply {
    try_get(address, target).unwrap_or_else(|error| panic!("GET {target}: {error}"))
}

/// One GET on a connection of its own, to a server that may be gone.
pub fn try_get(address: SocketAddr, target: &str) -> io::Result<Reply> {
    Connection::open(address)?.get(target)
}

/// `bytes` as in a query: unreserved ones unchanged, the others escaped.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            write!(text, "%{byte:02X}").expect("a String takes everything");
        }
    }
    text
}

// === impl Connection ===

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_within(address, TIMEOUT)
    }

    /// The same, which takes no longer than that.
    pub fn open_within(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::from_stream(TcpStream::connect_timeout(&address, timeout)?)
    }

    /// One that exists already.
    pub fn from_stream(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            rest: Vec::new(),
        })
    }

    /// Forgets what it has not sent when it is closed, so that nothing arrives after that.
    pub fn forget_when_closed(&self) -> io::Result<()> {
        set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Has reads wait longer than usual.
    pub fn wait_up_to(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a GET and reads the reply; the connection stays open.
    pub fn get(&mut self, target: &str) -> io::Result<Reply> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n").as_bytes())?;
        self.receive()
    }

    /// The next reply.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let mut reply = self.receive_head()?;
        let length = reply.header("content-length").unwrap_or("0");
        let length = length.parse().map_err(|_| malformed("Content-Length"))?;
        while self.rest.len() < length {
            self.fill()?;
        }
        reply.body = self.rest.drain(..length).collect();
        Ok(reply)
    }

    /// The next reply, which has no body whatever its headers say: that to a HEAD.
    pub fn receive_head(&mut self) -> io::Result<Reply> {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.rest.drain(..end + 4).collect();
        let head = std::str::from_utf8(&head[..end]).map_err(|_| malformed("head"))?;
        Reply::from_head(head).ok_or_else(|| malformed("head"))
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.rest.is_empty()
            && self
                .fill()
                .is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let length = loop {
            match self.stream.read(&mut chunk) {
                // As of a machine that was suspended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if length == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "connection closed"));
        }
        self.rest.extend_from_slice(&chunk[..length]);
        Ok(())
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed {what}"))
}

// === impl Reply ===

impl Reply {
    fn from_head(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Some(Self {
            status,
            headers: headers.collect::<Option<_>>()?,
            body: Vec::new(),
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body, which must be canonical bencode.
    pub fn bencode(&self) -> Node<'_> {
        bencode::parse(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.body.escape_ascii()))
    }

    /// A number of the dictionary that the body is.
    pub fn int(&self, key: &str) -> Option<i64> {
        self.bencode().get(key.as_bytes())?.as_int()
    }

    /// The bytes of an entry of the dictionary that the body is.
    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        Some(self.bencode().get(key.as_bytes())?.as_bytes()?.to_vec())
    }

    /// Why the tracker refuses, if it does.
    pub fn failure(&self) -> Option<String> {
        let reason = self.bytes("failure reason")?;
        Some(String::from_utf8_lossy(&reason).into_owned())
    }
}
