//! Many packets with one system call: `recvmmsg` and `sendmmsg`.
//!
//! Measured against a call a packet (`docs/bench.md`, "udp"), which is why this module may do
//! what no other may: call the system by raw pointers.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void, iovec, mmsghdr, msghdr};

/// Packets of one call.
pub const BATCH: usize = 64;

/// The longest packet that is read; what is longer is cut (rule U7).
const PACKET_MAX: usize = 2048;

/// Between the beginnings of two packets: no power of two, or their first bytes would all
/// compete for the same lines of the processor's cache.
const PACKET_PITCH: usize = PACKET_MAX + 64;

/// A socket address as the kernel writes it, of either family.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME]);

const NAME: usize = size_of::<libc::sockaddr_in6>();

/// One control message with the address that a packet was sent to.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const CONTROL: usize = CONTROL_HEADER + 24;

/// Length, level and type of a control message.
const CONTROL_HEADER: usize = size_of::<usize>() + 8;

const PKTINFO_V4: usize = size_of::<libc::in_pktinfo>();
const PKTINFO_V6: usize = size_of::<libc::in6_pktinfo>();

/// Where a packet came from and which of the host's addresses it was sent to: all that an
/// answer needs to find its way, from the address that was hit (rule U2).
#[derive(Clone, Copy)]
pub struct Route {
    name: Name,
    name_len: u32,
    control: Control,
    control_len: usize,
}

/// Packets as they were received.
///
/// The headers are written once, and point into the rest for good: the kernel changes nothing of
/// them but lengths and flags. The rest are vectors, none of which ever grows: pointers to their
/// elements stay good while these are only read.
pub struct Received {
    packets: Vec<u8>,
    routes: Vec<Route>,
    _parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
    /// Headers that the last call may have written to.
    used: usize,
}

