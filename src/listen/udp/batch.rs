//! Many packets with one system call: `recvmmsg` and `sendmmsg`.
//!
//! `docs/bench.md`, "udp", compares it with a call for each packet. No crate fits: `nix` has one
//! control message for all packets of a call, and each reply needs its own.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void, iovec, mmsghdr, msghdr};

use super::spool::Datagram;

/// Packets in one call.
pub const BATCH: usize = 64;

/// Bytes of a packet that are read; a longer one is truncated (rule U7).
const PACKET_MAX: usize = 2048;

/// Distance between two packets in the buffer: not a power of two, or their first bytes would all map to
/// the same cache sets.
const PACKET_PITCH: usize = PACKET_MAX + 64;

/// A socket address as the kernel writes it, of either family.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME]);

const NAME: usize = size_of::<libc::sockaddr_in6>();

/// One control message, with the address that a packet was sent to.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const CONTROL: usize = CONTROL_HEADER + 24;

/// Length, level and type of a control message.
const CONTROL_HEADER: usize = size_of::<usize>() + 8;

const PKTINFO_V4: usize = size_of::<libc::in_pktinfo>();
const PKTINFO_V6: usize = size_of::<libc::in6_pktinfo>();

/// A packet's source, and the address of this host that it was sent to, from which the reply is sent
/// (rule U2).
#[derive(Clone, Copy)]
pub struct Route {
    name: Name,
    name_len: u32,
    control: Control,
    control_len: usize,
}

/// A batch of received packets.
///
/// The headers are written once, and point into the other vectors: the kernel changes only their
/// lengths and flags. None of the vectors ever grows, so pointers to their elements stay valid.
pub struct Received {
    packets: Vec<u8>,
    routes: Vec<Route>,
    _parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
    /// Headers that the last call may have written to.
    used: usize,
}

