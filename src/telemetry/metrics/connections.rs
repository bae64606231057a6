//! Evicted connections, by reason.

use strum::{IntoStaticStr, VariantArray};

use super::Counter;

/// Why a connection was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
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
pub struct Evictions([Counter; Eviction::VARIANTS.len()]);

// === impl Eviction ===

impl Eviction {
    /// The value of a label.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

// === impl Evictions ===

impl Evictions {
    pub fn of(&self, reason: Eviction) -> &Counter {
        &self.0[reason as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Eviction, &Counter)> {
        Eviction::VARIANTS.iter().copied().zip(&self.0)
    }
}
