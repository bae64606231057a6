//! Refusals, with the texts that clients get instead of a reply (rule R6). They are raised in `admit`, where a peer is
//! added (`private/newcomer`, `private/user_records`), and in `public`.

use std::sync::Arc;

use crate::telemetry::metrics::REASONS_MAX;
use crate::wire::{Failure, ParseError, RetryIn};

/// Seconds until a client may retry what will hardly change.
const PERMANENT_INTERVAL: u32 = 3600;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// The kind of a refusal, as metrics and events label it: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The value of the label.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// A UDP packet that ends too early.
    Malformed = "malformed",
    BadInfoHash = "bad_info_hash",
    BadPeerId = "bad_peer_id",
    BadPort = "bad_port",
    /// A trusted proxy sent an address that can't be read.
    BadForwarded = "bad_forwarded",
    /// A private announce by UDP without a passkey.
    NoPasskey = "no_passkey",
    InvalidPasskey = "invalid_passkey",
    AccountDisabled = "account_disabled",
    ClientNotAllowed = "client_not_allowed",
    UnregisteredTorrent = "unregistered_torrent",
    TorrentDisabled = "torrent_disabled",
    DownloadNotAllowed = "download_not_allowed",
    TooManyPeers = "too_many_peers",
    /// A user has the maximum of records.
    TooManyRecords = "too_many_records",
    /// A user began too many records lately.
    TooManyNewRecords = "too_many_new_records",
    AddressBlocked = "address_blocked",
    PortBlocked = "port_blocked",
    /// A private scrape by UDP, which has no place for a passkey (rule U6).
    NoScrape = "no_scrape",
    /// No room for another torrent.
    Unavailable = "unavailable",
}

const _: () = assert!(Reason::ALL.len() <= REASONS_MAX);

impl From<Reason> for usize {
    fn from(reason: Reason) -> Self {
        reason as Self
    }
}

/// Why an announce or scrape is refused. A refusal changes nothing (rule R8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Request(ParseError),
    InvalidPasskey,
    AccountDisabled,
    ClientNotAllowed,
    UnregisteredTorrent,
    /// The torrent was disabled, with the reason that its site gives; it may be empty.
    TorrentDisabled(Arc<str>),
    DownloadNotAllowed,
    TooManyPeers,
    /// The user has the maximum of records (rule A6).
    TooManyRecords,
    /// The user began too many records recently (rule A6).
    TooManyNewRecords,
    /// The config blocks the address that the announce came from.
    AddressBlocked,
    /// The config blocks the port that the client listens on.
    PortBlocked,
    /// No room for another torrent.
    Unavailable,
}

