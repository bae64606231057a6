//! What a process inherits: file descriptors, from the one before it or from the service manager; and ignored
//! signals.

#![allow(unsafe_code)] // numbers from outside become owned descriptors here; and no crate ignores a signal

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{SockRef, Socket, Type};

/// A socket that was open when the process started.
#[derive(Debug)]
pub enum InheritedSocket {
    Listener(TcpListener, SocketAddr),
    Udp(UdpSocket, SocketAddr),
}

/// Takes ownership of a descriptor that was open when the process started. It is closed in child processes.
///
/// To be called once for each number, before the process opens anything that could get it.
///
/// # Errors
/// Nothing is open under that number; or it is one of the standard streams.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 || !fs::exists(format!("/proc/self/fd/{number}"))? {
        let problem = format!("descriptor {number} is not open");
        return Err(io::Error::new(ErrorKind::NotFound, problem));
    }
    // SAFETY: the descriptor is open, was opened before the start of this process, and is adopted only once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// Keeps a descriptor open when this process executes another program.
pub fn keep_on_exec(descriptor: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfd(descriptor, FdFlags::empty())?)
}

/// Ignores the signals to reload and to restart: the program that this process executes next would be ended by
/// one before it listens to them. It has just read everything by then.
pub fn ignore_signals() {
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: ignoring a signal runs no handler, and these signals are of no use to any library.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The sockets that the service manager passes (`LISTEN_FDS`, sd_listen_fds(3)).
///
/// # Errors
/// The variables are invalid.
pub fn from_service_manager() -> io::Result<Vec<OwnedFd>> {
    sd_notify::listen_fds()?.map(adopt).collect()
}

impl InheritedSocket {
    /// Finds out what a descriptor is.
    ///
    /// # Errors
    /// It is neither a listening TCP socket nor a UDP socket, or can't be used as one.
    pub fn of(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        let unusable = |problem: &str| io::Error::new(ErrorKind::InvalidInput, problem);
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| unusable("it has no IP address"))?;
        if address.is_ipv6() && !socket.only_v6()? {
            return Err(unusable(
                "it takes IPv4, too: set BindIPv6Only=ipv6-only, and give IPv4 a socket of its own",
            ));
        }
        match socket.r#type()? {
            Type::STREAM if socket.is_listener()? => {
                socket.set_nonblocking(true)?;
                socket.set_tcp_nodelay(true)?;
                Ok(Self::Listener(socket.into(), address))
            }
            Type::DGRAM => {
                socket.set_nonblocking(false)?;
                Ok(Self::Udp(socket.into(), address))
            }
            _ => Err(unusable("it is no listening TCP socket, and no UDP socket")),
        }
    }
}

/// A descriptor as an accepted connection.
///
/// # Errors
/// It is not a connected TCP socket.
pub fn connection(descriptor: OwnedFd) -> io::Result<TcpStream> {
    let stream = TcpStream::from(descriptor);
    let is_stream = SockRef::from(&stream).r#type()? == Type::STREAM;
    if !is_stream || stream.peer_addr().is_err() {
        return Err(ErrorKind::NotConnected.into());
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let found = InheritedSocket::of(listener.into()).unwrap();
        assert!(matches!(found, InheritedSocket::Listener(_, at) if at == address));

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        assert!(connection(udp.try_clone().unwrap().into()).is_err());
        let found = InheritedSocket::of(udp.into()).unwrap();
        assert!(matches!(found, InheritedSocket::Udp(_, at) if at == address));

        assert!(InheritedSocket::of(client.try_clone().unwrap().into()).is_err());
        assert!(connection(client.into()).is_ok());
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(InheritedSocket::of(unix.into()).is_err());
    }

    #[test]
    fn a_socket_of_both_families_is_refused_with_advice() {
        let socket = Socket::new(socket2::Domain::IPV6, Type::DGRAM, None).unwrap();
        socket.set_only_v6(false).unwrap();
        let any: SocketAddr = "[::]:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let error = InheritedSocket::of(socket.into()).unwrap_err();
        assert!(error.to_string().contains("BindIPv6Only"), "{error}");
    }

    #[test]
    fn closed_descriptors_and_standard_streams_are_not_adopted() {
        for number in [-1, 0, 1, 2, 1_000_000] {
            assert!(adopt(number).is_err(), "{number}");
        }
    }
}
