//! Errors in requests, with their texts for clients.

/// A malformed request. The texts are stable (rule R6) and never echo input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    MissingInfoHash,
    InvalidInfoHash,
    MultipleInfoHash,
    MissingPeerId,
    InvalidPeerId,
    MissingPort,
    InvalidPort,
    /// A trusted proxy sent an address header that can't be parsed.
    InvalidForwarded,
}

impl ParseError {
    /// The failure reason that is sent to the client.
    pub fn text(self) -> &'static str {
        match self {
            Self::MissingInfoHash => "missing info_hash",
            Self::InvalidInfoHash => "invalid info_hash",
            Self::MultipleInfoHash => "multiple info_hash",
            Self::MissingPeerId => "missing peer_id",
            Self::InvalidPeerId => "invalid peer_id",
            Self::MissingPort => "missing port",
            Self::InvalidPort => "invalid port",
            Self::InvalidForwarded => "invalid forwarded address",
        }
    }
}
