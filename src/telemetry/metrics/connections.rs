//! Connections that were closed so that others could be served: a closed list of reasons.

use super::Counter;

/// Why a connection had to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// All places were taken, and it had been idle longest.
    Full,
    /// Its network had more than its share of the places.
    NetworkShare,
    /// The process had no file left for another connection.
    Files,
    /// It was idle, and idle connections are closed sooner while many places are taken.
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
