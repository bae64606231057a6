//! What may hold a port: another listener, or an outgoing connection of this host.
//!
//! Linux takes the local ports of outgoing connections from a range, 32768 to 60999 by default. A
//! connection that has a listener's port, or had it and was closed by this side within the last minute
//! (TIME-WAIT), keeps the port from being bound: `SO_REUSEADDR` helps only if both sockets set it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// Transport protocols that listeners use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// What holds a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A socket that clients connect or send to.
    Listener,
    /// A connection, possibly in TIME-WAIT.
    Connection,
}

/// The port range of outgoing connections on this host, and the reserved ports in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingPorts {
    range: RangeInclusive<u16>,
    reserved: Vec<RangeInclusive<u16>>,
}

/// The state `LISTEN` of a TCP socket in the tables of the kernel.
const LISTEN: u8 = 0x0a;

impl OutgoingPorts {
    /// Reads those of this host; none if they are unknown.
    pub fn read() -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
        let reserved = read("ip_local_reserved_ports").unwrap_or_default();
        Self::parse(&read("ip_local_port_range")?, &reserved)
    }

    fn parse(range: &str, reserved: &str) -> Option<Self> {
        let mut ends = range.split_whitespace();
        let (first, last) = (ends.next()?.parse().ok()?, ends.next()?.parse().ok()?);
        let reserved = reserved
            .trim()
            .split(',')
            .filter_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
            })
            .collect();
        Some(Self {
            range: first..=last,
            reserved,
        })
    }

    /// Whether an outgoing connection may use that port.
    pub fn may_take(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}

/// What prevents a listener from binding `address` now; none if nothing does, or it is unknown.
pub fn holder(address: SocketAddr, transport: Transport) -> Option<Holder> {
    let name = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let look = |table: String| {
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        holder_in(&text, address, transport)
    };
    let own = if address.is_ipv4() {
        look(name.into())
    } else {
        None
    };
    // An IPv6 socket may hold the port for IPv4, too.
    own.or_else(|| look(format!("{name}6")))
}

/// Searches one table of the kernel: `sl local_address rem_address st …` in hexadecimal.
fn holder_in(table: &str, address: SocketAddr, transport: Transport) -> Option<Holder> {
    let mut found = None;
    for line in table.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if port_of(local) != Some(address.port()) || !overlaps(local, address.ip()) {
            continue;
        }
        let is_listener = match transport {
            Transport::Tcp => u8::from_str_radix(state, 16) == Ok(LISTEN),
            Transport::Udp => port_of(remote) == Some(0),
        };
        if is_listener {
            return Some(Holder::Listener);
        }
        found = Some(Holder::Connection);
    }
    found
}

/// Whether a socket with that local address may prevent binding `ip`: it has the same address, or one of
/// the two is unspecified.
fn overlaps(local: &str, ip: IpAddr) -> bool {
    let Some((address, _)) = local.rsplit_once(':') else {
        return false;
    };
    // Words of four bytes in native byte order.
    let hex = |octets: &[u8]| -> String {
        octets
            .as_chunks()
            .0
            .iter()
            .map(|&word| format!("{:08X}", u32::from_ne_bytes(word)))
            .collect::<Vec<_>>()
            .concat()
    };
    let (same, mapped) = match ip {
        IpAddr::V4(ip) => (hex(&ip.octets()), hex(&ip.to_ipv6_mapped().octets())),
        IpAddr::V6(ip) => (hex(&ip.octets()), String::new()),
    };
    let is_unspecified = address.bytes().all(|byte| byte == b'0');
    is_unspecified || ip.is_unspecified() || address == same || address == mapped
}

fn port_of(endpoint: &str) -> Option<u16> {
    let (_, port) = endpoint.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn reserved_ports_are_not_used_by_outgoing_connections() {
        let may_take = |range: &str, reserved: &str, port| {
            OutgoingPorts::parse(range, reserved).map(|ports| ports.may_take(port))
        };
        let usual = "32768\t60999\n";
        assert_eq!(may_take(usual, "\n", 34000), Some(true));
        assert_eq!(may_take(usual, "\n", 6969), Some(false));
        assert_eq!(may_take(usual, "34000-34001\n", 34000), Some(false));
        assert_eq!(may_take(usual, "8080,34000\n", 34000), Some(false));
        assert_eq!(may_take(usual, "8080,34001-34003\n", 34000), Some(true));
        assert_eq!(may_take("junk", "", 34000), None);
    }

    #[test]
    fn listeners_are_distinguished_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
            0: 0100007F:84D0 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:84D1 0100007F:1F90 06 00000000:00000000\n   \
            2: 00000000000000000000000001000000:84D2 00000000000000000000000000000000:0000 07\n";
        let holder =
            |address: &str, transport| holder_in(table, address.parse().unwrap(), transport);
        let tcp = |address| holder(address, Transport::Tcp);
        assert_eq!(tcp("127.0.0.1:34000"), Some(Holder::Listener));
        assert_eq!(tcp("0.0.0.0:34000"), Some(Holder::Listener));
        assert_eq!(tcp("127.0.0.2:34000"), None);
        assert_eq!(tcp("127.0.0.1:34001"), Some(Holder::Connection));
        assert_eq!(tcp("127.0.0.1:34003"), None);
        let udp = |address| holder(address, Transport::Udp);
        assert_eq!(udp("[::1]:34002"), Some(Holder::Listener));
        assert_eq!(udp("[::2]:34002"), None);
        assert_eq!(udp("127.0.0.1:34001"), Some(Holder::Connection));
    }

    #[test]
    fn the_sockets_of_this_host_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(holder(address, Transport::Tcp), Some(Holder::Listener));
        let outgoing = TcpStream::connect(address).unwrap();
        let own = outgoing.local_addr().unwrap();
        assert_eq!(holder(own, Transport::Tcp), Some(Holder::Connection));
    }
}
