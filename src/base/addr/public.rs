//! The addresses that others get for peers in the tracker's own networks.
//!
//! A client in a local network announces from an address that the internet can't reach. If the public
//! address of its network is configured, that one is handed out with the client's port; peers in the same
//! network still get its own address.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Compact, canonical, is_global};

/// The public addresses of local networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Vec<Configured>", into = "Vec<Configured>")]
pub struct PublicAddresses {
    /// Those with a network first, otherwise in the order of the config: the first match counts.
    mappings: Vec<PublicAddress>,
}

/// One public address, and the network behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// None: every local address of its family.
    pub network: Option<IpNet>,
    pub address: IpAddr,
}

/// An entry of the config.
#[derive(Deserialize, Serialize)]
#[serde(untagged, deny_unknown_fields)]
enum Configured {
    /// The public address of every local address of its family.
    All(IpAddr),
    /// The public address of one network.
    Network { network: IpNet, address: IpAddr },
}

/// What decides which addresses a requester can reach.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    addresses: &'a PublicAddresses,
    position: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// On the internet.
    Outside,
    /// On the tracker's own host, which reaches all of its networks.
    Host,
    Inside(Neighbourhood),
}

/// Hosts that reach each other directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbourhood {
    /// The network of a mapping, by index.
    Listed(usize),
    Loopback,
    LinkLocal,
    Documentation,
    /// All other local addresses.
    Other,
}

/// Whether it is in a documentation network.
fn is_documentation(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_documentation(),
        IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0x0db8],
    }
}

// === impl PublicAddresses ===

impl PublicAddresses {
    /// Mappings with a network take precedence over those without.
    pub fn new(mut mappings: Vec<PublicAddress>) -> Self {
        mappings.sort_by_key(|mapping| mapping.network.is_none());
        Self { mappings }
    }

    /// The public address of a local one; none if it is not local or has no mapping.
    pub fn of(&self, ip: IpAddr) -> Option<IpAddr> {
        if self.mappings.is_empty() || is_global(ip) {
            return None;
        }
        let found = self.mappings.iter().find(|mapping| {
            let fits = match mapping.network {
                Some(network) => network.contains(&ip),
                None => !is_documentation(ip),
            };
            fits && mapping.address.is_ipv4() == ip.is_ipv4()
        });
        found.map(|mapping| mapping.address)
    }

