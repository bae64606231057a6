//! Which of two records of a peer is the newer one.
//!
//! The only statement of this rule in Rust: it is used in memory, by both storage drivers and between nodes. Redis
//! applies it in a script, `PUT_UNLESS_NEWER` in `cache/redis/swarms.rs`, which repeats [`RecordAge::replaces`]
//! with a literal 5 for [`CLOCK_SKEW`]; change both together. SQL doesn't repeat it.

/// Seconds by which the times that two nodes note for one announce may differ.
pub const CLOCK_SKEW: i64 = 5;

/// The fields of a record that decide whether it is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordAge {
    pub announces: u32,
    /// Unix times.
    pub first_announce: i64,
    pub last_announce: i64,
    pub active: bool,
}

impl RecordAge {
    /// Whether a record replaces `other`; it does if both are equally new.
    ///
    /// A record that began after the last announce of the other one is newer: its client was forgotten
    /// in between. Otherwise the one with more announces is newer, because all nodes count them together and
    /// setting a clock back does not change that, or the one whose last announce is later by more than
    /// [`CLOCK_SKEW`]. With equal announces, the one of a client that has left is newer.
    pub fn replaces(self, other: Self) -> bool {
        if self.first_announce > other.last_announce + CLOCK_SKEW {
            return true;
        }
        if other.first_announce > self.last_announce + CLOCK_SKEW {
            return false;
        }
        let later = self.last_announce - other.last_announce;
        let is_as_new = if self.active == other.active {
            later >= 0
        } else {
            other.active
        };
        self.announces > other.announces
            || later > CLOCK_SKEW
            || (self.announces == other.announces && is_as_new)
    }

    /// Like [`replaces`](Self::replaces), but not if both are equally new.
    pub fn is_newer_than(self, other: Self) -> bool {
        let decisive = |age: Self| (age.announces, age.last_announce, age.active);
        decisive(self) != decisive(other) && self.replaces(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(announces: u32, first_announce: i64, last_announce: i64) -> RecordAge {
        RecordAge {
            announces,
            first_announce,
            last_announce,
            active: true,
        }
    }

    #[test]
    fn of_two_records_the_newer_one_stands() {
        let known = age(7, 1000, 5000);
        for (other, is_newer) in [
            (age(8, 1000, 5002), true),
            (age(6, 1000, 5002), false),
            (age(6, 1000, 1400), false),
            // The clock was set back.
            (age(8, 1000, 4000), true),
            // Another node began it without knowing this one.
            (age(1, 4000, 6000), true),
        ] {
            assert_eq!(other.is_newer_than(known), is_newer, "{other:?}");
        }
        assert!(known.replaces(known) && !known.is_newer_than(known));
        let left = RecordAge {
            active: false,
            ..known
        };
        assert!(left.is_newer_than(known) && !known.replaces(left));
    }

    #[test]
    fn a_record_that_began_again_is_newer_than_one_with_more_announces() {
        let (former, begun_again) = (age(50, 1000, 5000), age(2, 90_000, 90_100));
        assert!(begun_again.is_newer_than(former));
        assert!(!former.replaces(begun_again));
    }
}
