//! Refusals, with the texts that clients get instead of a reply (rule R6). They are raised in `admit`, where a peer is
//! added (`private/newcomer`, `private/user_records`), and in `public`.

use std::sync::Arc;

use strum::{IntoStaticStr, VariantArray};

use crate::telemetry::metrics::REASONS_MAX;
use crate::wire::{Failure, ParseError, RetryIn};

/// Seconds until a client may retry what will hardly change.
const PERMANENT_INTERVAL: u32 = 3600;

/// The kind of a refusal, as metrics and events label it: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
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
    /// A user has the maximum of records.
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

impl Reason {
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The value of the label.
    pub fn name(self) -> &'static str {
        self.into()
    }
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

/// When a client may retry.
#[derive(Clone, Copy)]
enum Retry {
    /// At its next announce.
    Normally,
    /// At its next announce, and a client that knows BEP 31 waits for the minimum interval.
    Soon,
    /// What is wrong will hardly change.
    Late,
    Never,
}

impl Refusal {
    /// The reply to the client (rule R6); the intervals are those of normal replies, in seconds.
    pub fn failure(&self, interval: u32, min_interval: u32) -> Failure<'_> {
        let (_, reason, retry) = self.parts();
        let permanent = (PERMANENT_INTERVAL, PERMANENT_INTERVAL);
        let soon = RetryIn::Minutes(min_interval.div_ceil(60));
        let ((interval, min_interval), retry_in) = match retry {
            Retry::Normally => ((interval, min_interval), None),
            Retry::Soon => ((interval, min_interval), Some(soon)),
            Retry::Late => (permanent, None),
            Retry::Never => (permanent, Some(RetryIn::Never)),
        };
        Failure {
            reason,
            interval,
            min_interval,
            retry_in,
        }
    }

    /// The reason that metrics count.
    pub fn kind(&self) -> Reason {
        self.parts().0
    }

    /// What metrics count, the text for the client, and when it may retry.
    fn parts(&self) -> (Reason, &str, Retry) {
        use Retry::{Late, Never, Normally, Soon};
        match self {
            Self::Request(error) => (kind_of(*error), error.text(), Normally),
            Self::InvalidPasskey => (Reason::InvalidPasskey, "invalid passkey", Late),
            Self::AccountDisabled => (Reason::AccountDisabled, "account disabled", Normally),
            Self::ClientNotAllowed => (Reason::ClientNotAllowed, "client not allowed", Normally),
            Self::UnregisteredTorrent => {
                (Reason::UnregisteredTorrent, "unregistered torrent", Late)
            }
            Self::TorrentDisabled(reason) => {
                let reason = if reason.is_empty() {
                    "torrent disabled"
                } else {
                    reason
                };
                (Reason::TorrentDisabled, reason, Never)
            }
            Self::DownloadNotAllowed => {
                (Reason::DownloadNotAllowed, "download not allowed", Normally)
            }
            Self::TooManyPeers => (Reason::TooManyPeers, "too many peers", Normally),
            Self::TooManyRecords => (Reason::TooManyRecords, "too many peers of this user", Soon),
            Self::TooManyNewRecords => (
                Reason::TooManyNewRecords,
                "too many new peers of this user",
                Soon,
            ),
            Self::AddressBlocked => (Reason::AddressBlocked, "address not allowed", Late),
            Self::PortBlocked => (Reason::PortBlocked, "port not allowed", Late),
            Self::Unavailable => (Reason::Unavailable, "temporarily unavailable", Soon),
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
            let text = refusal.parts().1;
            assert!(page.contains(&format!("`{text}`")), "R6 lacks `{text}`");
        }
        // UDP has these by itself (rules U3 to U6).
        let of_udp = [Reason::Malformed, Reason::NoPasskey, Reason::NoScrape];
        let is_listed = |reason: &Reason| refusals.iter().any(|it| it.kind() == *reason);
        let unlisted = Reason::ALL.iter().filter(|reason| !is_listed(reason));
        assert_eq!(unlisted.copied().collect::<Vec<_>>(), of_udp);
    }
}
