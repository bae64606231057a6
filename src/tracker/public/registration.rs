//! Limits per network: swarms, and rows of the registry.
//!
//! Anybody may begin a swarm, and the first snatch of a torrent registers it. Without a limit invented
//! info hashes could fill both, the registry for good.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::addr::canonical;
use crate::base::clock::Seconds;
use crate::base::limit::{PeriodLimit, SourceLimit};
use crate::tracker::Rules;

/// In one `peer_ttl`, a network (a /24, an IPv6 /48) may take 1/`NETWORK_PART` of what is
/// free, and an IPv6 /32, which may have one owner, 1/`WIDE_PART`.
const NETWORK_PART: usize = 16;
const WIDE_PART: usize = 4;

/// What a network may always take.
const LEAST: usize = 4;

/// New rows of the registry a second: from one network, and in total.
const NETWORK_RATE: u32 = 50;
const TOTAL_RATE: u32 = 500;

/// Seconds that a new row takes through the journal and storage to the registry.
const ON_THE_WAY: u32 = 4;

/// Seconds between two lines of the log.
const WARN_PERIOD: u32 = 60;

/// What each network has taken in the current `peer_ttl`.
#[derive(Default)]
pub(super) struct NetworkShares {
    networks: SourceLimit,
    wide: SourceLimit,
}

/// New rows by network and by second.
#[derive(Default)]
pub(super) struct Registrations {
    shares: NetworkShares,
    rates: SourceLimit,
    /// The rows of each of the last seconds.
    seconds: [PeriodLimit; ON_THE_WAY as usize],
    /// When a refusal was last written to the log; 0 for never.
    warned: AtomicU32,
}

/// Why a torrent is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unregistered {
    /// The maximum is reached.
    Full,
    /// Its network has used up its share.
    Share,
    /// Too many in this second.
    Rate,
}

// === impl NetworkShares ===

impl NetworkShares {
    /// Counts one more for the network of `source`, unless its share of what is `free` is used up.
    /// `life` is the number of the current `peer_ttl`.
    pub fn take(&self, source: IpAddr, free: usize, life: u32) -> bool {
        let part = |parts: usize| u32::try_from((free / parts).max(LEAST)).unwrap_or(u32::MAX);
        let source = canonical(source);
        let wide = wide_network(source);
        let is_over = |wide| self.wide.is_reached(wide, part(WIDE_PART), life);
        if wide.is_some_and(is_over) || !self.networks.allows(source, part(NETWORK_PART), life) {
            return false;
        }
        if let Some(wide) = wide {
            self.wide.allows(wide, u32::MAX, life);
        }
        true
    }
}

/// The /32 of an IPv6 address, as its first address.
fn wide_network(source: IpAddr) -> Option<IpAddr> {
    match source {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            Some(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0).into())
        }
    }
}

// === impl Registrations ===

impl Registrations {
    /// Counts a new row of the registry, which has `registered` rows.
    pub fn take(
        &self,
        source: IpAddr,
        registered: usize,
        rules: &Rules,
        now: Seconds,
    ) -> Result<(), Unregistered> {
        let soon = registered.saturating_add(self.on_the_way(now));
        let free = rules.max_torrents.saturating_sub(soon);
        if free == 0 {
            return Err(Unregistered::Full);
        }
        // A refusal to one network costs the others nothing.
        let second = self.slot(now.0);
        let is_fast = second.count(now.0) >= TOTAL_RATE;
        if is_fast || self.rates.is_reached(source, NETWORK_RATE, now.0) {
            return Err(Unregistered::Rate);
        }
        if !self.shares.take(source, free, rules.life(now)) {
            return Err(Unregistered::Share);
        }
        self.rates.allows(source, NETWORK_RATE, now.0);
        second.allows(u32::MAX, now.0);
        Ok(())
    }

    /// Takes the warning about a refusal that may be logged in this minute; false if it is taken.
    pub fn take_warning(&self, now: Seconds) -> bool {
        let warned = self.warned.load(Ordering::Relaxed);
        let is_due = warned == 0 || now.0.saturating_sub(warned) >= WARN_PERIOD;
        is_due && self.warned.swap(now.0, Ordering::Relaxed) == warned
    }