/// A batch of packets to send, in one buffer that is reused.
pub struct Outgoing {
    bytes: Vec<u8>,
    /// The end of each packet in `bytes`, and its route.
    packets: Vec<(usize, Route)>,
    /// The parts and headers of one call; empty between calls.
    parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

// SAFETY: `parts` and `headers` hold pointers only during a call, and are empty between calls.
unsafe impl Send for Outgoing {}

/// Makes the kernel report the address that each packet was sent to (`IP_PKTINFO`).
pub fn enable_pktinfo(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    let on: c_int = 1;
    // SAFETY: `on` has the length that is passed, and is only read during the call.
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
    const EMPTY: Self = Self {
        name: Name([0; NAME]),
        name_len: 0,
        control: Control([0; CONTROL]),
        control_len: 0,
    };

    /// The route to `address`, from the address of this host that the kernel chooses.
    pub fn to(address: SocketAddr) -> Self {
        let mut route = Self::EMPTY;
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

    /// The route of a packet from `source` that was sent to `destination`, if that is known.
    pub fn between(source: SocketAddr, destination: Option<IpAddr>) -> Self {
        let mut route = Self::to(source);
        let mut info = [0; PKTINFO_V6];
        let (level, kind, info) = match destination {
            None => return route,
            Some(IpAddr::V4(ip)) => {
                info[4..8].copy_from_slice(&ip.octets());
                info[8..12].copy_from_slice(&ip.octets());
                (libc::IPPROTO_IP, libc::IP_PKTINFO, &info[..PKTINFO_V4])
            }
            Some(IpAddr::V6(ip)) => {
                info[..16].copy_from_slice(&ip.octets());
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info[..])
            }
        };
        let length = CONTROL_HEADER + info.len();
        let header = [
            &length.to_ne_bytes()[..],
            &level.to_ne_bytes(),
            &kind.to_ne_bytes(),
        ];
        let control = &mut route.control.0;
        control[..CONTROL_HEADER].copy_from_slice(&header.concat());
        control[CONTROL_HEADER..length].copy_from_slice(info);
        route.control_len = length.next_multiple_of(size_of::<usize>());
        route
    }

    /// The source of the packet; none if it is unknown.
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

    /// The address of this host that the packet was sent to, if the socket has [`enable_pktinfo`].
    pub fn destination(&self) -> Option<IpAddr> {
        let control = self.control.0.get(..self.control_len)?;
        match self.pktinfo()? {
            libc::AF_INET => bytes_at::<4>(control, CONTROL_HEADER + 8).map(IpAddr::from),
            _ => bytes_at::<16>(control, CONTROL_HEADER).map(IpAddr::from),
        }
    }

    /// Turns the route of a received packet into that of its reply: from the address that the packet was sent
    /// to, through the interface that the kernel chooses.
    fn reverse(&mut self) {
        let (info, len) = match self.pktinfo() {
            Some(libc::AF_INET) => (0, PKTINFO_V4),
            // A link-local address has its interface in the scope, too.
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

    /// The family of the control message that came with the packet.
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
        let mut routes = vec![Route::EMPTY; BATCH];
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
    /// Waits for a packet up to the socket's timeout, and receives what else has arrived, up to
    /// [`BATCH`] packets. Returns their number.
    ///
    /// # Errors
    /// Those of `recvmmsg`; `WouldBlock` after the timeout.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in &mut self.headers[..self.used.max(1)] {
            header.msg_hdr.msg_namelen = NAME as u32;
            header.msg_hdr.msg_controllen = CONTROL;
        }
        self.used = 0;
        // SAFETY: each header points to a part, a name and a control buffer of its own, with the lengths
        // that it says, in vectors of `self` that never grow and are not borrowed now.
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

    /// Replaces the batch by datagrams that were received earlier, up to [`BATCH`]. Returns their number.
    pub fn load(&mut self, datagrams: &[Datagram]) -> usize {
        let number = datagrams.len().min(BATCH);
        self.used = number;
        for (at, datagram) in datagrams[..number].iter().enumerate() {
            let length = datagram.packet.len().min(PACKET_MAX);
            self.packets[at * PACKET_PITCH..][..length].copy_from_slice(&datagram.packet[..length]);
            self.routes[at] = Route::between(datagram.source, datagram.destination);
            self.headers[at].msg_len = length as u32;
        }
        number
    }

    /// Packet number `at` of the batch.
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
            packets: Vec::with_capacity(BATCH),
            parts: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
        }
    }
}

impl Outgoing {
    /// A single packet, in no more memory than it needs.
    pub fn one(route: &Route, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut outgoing = Self {
            bytes: Vec::new(),
            packets: Vec::with_capacity(1),
            parts: Vec::new(),
            headers: Vec::new(),
        };
        outgoing.add(route, write);
        outgoing
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Adds the packet that `write` appends, as a reply to a packet received over `route`.
    pub fn add(&mut self, route: &Route, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.headers.is_empty(), "headers point into the buffers");
        let mut route = *route;
        route.reverse();
        write(&mut self.bytes);
        self.packets.push((self.bytes.len(), route));
    }

    /// Sends all packets and clears the batch. Returns how many could not be sent: they are dropped, as
    /// the network might drop them.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut lost = 0;
        let mut start = 0;
        for at in (0..self.packets.len()).step_by(BATCH) {
            let end = self.packets.len().min(at + BATCH);
            self.fill_headers(at..end, &mut start);
            lost += send(socket, &mut self.headers);
            self.parts.clear();
            self.headers.clear();
        }
        self.bytes.clear();
        self.packets.clear();
        lost
    }

    /// Makes the headers of a range of packets, the first of which begins at `start`.
    fn fill_headers(&mut self, range: Range<usize>, start: &mut usize) {
        let packets = &mut self.packets[range];
        // All parts are added before the first header points to one: a growing vector moves its elements.
        self.parts.extend(packets.iter().map(|(end, _)| {
            let packet = &self.bytes[*start..*end];
            *start = *end;
            iovec {
                iov_base: packet.as_ptr().cast_mut().cast(),
                iov_len: packet.len(),
            }
        }));
        let parts = self.parts.iter_mut();
        self.headers
            .extend(packets.iter_mut().zip(parts).map(|((_, route), part)| {
                let control: *mut c_void = match route.control_len {
                    0 => std::ptr::null_mut(),
                    _ => route.control.0.as_mut_ptr().cast(),
                };
                let name = route.name.0.as_mut_ptr().cast();
                header(part, name, route.name_len, control, route.control_len)
            }));
    }
}

