//! A listener whose connections are not registered with the runtime.
//!
//! The runtime's own listener registers each connection with the selector as it is accepted. That is
//! three system calls and an allocation, which a connection that is answered and closed at once does
//! not need.

#![allow(unsafe_code)] // registration of the listener, and a socket option that no crate has

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use libc::{IPPROTO_TCP, TCP_DEFER_ACCEPT, c_int, setsockopt, socklen_t};
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Seconds for which the kernel holds back a connection without data. Then it is accepted anyway.
const DEFER_SECONDS: c_int = 1;

pub(super) struct HttpListener(AsyncFd<TcpListener>);

/// The connections that wait at a listener, if any still do.
pub(super) struct AcceptQueue<'a>(AsyncFdReadyGuard<'a, TcpListener>);

// === impl HttpListener ===

impl HttpListener {
    /// Registers a non-blocking socket with the runtime.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        defer_accept(&listener)?;
        // SAFETY: a `TcpListener` owns its descriptor, keeps it open until it is dropped, and
        // always returns the same one; and nothing takes it out of the `AsyncFd`.
        let registered = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for connections.
    pub async fn connections(&self) -> io::Result<AcceptQueue<'_>> {
        Ok(AcceptQueue(self.0.readable().await?))
    }
}

// === impl AcceptQueue ===

impl AcceptQueue<'_> {
    /// Accepts a connection as a non-blocking socket, with its client's address; none if none waits.
    ///
    /// # Errors
    /// The connection was aborted, or the process has no file descriptor left.
    pub fn next(&mut self) -> Option<io::Result<(TcpStream, IpAddr)>> {
        self.0.try_io(|listener| accept(listener.get_ref())).ok()
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, address) = acceptfrom_with(listener, flags)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.ok_or(ErrorKind::AddrNotAvailable)?;
    Ok((stream.into(), address.ip()))
}

/// Makes the kernel hold a connection back until its first bytes have arrived, so that it is answered
/// when it is accepted. Clients send first, with TLS and without.
fn defer_accept(listener: &TcpListener) -> io::Result<()> {
    let seconds = DEFER_SECONDS;
    let length = size_of_val(&seconds) as socklen_t;
    let value = (&raw const seconds).cast();
    // SAFETY: the descriptor is open while it is borrowed, and `value` points to `length` bytes.
    let result = unsafe {
        setsockopt(
            listener.as_raw_fd(),
            IPPROTO_TCP,
            TCP_DEFER_ACCEPT,
            value,
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