    /// Rows that were counted and may not be in the registry yet.
    fn on_the_way(&self, now: Seconds) -> usize {
        let seconds = now.0.saturating_sub(ON_THE_WAY - 1)..=now.0;
        let taken = seconds.map(|second| self.slot(second).count(second) as usize);
        taken.sum()
    }

    fn slot(&self, second: u32) -> &PeriodLimit {
        &self.seconds[(second % ON_THE_WAY) as usize]
    }
}

// === impl Unregistered ===

impl Unregistered {
    /// The reason for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Full => "tracker.max_torrents torrents are registered",
            Self::Share => "one network registered its share",
            Self::Rate => "too many in a second",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(shares: &NetworkShares, sources: &[IpAddr], free: usize, tries: usize) -> usize {
        let mut taken = 0;
        for number in 0..tries {
            let source = sources[number % sources.len()];
            taken += usize::from(shares.take(source, free - taken, 7));
        }
        taken
    }

    #[test]
    fn eight_networks_leave_more_than_half_of_what_is_free() {
        let shares = NetworkShares::default();
        let attackers: Vec<IpAddr> = (0..8).map(|n| IpAddr::from([203, 0, n, 1])).collect();
        let gone = taken(&shares, &attackers, 10_000, 100_000);
        assert!((3000..5000).contains(&gone), "{gone}");
        assert!(shares.take(IpAddr::from([198, 51, 100, 1]), 10_000 - gone, 7));
    }

    #[test]
    fn one_wide_network_of_ipv6_gets_a_part_however_many_it_consists_of() {
        let shares = NetworkShares::default();
        let network = |n: u16| IpAddr::from([0x2a00, 1, n, 0, 0, 0, 0, 1]);
        let attackers: Vec<IpAddr> = (0..1000).map(network).collect();
        let gone = taken(&shares, &attackers, 10_000, 100_000);
        assert!((1500..=2500).contains(&gone), "{gone}");
        let other = IpAddr::from([0x2a00, 2, 0, 0, 0, 0, 0, 1]);
        assert!(shares.take(other, 10_000 - gone, 7));
        assert!(shares.take(network(0), 10_000 - gone, 8), "another life");
    }

    #[test]
    fn registrations_are_bounded_in_a_second() {
        let registrations = Registrations::default();
        let rules = Rules::default();
        let admitted = |sources: u8, second: u32| {
            let tries = (0..20_000_u32).filter(|number| {
                let source = IpAddr::from([203, 0, (number % u32::from(sources)) as u8, 1]);
                let now = Seconds::START.plus(second);
                registrations.take(source, 0, &rules, now).is_ok()
            });
            tries.count()
        };
        assert_eq!(admitted(1, 1), NETWORK_RATE as usize);
        assert_eq!(admitted(1, 2), NETWORK_RATE as usize);
        assert_eq!(admitted(100, 3), TOTAL_RATE as usize);
    }

    #[test]
    fn what_one_network_is_refused_costs_the_others_nothing() {
        let registrations = Registrations::default();
        let rules = Rules {
            max_torrents: 1000,
            ..Rules::default()
        };
        let (attacker, honest) = ([203, 0, 113, 1].into(), [198, 51, 100, 1].into());
        let take =
            |source, second| registrations.take(source, 0, &rules, Seconds::START.plus(second));
        for second in 0..10 {
            let refused = (0..10_000).filter(|_| take(attacker, second).is_err());
            assert!(refused.count() >= 9000);
            assert_eq!(take(honest, second), Ok(()), "second {second}");
        }
    }

    #[test]
    fn rows_on_their_way_to_the_registry_count() {
        let registrations = Registrations::default();
        let rules = Rules {
            max_torrents: 100,
            ..Rules::default()
        };
        let admitted = (0..=255).filter(|&network| {
            let source = IpAddr::from([203, 0, network, 1]);
            registrations
                .take(source, 0, &rules, Seconds::START)
                .is_ok()
        });
        assert_eq!(admitted.count(), 100);
    }

    #[test]
    fn refusals_are_written_to_the_log_once_a_minute() {
        let registrations = Registrations::default();
        let warned =
            (0..180).filter(|&second| registrations.take_warning(Seconds::START.plus(second)));
        assert_eq!(warned.count(), 3);
    }
}
