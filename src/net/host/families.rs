//! Hosts with only one address family.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// `EPROTONOSUPPORT` and `EAFNOSUPPORT` of Linux: the kernel, or a filter before it, does not support
/// the family.
const UNKNOWN_FAMILY: [i32; 2] = [93, 97];

/// The name of the address family.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Whether a bind failed because the host lacks the family of `address`, or has it disabled.
///
/// "Address not available" proves that only for an address that every host with the family has; any other
/// address may belong to another host.
pub fn is_missing(address: IpAddr, error: &io::Error) -> bool {
    let is_unknown = error
        .raw_os_error()
        .is_some_and(|code| UNKNOWN_FAMILY.contains(&code));
    let is_everywhere = address.is_unspecified() || address.is_loopback();
    is_unknown || (is_everywhere && error.kind() == ErrorKind::AddrNotAvailable)
}

/// The address of `listen` that corresponds to `address` in the other family: unspecified or loopback,
/// with the same port.
pub fn counterpart(address: SocketAddr, listen: &[SocketAddr]) -> Option<SocketAddr> {
    let ip: IpAddr = match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED.into(),
        IpAddr::V4(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    let counterpart = SocketAddr::new(ip, address.port());
    listen.contains(&counterpart).then_some(counterpart)
}

/// Whether the host has the family of `address`. Tries to bind a free port.
pub fn has_family(address: IpAddr) -> bool {
    match TcpListener::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => !is_missing(address, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_family_is_distinguished_from_a_missing_address() {
        let table = [
            ("::", 97, true),
            ("::", 93, true),
            ("::", 99, true),
            ("::1", 99, true),
            ("2001:db8::1", 97, true),
            ("2001:db8::1", 99, false),
            ("0.0.0.0", 97, true),
            ("192.0.2.1", 99, false),
            ("::", 98, false),
            ("::", 13, false),
        ];
        for (ip, code, expected) in table {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(
                is_missing(ip.parse().unwrap(), &error),
                expected,
                "{ip} {code}"
            );
        }
    }

    #[test]
    fn only_the_same_address_of_the_other_family_is_a_counterpart() {
        let found = |address: &str, listen: &[&str]| {
            let listen: Vec<SocketAddr> = listen
                .iter()
                .map(|address| address.parse().unwrap())
                .collect();
            counterpart(address.parse().unwrap(), &listen).map(|address| address.to_string())
        };
        let v4 = Some("0.0.0.0:1".to_owned());
        assert_eq!(found("[::]:1", &["[::]:1", "0.0.0.0:1"]), v4);
        assert_eq!(found("[::]:1", &["0.0.0.0:2", "127.0.0.1:1"]), None);
        assert_eq!(found("[::]:1", &["[::]:1"]), None);
        assert_eq!(found("[2001:db8::1]:1", &["0.0.0.0:1"]), None);
        assert!(found("[::1]:1", &["127.0.0.1:1"]).is_some());
        assert!(found("0.0.0.0:1", &["[::]:1"]).is_some());
        assert!(found("127.0.0.1:1", &["[::1]:1"]).is_some());
        assert_eq!(found("192.0.2.1:1", &["[::]:1"]), None);
    }

    #[test]
    fn this_host_has_ipv4() {
        assert!(has_family(Ipv4Addr::LOCALHOST.into()));
    }
}
