//! Requests by protocol and kind, and refusals by reason: closed lists that no client can extend.

use super::Counter;

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Https,
    Udp,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Announce,
    Scrape,
}

/// A value for every protocol.
#[derive(Default)]
pub struct ByProtocol<T>([T; Protocol::ALL.len()]);

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A UDP packet that ends too early.
    Malformed,
    BadInfoHash,
    BadPeerId,
    BadPort,
    /// A trusted proxy sent an address that can't be read.
    BadForwarded,
    /// A private announce by UDP without a passkey.
    NoPasskey,
    InvalidPasskey,
    AccountDisabled,
    ClientNotAllowed,
    UnregisteredTorrent,
    TorrentDisabled,
    DownloadNotAllowed,
    TooManyPeers,
    /// A user has as many records as one may have.
    TooManyRecords,
    /// A user began too many records lately.
    TooManyNewRecords,
    AddressBlocked,
    PortBlocked,
    /// A private scrape by UDP, which has no place for a passkey (rule U6).
    NoScrape,
    /// No room for another torrent.
    Unavailable,
}

/// Refusals by reason.
#[derive(Default)]
pub struct Refusals([Counter; Reason::ALL.len()]);

// === impl Protocol ===

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Udp];

    /// The value of a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Udp => "udp",
        }
    }
}

// === impl ByProtocol ===

impl<T> ByProtocol<T> {
    pub fn of(&self, protocol: Protocol) -> &T {
        &self.0[protocol as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Protocol, &T)> {
        Protocol::ALL.into_iter().zip(&self.0)
    }
}

impl ByProtocol<Counter> {
    /// The sum over all protocols.
    pub fn get(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

// === impl Reason ===

impl Reason {
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::BadInfoHash,
        Self::BadPeerId,
        Self::BadPort,
        Self::BadForwarded,
        Self::NoPasskey,
        Self::InvalidPasskey,
        Self::AccountDisabled,
        Self::ClientNotAllowed,
        Self::UnregisteredTorrent,
        Self::TorrentDisabled,
        Self::DownloadNotAllowed,
        Self::TooManyPeers,
        Self::TooManyRecords,
        Self::TooManyNewRecords,
        Self::AddressBlocked,
        Self::PortBlocked,
        Self::NoScrape,
        Self::Unavailable,
    ];

    /// The value of a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadInfoHash => "bad_info_hash",
            Self::BadPeerId => "bad_peer_id",
            Self::BadPort => "bad_port",
            Self::BadForwarded => "bad_forwarded",
            Self::NoPasskey => "no_passkey",
            Self::InvalidPasskey => "invalid_passkey",
            Self::AccountDisabled => "account_disabled",
            Self::ClientNotAllowed => "client_not_allowed",
            Self::UnregisteredTorrent => "unregistered_torrent",
            Self::TorrentDisabled => "torrent_disabled",
            Self::DownloadNotAllowed => "download_not_allowed",
            Self::TooManyPeers => "too_many_peers",
            Self::TooManyRecords => "too_many_records",
            Self::TooManyNewRecords => "too_many_new_records",
            Self::AddressBlocked => "address_blocked",
            Self::PortBlocked => "port_blocked",
            Self::NoScrape => "no_scrape",
            Self::Unavailable => "unavailable",
        }
    }
}

// === impl Refusals ===

impl Refusals {
    pub fn of(&self, reason: Reason) -> &Counter {
        &self.0[reason as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Reason, &Counter)> {
        Reason::ALL.into_iter().zip(&self.0)
    }

    /// All refusals.
    pub fn get(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn lists_are_in_the_order_of_their_numbers() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.name());
        }
        for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
            assert_eq!(protocol as usize, number, "{}", protocol.name());
        }
    }

    #[test]
    fn a_refusal_counts_for_its_protocol_and_its_reason() {
        let metrics = Metrics::default();
        metrics.refused(Asked::Announce, Protocol::Udp, Reason::NoPasskey);
        metrics.refused(Asked::Scrape, Protocol::Udp, Reason::NoScrape);
        metrics.refused(Asked::Announce, Protocol::Https, Reason::NoPasskey);
        assert_eq!(metrics.announces_refused.get(), 2);
        assert_eq!(metrics.announces_refused.of(Protocol::Https).get(), 1);
        assert_eq!(metrics.scrapes_refused.of(Protocol::Udp).get(), 1);
        assert_eq!(metrics.refusals.of(Reason::NoPasskey).get(), 2);
        assert_eq!(metrics.refusals.get(), 3);
    }
}
