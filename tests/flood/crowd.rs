//! Crowds that hold HTTP connections: some send a byte a second, some nothing, some have asked
//! once and stay, some have closed their half. Closed ones reconnect.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Connections that are open at once.
pub const SIZE: usize = 600;

const SECOND: Duration = Duration::from_secs(1);

/// A request whose head takes minutes to arrive.
const REQUEST: &[u8] =
    b"GET /announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=-MK0001-abcdefghijkl&port=1&left=1 HTTP/1.1\r\nHost: tracker\r\nX-Padding: ";

#[derive(Clone, Copy)]
enum Kind {
    /// Sends a byte a second.
    Slow,
    /// Sends nothing.
    Idle,
    /// Asks once and stays.
    Satisfied,
    /// Sends half a request, and that it will send no more.
    HalfClosed,
}

struct Member {
    kind: Kind,
    stream: TcpStream,
    sent: usize,
}

/// Holds the connections until `is_over`.
pub fn hold(tracker: SocketAddr, is_over: &AtomicBool) {
    let kinds = [Kind::Slow, Kind::Idle, Kind::Satisfied, Kind::HalfClosed];
    let kinds = kinds.into_iter().cycle();
    let mut places: Vec<(Kind, Option<Member>)> = kinds.take(SIZE).map(|it| (it, None)).collect();
    while !is_over.load(Ordering::Relaxed) {
        for (kind, place) in &mut places {
            let stays = place.as_mut().is_some_and(Member::go_on);
            if !stays {
                *place = Member::come(*kind, tracker);
            }
        }
        thread::sleep(SECOND);
    }
}

// === impl Member ===

impl Member {
    /// None if the tracker takes no connection now.
    fn come(kind: Kind, tracker: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&tracker, SECOND).ok()?;
        stream.set_nonblocking(true).ok()?;
        match kind {
            Kind::Slow | Kind::Idle => {}
            Kind::Satisfied => {
                let request = [REQUEST, b"\r\n\r\n"].concat();
                stream.write_all(&request).ok()?;
            }
            Kind::HalfClosed => {
                let half = fastrand::usize(..REQUEST.len());
                stream.write_all(&REQUEST[..half]).ok()?;
                stream.shutdown(Shutdown::Write).ok()?;
            }
        }
        Some(Self {
            kind,
            stream,
            sent: 0,
        })
    }

    /// Whether the connection is still open, after whatever is to be sent.
    fn go_on(&mut self) -> bool {
        if matches!(self.kind, Kind::Slow) {
            let byte = REQUEST.get(self.sent).copied().unwrap_or(b'x');
            self.sent += 1;
            if self.stream.write(&[byte]).is_err() {
                return false;
            }
        }
        match self.stream.read(&mut [0; 4096]) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}
