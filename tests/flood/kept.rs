//! Crowds that keep connections open, as many as the default limit and more: each asks
//! for something cheap now and then, and reconnects when its connection is closed.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::harness::now;

/// How often each asks.
const PERIOD: Duration = Duration::from_secs(20);

/// How long one round over all connections takes at least.
const ROUND: Duration = Duration::from_millis(250);

/// A cheap request.
pub const REQUEST: &[u8] = b"GET /favicon.ico HTTP/1.1\r\nHost: tracker\r\n\r\n";

/// Connections from one or more addresses of this host.
pub struct Crowd {
    pub size: usize,
    /// The first address, and how many there are, each in a network of its own.
    pub first: Ipv4Addr,
    pub addresses: u8,
    pub habit: Habit,
    /// How many are open now.
    pub open: AtomicUsize,
    /// Each has come once.
    pub is_there: AtomicBool,
}

/// What each of a crowd does.
#[derive(Clone, Copy)]
pub struct Habit {
    /// What it sends when it comes, and then every [`PERIOD`].
    pub sends: &'static [u8],
    /// Comes back at once when its connection is closed, and not only when it is time to send.
    pub comes_at_once: bool,
}

struct Member {
    stream: Option<TcpStream>,
    asks_at: Instant,
    /// Until it asks again: all come at once, and their later requests are spread.
    pause: Duration,
}

// === impl Crowd ===

impl Crowd {
    pub fn new(size: usize, first: Ipv4Addr, addresses: u8, habit: Habit) -> Self {
        Self {
            size,
            first,
            addresses,
            habit,
            open: AtomicUsize::new(0),
            is_there: AtomicBool::new(false),
        }
    }

    /// Holds the connections until `is_over`.
    pub fn hold(&self, tracker: SocketAddr, is_over: &AtomicBool) {
        let begun = now();
        let mut members: Vec<Member> = (0..self.size)
            .map(|number| Member {
                stream: None,
                asks_at: begun,
                pause: PERIOD.mul_f64(number as f64 / self.size as f64),
            })
            .collect();
        while !is_over.load(Ordering::Relaxed) {
            let round = now();
            let mut open = 0;
            for (number, member) in members.iter_mut().enumerate() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                member.go_on(self.address(number), tracker, self.habit);
                open += usize::from(member.stream.is_some());
            }
            self.open.store(open, Ordering::Relaxed);
            self.is_there.store(true, Ordering::Relaxed);
            thread::sleep(ROUND.saturating_sub(round.elapsed()));
        }
    }

    fn address(&self, number: usize) -> IpAddr {
        let [a, b, c, d] = self.first.octets();
        let network = c + (number % usize::from(self.addresses)) as u8;
        Ipv4Addr::new(a, b, network, d).into()
    }
}

// === impl Member ===

impl Member {
    /// Comes back if the connection was closed, and asks if it is time.
    fn go_on(&mut self, own: IpAddr, tracker: SocketAddr, habit: Habit) {
        let is_open = match &mut self.stream {
            Some(stream) => match stream.read(&mut [0; 1024]) {
                Ok(length) => length > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            },
            None => false,
        };
        if !is_open {
            self.stream = None;
            if habit.comes_at_once {
                self.asks_at = now();
            }
        }
        if self.stream.is_none() && self.asks_at <= now() {
            self.stream = open(own, tracker);
        }
        if self.asks_at <= now()
            && let Some(stream) = &mut self.stream
        {
            if stream.write_all(habit.sends).is_err() {
                self.stream = None;
            }
            self.asks_at = now() + std::mem::replace(&mut self.pause, PERIOD);
        }
    }
}

/// None if the tracker takes no connection now.
fn open(own: IpAddr, tracker: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::new(own, 0).into()).ok()?;
    let patience = Duration::from_millis(500);
    socket.connect_timeout(&tracker.into(), patience).ok()?;
    let stream: TcpStream = socket.into();
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}