/// Sends the packets of the headers. Returns how many the kernel refused.
fn send(socket: &UdpSocket, headers: &mut [mmsghdr]) -> usize {
    let (mut at, mut lost) = (0, 0);
    while at < headers.len() {
        let rest = &mut headers[at..];
        // SAFETY: `fill_headers` has just made each header point to a name, a part and a control message
        // with the lengths that it says. The kernel only reads them, and writes `msg_len`.
        let result =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        match usize::try_from(result) {
            Ok(sent) if sent > 0 => at += sent,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // The kernel refused the first packet of the rest.
            _ => {
                at += 1;
                lost += 1;
            }
        }
    }
    lost
}

/// A header with these pointers.
fn header(
    part: *mut iovec,
    name: *mut c_void,
    name_len: u32,
    control: *mut c_void,
    control_len: usize,
) -> mmsghdr {
    // SAFETY: it has only integers and pointers, for which zero is valid.
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
        enable_pktinfo(&socket).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let client = UdpSocket::bind(other).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (socket, client)
    }

    fn replies_from_the_destination(own: &str, client: &str, hit: &str) {
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
    fn replies_come_from_the_address_that_was_sent_to() {
        replies_from_the_destination("0.0.0.0:0", "127.0.0.9:0", "127.1.2.3");
        replies_from_the_destination("127.0.0.5:0", "127.0.0.9:0", "127.0.0.5");
        replies_from_the_destination("[::]:0", "[::1]:0", "::1");
    }

    #[test]
    fn packets_that_can_not_be_sent_are_dropped_and_the_rest_is_sent() {
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
    fn loaded_datagrams_are_answered_like_received_ones() {
        for (own, other, hit) in [
            ("0.0.0.0:0", "127.0.0.9:0", "127.1.2.3"),
            ("[::]:0", "[::1]:0", "::1"),
        ] {
            let (socket, client) = pair(own, other);
            let port = socket.local_addr().unwrap().port();
            let hit = SocketAddr::new(hit.parse().unwrap(), port);
            let datagram = |number: u8| Datagram {
                at: 0,
                source: client.local_addr().unwrap(),
                destination: Some(hit.ip()),
                packet: [number].into(),
            };
            let datagrams: Vec<Datagram> = (0..3).map(datagram).collect();
            let mut received = Received::default();
            let mut outgoing = Outgoing::default();
            assert_eq!(received.load(&datagrams), 3);
            for at in 0..3 {
                let route = received.route(at);
                assert_eq!(route.source(), Some(client.local_addr().unwrap()));
                assert_eq!(route.destination(), Some(hit.ip()));
                outgoing.add(route, |out| out.extend_from_slice(received.packet(at)));
            }
            assert_eq!(outgoing.send(&socket), 0);
            let mut buffer = [0; 10];
            for number in 0..3 {
                assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, hit));
                assert_eq!(buffer[0], number);
            }
            // And the buffers still receive.
            client.send_to(b"abc", hit).unwrap();
            assert_eq!(received.receive(&socket).unwrap(), 1);
            assert_eq!(received.packet(0), b"abc");
        }
    }

    #[test]
    fn a_timeout_is_would_block() {
        let (socket, _client) = pair("127.0.0.1:0", "127.0.0.1:0");
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let error = Received::default().receive(&socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
