//! Seed time of a user and torrent: which seconds are counted, so that none counts twice,
//! whatever the number of clients and the order of their reports.

/// The latest stretch of counted seconds without a gap. Unix times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Seconds before it no longer count: they were counted already, or may have been.
    pub floor: i64,
    pub from: i64,
    pub until: i64,
}

impl Coverage {
    /// Reads the columns of a row; none unless both ends are set.
    pub fn of(floor: Option<i64>, from: Option<i64>, until: Option<i64>) -> Option<Self> {
        Some(Self {
            floor: floor.unwrap_or(i64::MIN),
            from: from?,
            until: until?,
        })
    }

    /// The time before which nothing is counted, if any.
    pub fn floor(self) -> Option<i64> {
        (self.floor > i64::MIN).then_some(self.floor)
    }

    /// Counts the seconds between two reports of a seeding client; returns how many are new (rule A8a).
    pub fn count(covered: &mut Option<Self>, from: i64, until: i64) -> u32 {
        if until <= from {
            return 0;
        }
        let Some(known) = covered else {
            *covered = Some(Self {
                floor: i64::MIN,
                from,
                until,
            });
            return seconds(until - from);
        };
        known.add(from.max(known.floor), until)
    }

    fn add(&mut self, from: i64, until: i64) -> u32 {
        if until <= from {
            return 0;
        }
        let before = self.from.min(until) - from;
        let after = until - self.until.max(from);
        if from > self.until {
            // A gap: late reports of seconds in it still count, those of earlier seconds no longer do.
            *self = Self {
                floor: self.until,
                from,
                until,
            };
        } else {
            self.until = self.until.max(until);
            if until >= self.from {
                self.from = self.from.min(from);
            } else {
                // It does not touch the covered stretch: the seconds between stay uncounted.
                self.floor = self.floor.max(until);
            }
        }
        seconds(before.max(0) + after.max(0))
    }
}

fn seconds(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(stretches: &[(i64, i64)]) -> u32 {
        let mut covered = None;
        stretches
            .iter()
            .map(|&(from, until)| Coverage::count(&mut covered, from, until))
            .sum()
    }

    #[test]
    fn clients_that_seed_at_once_count_once() {
        assert_eq!(counted(&[(0, 8), (0, 8), (1, 9), (2, 8)]), 9);
        assert_eq!(counted(&[(0, 10), (10, 20), (30, 40)]), 30);
    }

    #[test]
    fn a_late_stretch_counts_where_nothing_was_counted() {
        assert_eq!(counted(&[(100, 200), (0, 100)]), 200);
        assert_eq!(counted(&[(100, 200), (50, 150)]), 150);
        assert_eq!(counted(&[(0, 10), (30, 40), (10, 30)]), 40);
        assert_eq!(counted(&[(0, 10), (30, 40), (0, 10)]), 20);
    }

    /// Against a set of seconds: never more than were seeded, and all of them in order.
    #[test]
    fn no_second_counts_twice() {
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut stretches: Vec<(i64, i64)> = (0..random.usize(1..8))
                .map(|_| {
                    let from = random.i64(0..60);
                    (from, from + random.i64(0..30))
                })
                .collect();
            let mut seconds: Vec<i64> = stretches.iter().flat_map(|&(a, b)| a..b).collect();
            seconds.sort_unstable();
            seconds.dedup();
            let seeded = seconds.len() as u32;
            let by_chance = counted(&stretches);
            assert!(by_chance <= seeded, "seed {seed}: {stretches:?}");
            stretches.sort_unstable();
            assert_eq!(counted(&stretches), seeded, "seed {seed}: {stretches:?}");
        }
    }
}
