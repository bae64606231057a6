//! How much one network is answered that has not shown yet that its address is its own.
//!
//! Whoever forges source addresses makes a tracker answer somebody else. An answer is never longer
//! than its request, and each network gets only so many a second (rule U4).

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;

use crate::clock::Seconds;

/// Networks that are told apart; two that fall into one place share what one may have.
const PLACES: usize = 1 << 15;

/// Answers a second to one network: a /24 of IPv4, a /48 of IPv6.
pub struct SourceLimit {
    /// The second in the upper half, the answers in it in the lower.
    counts: Box<[AtomicU64]>,
    /// Seeded anew by each process, so that nobody can choose whom to share a place with.
    hasher: RandomState,
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
    /// Counts an answer; false if it is one too many. `per_second` of 0 is no limit, and this
    /// host itself has none: nobody can forge its address from outside.
    pub fn allows(&self, source: IpAddr, per_second: u32, now: Seconds) -> bool {
        if per_second == 0 || source.is_loopback() {
            return true;
        }
        let mut hasher = self.hasher.build_hasher();
        match source {
            IpAddr::V4(ip) => ip.octets()[..3].hash(&mut hasher),
            IpAddr::V6(ip) => ip.octets()[..6].hash(&mut hasher),
        }
        let place = &self.counts[hasher.finish() as usize % PLACES];
        let second = u64::from(now.0) << 32;
        // Two threads at once may count one answer too few: it is a limit, not an account.
        let before = place.load(Ordering::Relaxed);
        let count = if before >> 32 == u64::from(now.0) {
            before as u32
        } else {
            0
        };
        if count >= per_second {
            return false;
        }
        place.store(second | u64::from(count + 1), Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_gets_so_many_a_second_and_others_theirs() {
        let limit = SourceLimit::default();
        let now = Seconds::START;
        let allowed = |sources: &[&str], now| {
            let allowed = (0..100).filter(|&number| {
                let source = sources[number % sources.len()];
                limit.allows(ip(source), 10, now)
            });
            allowed.count()
        };
        assert_eq!(allowed(&["192.0.2.1", "192.0.2.200"], now), 10);
        assert_eq!(allowed(&["192.0.2.7"], now), 0);
        assert_eq!(allowed(&["192.0.2.7"], now.plus(1)), 10);
        assert_eq!(allowed(&["2001:db8:1::1", "2001:db8:1:ffff::2"], now), 10);
        assert_eq!(allowed(&["127.0.0.1"], now), 100);
        // One in thousands may share a place with the first two.
        let others = ["198.51.100.1", "203.0.113.1", "2001:db8:2::1"];
        let of_others: usize = others.iter().map(|it| allowed(&[it], now)).sum();
        assert!(of_others >= 20, "{of_others}");
        assert!(limit.allows(ip("192.0.2.1"), 0, now));
    }
}
