//! Evicted connections, by reason.

use super::Counter;

/// Why a connection was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// All permits were taken, and the connection had been idle longest.
    Full,
    /// Its network had more than its share of the permits.
    NetworkShare,
    /// The process had no file left for another connection.
    Files,
    /// Idle connections are closed sooner while many permits are taken.
    ShortIdle,
}

/// Evictions by reason.
#[derive(Default)]
pub struct Evictions([Counter; Eviction::ALL.len()]);

// === impl Eviction ===

impl Eviction {
    pub const ALL: [Self; 4] = [Self::Full, Self::NetworkShare, Self::Files, Self::ShortIdle];

    /// The value of a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NetworkShare => "network_share",
            Self::Files => "files",
            Self::ShortIdle => "short_idle",
        }
    }
}

// === impl Evictions ===

impl Evictions {
    pub fn of(&self, reason: Eviction) -> &Counter {
        &self.0[reason as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Eviction, &Counter)> {
        Eviction::ALL.into_iter().zip(&self.0)
    }
}