/// Packets to be sent, in one piece of memory that is used again and again.
pub struct Outgoing {
    bytes: Vec<u8>,
    /// Where each packet ends, and its way.
    letters: Vec<(usize, Route)>,
    /// Room for the parts and headers of one call.
    parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

// SAFETY: between two calls both lists are empty; pointers are in them only during one.
unsafe impl Send for Outgoing {}

/// Makes the kernel tell the address that each packet was sent to.
///
/// # Errors
/// The system refuses.
pub fn tell_destinations(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    let on: c_int = 1;
    // SAFETY: `on` is as long as is said, and is only read during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

// === impl Route ===

impl Route {
    const NOWHERE: Self = Self {
        name: Name([0; NAME]),
        name_len: 0,
        control: Control([0; CONTROL]),
        control_len: 0,
    };

    /// The way to that address, from whatever address of this host the system chooses.
    pub fn to(address: SocketAddr) -> Self {
        let mut route = Self::NOWHERE;
        let name = &mut route.name.0;
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(address) => {
                name[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(address) => {
                name[8..24].copy_from_slice(&address.ip().octets());
                name[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                (libc::AF_INET6, NAME)
            }
        };
        name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        route.name_len = len as u32;
        route
    }

    /// Where the packet came from; none if the kernel did not tell.
    pub fn source(&self) -> Option<SocketAddr> {
        let name = &self.name.0;
        let port = u16::from_be_bytes([name[2], name[3]]);
        match c_int::from(u16::from_ne_bytes([name[0], name[1]])) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(bytes_at(name, 4)?);
                Some((ip, port).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(bytes_at::<16>(name, 8)?);
                let scope = u32::from_ne_bytes(bytes_at(name, 24)?);
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }

    /// The address of this host that the packet was sent to, where the socket tells it.
    pub fn destination(&self) -> Option<IpAddr> {
        let control = self.control.0.get(..self.control_len)?;
        match self.pktinfo()? {
            libc::AF_INET => bytes_at::<4>(control, CONTROL_HEADER + 8).map(IpAddr::from),
            _ => bytes_at::<16>(control, CONTROL_HEADER).map(IpAddr::from),
        }
    }

    /// Turns what was received into what is to be sent: back from the address that was hit, by
    /// whatever interface the system's routes say.
    fn turn(&mut self) {
        let (info, len) = match self.pktinfo() {
            Some(libc::AF_INET) => (0, PKTINFO_V4),
            // The interface of a link-local address is in its scope, too.
            Some(_) => (16, PKTINFO_V6),
            None => {
                self.control_len = 0;
                return;
            }
        };
        let at = CONTROL_HEADER + info;
        self.control.0[at..at + 4].fill(0);
        self.control_len = (CONTROL_HEADER + len).next_multiple_of(size_of::<usize>());
    }

    /// The family of the address information that came with the packet.
    fn pktinfo(&self) -> Option<c_int> {
        let control = self.control.0.get(..self.control_len)?;
        let length = usize::from_ne_bytes(bytes_at(control, 0)?);
        let level = c_int::from_ne_bytes(bytes_at(control, size_of::<usize>())?);
        let kind = c_int::from_ne_bytes(bytes_at(control, size_of::<usize>() + 4)?);
        let v4 = (level, kind) == (libc::IPPROTO_IP, libc::IP_PKTINFO);
        let v6 = (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
        if v4 && length == CONTROL_HEADER + PKTINFO_V4 {
            Some(libc::AF_INET)
        } else if v6 && length == CONTROL_HEADER + PKTINFO_V6 {
            Some(libc::AF_INET6)
        } else {
            None
        }
    }
}

fn bytes_at<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    bytes.get(at..)?.first_chunk().copied()
}

// === impl Received ===

impl Default for Received {
    fn default() -> Self {
        let mut packets = vec![0_u8; BATCH * PACKET_PITCH];
        let mut routes = vec![Route::NOWHERE; BATCH];
        let part = |at| iovec {
            iov_base: packets.as_mut_ptr().wrapping_add(at * PACKET_PITCH).cast(),
            iov_len: PACKET_MAX,
        };
        let mut parts: Vec<iovec> = (0..BATCH).map(part).collect();
        let empty = |at| {
            let part = parts.as_mut_ptr().wrapping_add(at);
            let route = routes.as_mut_ptr().wrapping_add(at).cast::<u8>();
            let name = route.wrapping_add(offset_of!(Route, name));
            let control = route.wrapping_add(offset_of!(Route, control));
            header(part, name.cast(), NAME as u32, control.cast(), CONTROL)
        };
        let headers = (0..BATCH).map(empty).collect();
        Self {
            packets,
            routes,
            _parts: parts,
            headers,
            used: 0,
        }
    }
}

impl Received {
    /// Waits for a packet as long as the socket's timeout lets it, and takes what else is there,
    /// up to [`BATCH`]. Returns how many came.
    ///
    /// # Errors
    /// Those of `recvmmsg`; `WouldBlock` after the timeout.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in &mut self.headers[..self.used.max(1)] {
            header.msg_hdr.msg_namelen = NAME as u32;
            header.msg_hdr.msg_controllen = CONTROL;
        }
        self.used = 0;
        // SAFETY: every header points to a part, a name and a control buffer of its own, as long
        // as it says, which lie in vectors of `self`, as long as ever and borrowed by nobody.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let number = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        self.used = number;
        for (route, header) in self.routes.iter_mut().zip(&self.headers[..number]) {
            route.name_len = header.msg_hdr.msg_namelen;
            route.control_len = header.msg_hdr.msg_controllen.min(CONTROL);
        }
        Ok(number)
    }

    /// One of the packets that came.
    pub fn packet(&self, at: usize) -> &[u8] {
        let length = self.headers[at].msg_len as usize;
        &self.packets[at * PACKET_PITCH..][..length.min(PACKET_MAX)]
    }

    pub fn route(&self, at: usize) -> &Route {
        &self.routes[at]
    }
}

// === impl Outgoing ===

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(BATCH * 512),
            letters: Vec::with_capacity(BATCH),
            parts: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
        }
    }
}

impl Outgoing {
    /// A single packet, in no more memory than it takes.
    pub fn one(route: &Route, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut outgoing = Self {
            bytes: Vec::new(),
            letters: Vec::with_capacity(1),
            parts: Vec::new(),
            headers: Vec::new(),
        };
        outgoing.add(route, write);
        outgoing
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Adds the packet that `write` appends, to go back where `route` came from.
    pub fn add(&mut self, route: &Route, write: impl FnOnce(&mut Vec<u8>)) {
        let mut route = *route;
        route.turn();
        write(&mut self.bytes);
        self.letters.push((self.bytes.len(), route));
    }

    /// Sends all that was added, and forgets it. Returns how many packets could not be sent:
    /// each is given up, as the network might have lost it, too.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut lost = 0;
        let mut start = 0;
        for at in (0..self.letters.len()).step_by(BATCH) {
            let end = self.letters.len().min(at + BATCH);
            self.address(at..end, &mut start);
            lost += send(socket, &mut self.headers);
            self.parts.clear();
            self.headers.clear();
        }
        self.bytes.clear();
        self.letters.clear();
        lost
    }

