//! Internet addresses as the tracker needs them: canonical family, compact form, global or not.

mod public;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ipnet::{IpNet, Ipv4Net};

pub use public::{PublicAddress, PublicAddresses, Viewer};

/// An endpoint as replies carry it (BEP 23, BEP 7): the address, then the port, big-endian.
pub trait Compact: Copy + Eq + AsRef<[u8]> {
    /// Bytes of one endpoint on the wire.
    const LEN: usize;

    fn port(&self) -> u16;
    fn is_global(&self) -> bool;
    fn ip_addr(&self) -> IpAddr;

    /// The same port at another address; none if that is of the other family.
    fn with_ip(&self, ip: IpAddr) -> Option<Self>;

    /// The bytes that identify a host: an IPv4 address, or the network half of an IPv6 address, because a host
    /// may use any number of addresses in it.
    fn host(&self) -> &[u8];
}

/// An IPv4 endpoint: 4 bytes of address, 2 of port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compact4(pub [u8; 6]);

/// An IPv6 endpoint: 16 bytes of address, 2 of port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compact6(pub [u8; 18]);

/// The endpoint of a peer in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    V4(Compact4),
    V6(Compact6),
}

/// The canonical address: IPv4 for an IPv4-mapped one (rule U2).
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The canonical network: IPv4 for one of IPv4-mapped addresses (rule U2).
pub fn canonical_network(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else {
        return network;
    };
    let inner = mapped.network().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(96);
    let network_of = |(ip, prefix)| Ipv4Net::new(ip, prefix).ok();
    inner
        .zip(prefix)
        .and_then(network_of)
        .map_or(network, IpNet::V4)
}

/// Whether the address is reachable on the internet.
pub fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => is_global_v6(ip),
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a >= 224 // multicast, reserved, broadcast
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT, RFC 6598
        || (a, b, c) == (192, 0, 0) // IETF protocol assignments
        || (a == 198 && (b == 18 || b == 19))) // benchmarks, RFC 2544
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    // Only 2000::/3 is global unicast, except the documentation ranges.
    first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0x0db8)
}

// === impl Compact4 ===

impl Compact4 {
    pub fn new(ip: Ipv4Addr, port: u16) -> Self {
        let mut bytes = [0; 6];
        bytes[..4].copy_from_slice(&ip.octets());
        bytes[4..].copy_from_slice(&port.to_be_bytes());
        Self(bytes)
    }

    pub fn ip(&self) -> Ipv4Addr {
        let [a, b, c, d, ..] = self.0;
        Ipv4Addr::new(a, b, c, d)
    }

    pub fn socket_addr(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip(), self.port())
    }
}

impl Compact for Compact4 {
    const LEN: usize = 6;

    fn port(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    fn is_global(&self) -> bool {
        is_global_v4(self.ip())
    }

    fn ip_addr(&self) -> IpAddr {
        self.ip().into()
    }

    fn with_ip(&self, ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(Self::new(ip, self.port())),
            IpAddr::V6(_) => None,
        }
    }

    fn host(&self) -> &[u8] {
        &self.0[..4]
    }
}

impl AsRef<[u8]> for Compact4 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

// === impl Compact6 ===

impl Compact6 {
    pub fn new(ip: Ipv6Addr, port: u16) -> Self {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..].copy_from_slice(&port.to_be_bytes());
        Self(bytes)
    }

    pub fn ip(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0[..16]);
        Ipv6Addr::from(octets)
    }

    pub fn socket_addr(&self) -> SocketAddrV6 {
        SocketAddrV6::new(self.ip(), self.port(), 0, 0)
    }
}

impl Compact for Compact6 {
    const LEN: usize = 18;

    fn port(&self) -> u16 {
        u16::from_be_bytes([self.0[16], self.0[17]])
    }

    fn is_global(&self) -> bool {
        is_global_v6(self.ip())
    }

    fn ip_addr(&self) -> IpAddr {
        self.ip().into()
    }

    fn with_ip(&self, ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(Self::new(ip, self.port())),
        }
    }

    fn host(&self) -> &[u8] {
        &self.0[..8]
    }
}

impl AsRef<[u8]> for Compact6 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint of a canonical address.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        match canonical(ip) {
            IpAddr::V4(ip) => Self::V4(Compact4::new(ip, port)),
            IpAddr::V6(ip) => Self::V6(Compact6::new(ip, port)),
        }
    }

    pub fn ip(&self) -> IpAddr {
        match self {
            Self::V4(endpoint) => endpoint.ip().into(),
            Self::V6(endpoint) => endpoint.ip().into(),
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::V4(endpoint) => endpoint.port(),
            Self::V6(endpoint) => endpoint.port(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::V4(endpoint) => endpoint.socket_addr().into(),
            Self::V6(endpoint) => endpoint.socket_addr().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_one_of_ipv4() {
        for (written, meant) in [
            ("::ffff:7.7.7.0/120", "7.7.7.0/24"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("::ffff:0.0.0.0/95", "::ffff:0.0.0.0/95"),
            ("2a00::/32", "2a00::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            let written: IpNet = written.parse().unwrap();
            assert_eq!(canonical_network(written), meant.parse().unwrap());
        }
    }

    #[test]
    fn global_addresses_are_told_from_the_others() {
        for global in ["8.8.8.8", "100.128.0.1", "2a00::1", "2001:4860::8888"] {
            assert!(is_global(global.parse().unwrap()), "{global}");
        }
        for local in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.0.1",
            "100.64.0.1",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
        ] {
            assert!(!is_global(local.parse().unwrap()), "{local}");
        }
    }

    #[test]
    fn a_mapped_address_becomes_an_ipv4_endpoint() {
        let endpoint = Endpoint::new("::ffff:127.0.0.1".parse().unwrap(), 6881);
        assert_eq!(endpoint, Endpoint::V4(Compact4([127, 0, 0, 1, 0x1a, 0xe1])));
    }
}
