//! Rate limits per fixed period, for all events of a kind or for each network, without records of single clients.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::hash::RandomState;

/// Slots for networks; two networks in one slot share a limit. Fewer when fuzzing, where every run makes a table.
const SLOTS: usize = if cfg!(fuzzing) { 1 << 6 } else { 1 << 15 };

/// The usual block of one owner: a /24 of IPv4 or a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    V4([u8; 3]),
    V6([u16; 3]),
}

/// Counts events of the latest period, whatever its length: the period in the upper half, the count
/// in the lower.
#[derive(Default)]
pub struct PeriodLimit(AtomicU64);

/// A [`PeriodLimit`] for each network.
pub struct SourceLimit {
    slots: Box<[PeriodLimit]>,
    /// Seeded anew in each process, so that clients can't choose their slot.
    hasher: RandomState,
}

// === impl Network ===

impl Network {
    /// The network of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Self::V6([a, b, c])
            }
        }
    }
}

// === impl SourceLimit ===

impl Default for SourceLimit {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| PeriodLimit::default()).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl SourceLimit {
    /// Counts one more event of that source's network in `period`; false if there were `max` already.
    pub fn allows(&self, source: IpAddr, max: u32, period: u32) -> bool {
        self.slot(source).allows(max, period)
    }

    /// Whether that network had `max` events in `period` already; counts nothing.
    pub fn is_reached(&self, source: IpAddr, max: u32, period: u32) -> bool {
        self.slot(source).is_reached(max, period)
    }

    fn slot(&self, source: IpAddr) -> &PeriodLimit {
        let hash = self.hasher.hash_one(Network::of(source));
        &self.slots[hash as usize % SLOTS]
    }
}

// === impl PeriodLimit ===

impl PeriodLimit {
    /// Counts one more event in `period`; false if there were `max` already. Two threads at once may
    /// count one too few: it is a limit, not an account.
    pub fn allows(&self, max: u32, period: u32) -> bool {
        let count = self.count(period);
        if count < max {
            let next = u64::from(period) << 32 | u64::from(count + 1);
            self.0.store(next, Ordering::Relaxed);
        }
        count < max
    }

    fn is_reached(&self, max: u32, period: u32) -> bool {
        self.count(period) >= max
    }

    /// Events counted in `period`, if it is the latest.
    pub fn count(&self, period: u32) -> u32 {
        let latest = self.0.load(Ordering::Relaxed);
        if latest >> 32 == u64::from(period) {
            latest as u32
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_counts_nothing() {
        let limit = SourceLimit::default();
        let ip = "192.0.2.1".parse().unwrap();
        assert!((0..10).all(|_| !limit.is_reached(ip, 2, 7)));
        assert!(limit.allows(ip, 2, 7) && !limit.is_reached(ip, 2, 7));
        assert!(limit.allows(ip, 2, 7) && limit.is_reached(ip, 2, 7));
        assert!(!limit.is_reached(ip, 2, 8), "that was another period");
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_gets_so_many_in_a_period_and_others_theirs() {
        let limit = SourceLimit::default();
        let now = 17;
        let allowed = |sources: &[&str], now| {
            let allowed = (0..100).filter(|&number| {
                let source = sources[number % sources.len()];
                limit.allows(ip(source), 10, now)
            });
            allowed.count()
        };
        assert_eq!(allowed(&["192.0.2.1", "192.0.2.200"], now), 10);
        assert_eq!(allowed(&["192.0.2.7"], now), 0);
        assert_eq!(allowed(&["192.0.2.7"], now + 1), 10);
        assert_eq!(allowed(&["2001:db8:1::1", "2001:db8:1:ffff::2"], now), 10);
        // In a few of 10,000 runs, one of them shares a slot with another network.
        let others = ["198.51.100.1", "203.0.113.1", "2001:db8:2::1"];
        let of_others: usize = others.iter().map(|network| allowed(&[network], now)).sum();
        assert!(of_others >= 20, "{of_others}");
    }
}
