//! What can be wrong with a request, each with the text that its client reads.

/// A request that can't be understood. The texts are stable (rule R6) and never echo input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("missing info_hash")]
    MissingInfoHash,
    #[error("invalid info_hash")]
    InvalidInfoHash,
    #[error("multiple info_hash")]
    MultipleInfoHash,
    #[error("missing peer_id")]
    MissingPeerId,
    #[error("invalid peer_id")]
    InvalidPeerId,
    #[error("missing port")]
    MissingPort,
    #[error("invalid port")]
    InvalidPort,
    /// A trusted proxy sent an address header that can't be read.
    #[error("invalid forwarded address")]
    InvalidForwarded,
}
