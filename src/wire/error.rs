//! What can be wrong with a request, each with the text that its client reads.

/// A request that can't be understood. The texts are stable (rule R6) and never echo input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    MissingInfoHash,
    InvalidInfoHash,
    MultipleInfoHash,
    MissingPeerId,
    InvalidPeerId,
    MissingPort,
    InvalidPort,
    /// A trusted proxy sent an address header that can't be read.
    InvalidForwarded,
}

// === impl ParseError ===

impl ParseError {
    /// What the client is told.
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