    /// The requester at that address.
    pub fn viewer(&self, ip: IpAddr) -> Viewer<'_> {
        let ip = canonical(ip);
        let position = match ip {
            ip if is_global(ip) => Position::Outside,
            ip if ip.is_loopback() => Position::Host,
            ip => Position::Inside(self.neighbourhood(ip)),
        };
        Viewer {
            addresses: self,
            position,
        }
    }

    fn neighbourhood(&self, ip: IpAddr) -> Neighbourhood {
        let mut mappings = self.mappings.iter();
        let listed =
            mappings.position(|mapping| mapping.network.is_some_and(|net| net.contains(&ip)));
        let is_link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        match listed {
            Some(place) => Neighbourhood::Listed(place),
            None if ip.is_loopback() => Neighbourhood::Loopback,
            None if is_link_local => Neighbourhood::LinkLocal,
            None if is_documentation(ip) => Neighbourhood::Documentation,
            None => Neighbourhood::Other,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &PublicAddress> {
        self.mappings.iter()
    }

    fn has(&self, address: IpAddr) -> bool {
        self.mappings
            .iter()
            .any(|mapping| mapping.address == address)
    }
}

impl From<Vec<Configured>> for PublicAddresses {
    fn from(entries: Vec<Configured>) -> Self {
        let mapping = |entry| match entry {
            Configured::All(address) => PublicAddress {
                network: None,
                address,
            },
            Configured::Network { network, address } => PublicAddress {
                network: Some(network),
                address,
            },
        };
        Self::new(entries.into_iter().map(mapping).collect())
    }
}

impl From<PublicAddresses> for Vec<Configured> {
    fn from(addresses: PublicAddresses) -> Self {
        let entry = |PublicAddress { network, address }| match network {
            None => Configured::All(address),
            Some(network) => Configured::Network { network, address },
        };
        addresses.mappings.into_iter().map(entry).collect()
    }
}

// === impl Viewer ===

impl Viewer<'_> {
    /// The endpoint at which the viewer reaches a peer; none if it can't.
    pub fn reaches<C: Compact>(&self, peer: C) -> Option<C> {
        if peer.is_global() {
            return Some(peer);
        }
        let addresses = self.addresses;
        if addresses.mappings.is_empty() {
            return (self.position != Position::Outside).then_some(peer);
        }
        let ip = peer.ip_addr();
        let mapped = || addresses.of(ip).and_then(|public| peer.with_ip(public));
        match self.position {
            Position::Outside => mapped(),
            Position::Host => Some(peer),
            Position::Inside(own) if own == addresses.neighbourhood(ip) => Some(peer),
            Position::Inside(_) => Some(mapped().unwrap_or(peer)),
        }
    }

    /// Appends the endpoint at which the viewer at `own` reaches a peer. False if there is none, if it is
    /// the viewer's own, or if it is in the list already: several local peers may share a public address,
    /// and only one of them can have the port there.
    pub fn hand_out<C: Compact>(&self, own: C, peer: C, out: &mut Vec<u8>) -> bool {
        let Some(endpoint) = self.reaches(peer).filter(|&endpoint| endpoint != own) else {
            return false;
        };
        let may_repeat = !self.addresses.mappings.is_empty() && {
            let ip = endpoint.ip_addr();
            self.addresses.has(ip)
        };
        if may_repeat
            && out
                .chunks_exact(C::LEN)
                .any(|given| given == endpoint.as_ref())
        {
            return false;
        }
        out.extend_from_slice(endpoint.as_ref());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::{Compact4, Endpoint};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Compact4 {
        match Endpoint::new(ip(text), 6881) {
            Endpoint::V4(endpoint) => endpoint,
            Endpoint::V6(_) => panic!("{text}"),
        }
    }

    fn addresses(mappings: &[(Option<&str>, &str)]) -> PublicAddresses {
        let mappings = mappings.iter().map(|(network, address)| PublicAddress {
            network: network.map(|network| network.parse().unwrap()),
            address: ip(address),
        });
        PublicAddresses::new(mappings.collect())
    }

    #[test]
    fn an_address_alone_is_that_of_all_local_ones_of_its_family() {
        let public = addresses(&[(None, "8.8.8.8"), (None, "2a00::8")]);
        for local in [
            "192.168.1.2",
            "10.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
        ] {
            assert_eq!(public.of(ip(local)), Some(ip("8.8.8.8")), "{local}");
        }
        for local in ["fd00::1", "fe80::1", "::1"] {
            assert_eq!(public.of(ip(local)), Some(ip("2a00::8")), "{local}");
        }
        for global in ["9.9.9.9", "2a00::9"] {
            assert_eq!(public.of(ip(global)), None);
        }
        let v4_only = addresses(&[(None, "8.8.8.8")]);
        assert_eq!(v4_only.of(ip("fd00::1")), None);
    }

    #[test]
    fn a_network_counts_before_an_address_alone() {
        let public = addresses(&[(None, "8.8.8.8"), (Some("10.0.0.0/8"), "8.8.4.4")]);
        assert_eq!(public.of(ip("10.1.2.3")), Some(ip("8.8.4.4")));
        assert_eq!(public.of(ip("192.168.1.1")), Some(ip("8.8.8.8")));
    }

    #[test]
    fn neighbours_get_the_local_address_and_others_the_public_one() {
        let public = addresses(&[
            (Some("10.0.0.0/8"), "8.8.4.4"),
            (Some("192.168.0.0/16"), "8.8.8.8"),
        ]);
        let shown = |viewer: &str, peer: &str| {
            let shown = public.viewer(ip(viewer)).reaches(at(peer));
            shown.map(|endpoint| endpoint.ip().to_string())
        };
        let shown = |viewer, peer| shown(viewer, peer).unwrap_or_default();
        assert_eq!(shown("9.9.9.9", "10.0.0.1"), "8.8.4.4");
        assert_eq!(shown("10.9.9.9", "10.0.0.1"), "10.0.0.1");
        assert_eq!(shown("192.168.0.1", "10.0.0.1"), "8.8.4.4");
        assert_eq!(shown("127.0.0.1", "10.0.0.1"), "10.0.0.1");
        assert_eq!(
            shown("9.9.9.9", "172.16.0.1"),
            "",
            "it has no known address"
        );
        assert_eq!(shown("10.0.0.1", "172.16.0.1"), "172.16.0.1");
        assert_eq!(shown("10.0.0.1", "9.9.9.9"), "9.9.9.9");
        assert_eq!(shown("::ffff:10.9.9.9", "10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn without_a_mapping_local_addresses_stay_among_local_ones() {
        let public = PublicAddresses::default();
        assert_eq!(public.viewer(ip("9.9.9.9")).reaches(at("10.0.0.1")), None);
        for viewer in ["127.0.0.1", "192.168.0.1", "10.0.0.2"] {
            let shown = public.viewer(ip(viewer)).reaches(at("10.0.0.1"));
            assert_eq!(shown, Some(at("10.0.0.1")));
        }
    }

    #[test]
    fn one_public_endpoint_is_handed_out_once_and_never_to_itself() {
        let public = addresses(&[(None, "8.8.8.8")]);
        let mut out = Vec::new();
        let viewer = public.viewer(ip("9.9.9.9"));
        let own = at("9.9.9.9");
        assert!(viewer.hand_out(own, at("10.0.0.1"), &mut out));
        assert!(!viewer.hand_out(own, at("10.0.0.2"), &mut out));
        assert!(!viewer.hand_out(own, at("8.8.8.8"), &mut out));
        assert!(viewer.hand_out(own, at("9.9.9.8"), &mut out));
        assert_eq!(out.len(), 12);
        let hairpin = public.viewer(ip("8.8.8.8"));
        assert!(!hairpin.hand_out(at("8.8.8.8"), at("10.0.0.1"), &mut out));
    }
}