impl Refusal {
    /// The reply to the client (rule R6); the intervals are those of normal replies, in seconds.
    pub fn failure(&self, interval: u32, min_interval: u32) -> Failure<'_> {
        let (interval, min_interval) = match self {
            Self::InvalidPasskey
            | Self::UnregisteredTorrent
            | Self::TorrentDisabled(_)
            | Self::AddressBlocked
            | Self::PortBlocked => (PERMANENT_INTERVAL, PERMANENT_INTERVAL),
            Self::Request(_)
            | Self::AccountDisabled
            | Self::ClientNotAllowed
            | Self::DownloadNotAllowed
            | Self::TooManyPeers
            | Self::TooManyRecords
            | Self::TooManyNewRecords
            | Self::Unavailable => (interval, min_interval),
        };
        let retry_in = match self {
            Self::TorrentDisabled(_) => Some(RetryIn::Never),
            Self::TooManyRecords | Self::TooManyNewRecords | Self::Unavailable => {
                Some(RetryIn::Minutes(min_interval.div_ceil(60)))
            }
            Self::Request(_)
            | Self::InvalidPasskey
            | Self::AccountDisabled
            | Self::ClientNotAllowed
            | Self::UnregisteredTorrent
            | Self::DownloadNotAllowed
            | Self::TooManyPeers
            | Self::AddressBlocked
            | Self::PortBlocked => None,
        };
        Failure {
            reason: self.reason(),
            interval,
            min_interval,
            retry_in,
        }
    }

    /// The reason that metrics count.
    pub fn kind(&self) -> Reason {
        match self {
            Self::Request(error) => kind_of(*error),
            Self::InvalidPasskey => Reason::InvalidPasskey,
            Self::AccountDisabled => Reason::AccountDisabled,
            Self::ClientNotAllowed => Reason::ClientNotAllowed,
            Self::UnregisteredTorrent => Reason::UnregisteredTorrent,
            Self::TorrentDisabled(_) => Reason::TorrentDisabled,
            Self::DownloadNotAllowed => Reason::DownloadNotAllowed,
            Self::TooManyPeers => Reason::TooManyPeers,
            Self::TooManyRecords => Reason::TooManyRecords,
            Self::TooManyNewRecords => Reason::TooManyNewRecords,
            Self::AddressBlocked => Reason::AddressBlocked,
            Self::PortBlocked => Reason::PortBlocked,
            Self::Unavailable => Reason::Unavailable,
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Request(error) => error.text(),
            Self::InvalidPasskey => "invalid passkey",
            Self::AccountDisabled => "account disabled",
            Self::ClientNotAllowed => "client not allowed",
            Self::UnregisteredTorrent => "unregistered torrent",
            Self::TorrentDisabled(reason) if reason.is_empty() => "torrent disabled",
            Self::TorrentDisabled(reason) => reason,
            Self::DownloadNotAllowed => "download not allowed",
            Self::TooManyPeers => "too many peers",
            Self::TooManyRecords => "too many peers of this user",
            Self::TooManyNewRecords => "too many new peers of this user",
            Self::AddressBlocked => "address not allowed",
            Self::PortBlocked => "port not allowed",
            Self::Unavailable => "temporarily unavailable",
        }
    }
}

fn kind_of(error: ParseError) -> Reason {
    match error {
        ParseError::MissingInfoHash
        | ParseError::InvalidInfoHash
        | ParseError::MultipleInfoHash => Reason::BadInfoHash,
        ParseError::MissingPeerId | ParseError::InvalidPeerId => Reason::BadPeerId,
        ParseError::MissingPort | ParseError::InvalidPort => Reason::BadPort,
        ParseError::InvalidForwarded => Reason::BadForwarded,
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        Self::Request(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_r6_has_every_text() {
        let page = include_str!("../../docs/protocol.md");
        let refusals = [
            Refusal::Request(ParseError::MissingInfoHash),
            Refusal::Request(ParseError::MissingPeerId),
            Refusal::Request(ParseError::MissingPort),
            Refusal::Request(ParseError::InvalidForwarded),
            Refusal::InvalidPasskey,
            Refusal::AccountDisabled,
            Refusal::ClientNotAllowed,
            Refusal::UnregisteredTorrent,
            Refusal::TorrentDisabled("".into()),
            Refusal::DownloadNotAllowed,
            Refusal::TooManyPeers,
            Refusal::TooManyRecords,
            Refusal::TooManyNewRecords,
            Refusal::AddressBlocked,
            Refusal::PortBlocked,
            Refusal::Unavailable,
        ];
        for refusal in &refusals {
            let text = refusal.reason();
            assert!(page.contains(&format!("`{text}`")), "R6 lacks `{text}`");
        }
        // UDP has these by itself (rules U3 to U6).
        let of_udp = [Reason::Malformed, Reason::NoPasskey, Reason::NoScrape];
        let is_listed = |reason: &Reason| refusals.iter().any(|it| it.kind() == *reason);
        let unlisted = Reason::ALL.iter().filter(|reason| !is_listed(reason));
        assert_eq!(unlisted.copied().collect::<Vec<_>>(), of_udp);
    }
}
