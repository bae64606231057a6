//! Rate limits for networks, in constant memory.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;

/// Number of slots; networks that hash to the same slot share its limit. Small for fuzzers, which create one
/// for each run.
const PLACES: usize = if cfg!(fuzzing) { 1 << 6 } else { 1 << 15 };

/// The usual block of one owner: a /24 of IPv4 or a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    V4([u8; 3]),
    V6([u16; 3]),
}

/// The count of each network in its latest period.
pub struct SourceLimit {
    /// The period in the upper half, the count in the lower.
    counts: Box<[AtomicU64]>,
    /// Seeded by each process, so that clients can't choose their slot.
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
            counts: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl SourceLimit {
    /// Counts one more in that period, of any length; false if there were `most` already.
    pub fn allows(&self, source: IpAddr, most: u32, period: u32) -> bool {
        let place = self.place(source);
        // Two threads may race and count one too few, which is fine for a limit.
        let count = count_in(place, period);
        if count >= most {
            return false;
        }
        place.store(
            u64::from(period) << 32 | u64::from(count + 1),
            Ordering::Relaxed,
        );
        true
    }

    /// Whether the limit `most` is reached in that period, without counting.
    pub fn is_reached(&self, source: IpAddr, most: u32, period: u32) -> bool {
        count_in(self.place(source), period) >= most
    }

    fn place(&self, source: IpAddr) -> &AtomicU64 {
        let hash = self.hasher.hash_one(Network::of(source));
        &self.counts[hash as usize % PLACES]
    }
}

/// The count in that period.
fn count_in(place: &AtomicU64, period: u32) -> u32 {
    let count = place.load(Ordering::Relaxed);
    if count >> 32 == u64::from(period) {
        count as u32
    } else {
        0
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
        // A few in thousands may share a slot with the first two.
        let others = ["198.51.100.1", "203.0.113.1", "2001:db8:2::1"];
        let of_others: usize = others.iter().map(|network| allowed(&[network], now)).sum();
        assert!(of_others >= 20, "{of_others}");
    }
}
