//! Torrents: what may be announced, and how traffic is credited.

use crate::base::ids::{InfoHash, TorrentId};

/// A registered torrent as the tracker needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torrent {
    pub id: TorrentId,
    pub info_hash: InfoHash,
    /// The second info hash of a hybrid torrent (BEP 52): both name one swarm and one account.
    pub info_hash_v2: Option<InfoHash>,
    /// A disabled torrent is refused with its reason.
    pub enabled: bool,
    pub reason: Option<String>,
    /// Credit for a byte uploaded or downloaded, in thousandths (rule A8).
    pub multi_up: Permille,
    pub multi_down: Permille,
    /// Completed downloads so far.
    pub snatches: u32,
}

/// A multiplier in thousandths: 1000 is ×1, 0 is free, 2000 is double.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permille(pub u32);

impl Permille {
    pub const ONE: Self = Self(1000);
    /// ×1000: no site gives more, and a typo in the database does little harm.
    pub const MAX: Self = Self(1_000_000);

    /// The nearest multiplier to a factor as databases write it (1, 0.5, 2.0); none if it is negative or too large.
    pub fn from_factor(factor: f64) -> Option<Self> {
        let permille = (factor * 1000.0).round();
        (0.0..=f64::from(Self::MAX.0))
            .contains(&permille)
            .then_some(Self(permille as u32))
    }

    /// The multiplier as a factor, for people and databases.
    pub fn factor(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// `bytes` times this multiplier, rounded down, in integer arithmetic (rule A8).
    pub fn of(self, bytes: u64) -> u64 {
        let product = u128::from(bytes) * u128::from(self.0) / 1000;
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipliers_are_integers_and_round_down() {
        assert_eq!(Permille::from_factor(0.5).unwrap().of(3), 1);
        assert_eq!(Permille::from_factor(2.0).unwrap().of(u64::MAX), u64::MAX);
        assert_eq!(Permille::ONE.of(1 << 60), 1 << 60);
        assert_eq!(Permille(0).of(12345), 0);
        assert_eq!(Permille::from_factor(-1.0), None);
        assert_eq!(Permille::from_factor(f64::NAN), None);
    }
}