    /// Makes the headers of those letters, the first of which begins at `start`.
    fn address(&mut self, letters: Range<usize>, start: &mut usize) {
        let letters = &mut self.letters[letters];
        // Before the first pointer to one of them: they must not move any more.
        self.parts.extend(letters.iter().map(|(end, _)| {
            let packet = &self.bytes[*start..*end];
            *start = *end;
            iovec {
                iov_base: packet.as_ptr().cast_mut().cast(),
                iov_len: packet.len(),
            }
        }));
        let parts = self.parts.iter_mut();
        self.headers
            .extend(letters.iter_mut().zip(parts).map(|((_, route), part)| {
                let control: *mut c_void = match route.control_len {
                    0 => std::ptr::null_mut(),
                    _ => route.control.0.as_mut_ptr().cast(),
                };
                let name = route.name.0.as_mut_ptr().cast();
                header(part, name, route.name_len, control, route.control_len)
            }));
    }
}

/// Sends the packets of those headers; returns how many the kernel would not take.
fn send(socket: &UdpSocket, headers: &mut [mmsghdr]) -> usize {
    let (mut at, mut lost) = (0, 0);
    while at < headers.len() {
        let rest = &mut headers[at..];
        // SAFETY: `address` has just made every header point to a name, a part and a control
        // message, as long as it says. The kernel only reads them and writes `msg_len`.
        let result =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        match usize::try_from(result) {
            Ok(sent) if sent > 0 => at += sent,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // The first one of the rest is what the kernel would not send.
            _ => {
                at += 1;
                lost += 1;
            }
        }
    }
    lost
}

/// A header that points to those parts.
fn header(
    part: *mut iovec,
    name: *mut c_void,
    name_len: u32,
    control: *mut c_void,
    control_len: usize,
) -> mmsghdr {
    // SAFETY: plain integers and pointers, for which all zeros are a value.
    let mut header: mmsghdr = unsafe { std::mem::zeroed() };
    let message: &mut msghdr = &mut header.msg_hdr;
    message.msg_name = name;
    message.msg_namelen = name_len;
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = control_len;
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pair(own: &str, other: &str) -> (UdpSocket, UdpSocket) {
        let socket = UdpSocket::bind(own).unwrap();
        tell_destinations(&socket).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let client = UdpSocket::bind(other).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (socket, client)
    }

    fn answers_from_where_it_was_hit(own: &str, client: &str, hit: &str) {
        let (socket, client) = pair(own, client);
        let hit: SocketAddr = (
            hit.parse::<IpAddr>().unwrap(),
            socket.local_addr().unwrap().port(),
        )
            .into();
        let (mut received, mut outgoing) = (Received::default(), Outgoing::default());
        for round in 0..3 {
            for number in 0..5 {
                client.send_to(&[round, number], hit).unwrap();
            }
            let mut came = 0;
            while came < 5 {
                let number = received.receive(&socket).unwrap();
                for at in 0..number {
                    let route = received.route(at);
                    assert_eq!(route.source(), Some(client.local_addr().unwrap()));
                    assert_eq!(route.destination(), Some(hit.ip()));
                    let packet = received.packet(at);
                    outgoing.add(route, |out| out.extend([packet, b"!"].concat()));
                }
                assert_eq!(outgoing.send(&socket), 0);
                assert!(outgoing.is_empty());
                came += number;
            }
            for number in 0..5 {
                let mut buffer = [0; 10];
                let (length, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], &[round, number, b'!']);
                assert_eq!(from, hit);
            }
        }
    }

    #[test]
    fn replies_come_from_the_address_that_was_hit() {
        answers_from_where_it_was_hit("0.0.0.0:0", "127.0.0.9:0", "127.1.2.3");
        answers_from_where_it_was_hit("127.0.0.5:0", "127.0.0.9:0", "127.0.0.5");
        answers_from_where_it_was_hit("[::]:0", "[::1]:0", "::1");
    }

    #[test]
    fn what_can_not_be_sent_is_given_up_and_the_rest_goes() {
        let (socket, client) = pair("127.0.0.1:0", "127.0.0.1:0");
        let mut outgoing = Outgoing::default();
        let there = Route::to(client.local_addr().unwrap());
        let nowhere = Route::to("127.0.0.1:0".parse().unwrap());
        for number in 0..150_u8 {
            let route = if number % 50 == 7 { &nowhere } else { &there };
            outgoing.add(route, |out| out.push(number));
        }
        assert_eq!(outgoing.send(&socket), 3);
        let mut buffer = [0; 10];
        for number in (0..150).filter(|number| number % 50 != 7) {
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    }

    #[test]
    fn a_timeout_is_told_as_such() {
        let (socket, _client) = pair("127.0.0.1:0", "127.0.0.1:0");
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let error = Received::default().receive(&socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
