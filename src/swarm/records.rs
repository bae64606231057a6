//! Records of private peers and of their users: accounts, changes owed to the journal, histories.

use crate::accounting::machines::{self, Machines};
use crate::accounting::sessions::Point;
use crate::base::clock::Seconds;
use crate::base::ids::UserId;

/// The accounting record of one peer (section "Credit" of `docs/protocol.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The totals last reported and accounted, in bytes.
    pub base_up: u64,
    pub base_down: u64,
    /// When the base was set.
    pub base_at: Seconds,
    /// The `started` that began the session of each total: the first one of the client, or one with which the
    /// total went down (rule A3). Reports name it, so that storage can tell sessions apart; none where
    /// several machines report. With Unix times, which don't change when the clock is set.
    pub start_up: Option<Point>,
    pub start_down: Option<Point>,
    /// Since when the client reports less than its base (rule A3).
    pub dip_up: Option<Seconds>,
    pub dip_down: Option<Seconds>,
    /// Bytes counted so far, before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Bytes still to download; none if unknown.
    pub left: Option<u64>,
    /// Bytes a second over the last interval.
    pub speed_up: u32,
    pub speed_down: u32,
    /// Seconds of seeding.
    pub seed_time: u32,
    pub announces: u32,
    pub first_announce: Seconds,
    pub last_announce: Seconds,
    /// Several machines report under this peer id: the bases above are the largest totals of any of
    /// them (rule A3). Times are of the monotonic clock. What each of them reported is known to this
    /// process only.
    pub machines: Option<Machines>,
}

/// What a peer added that the journal had no room for: kept until it has. All zero if
/// only a lost endpoint is still to be journaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Bytes before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Seconds, all of them before `seeded_until`.
    pub seed_time: u32,
    pub seeded_until: Seconds,
    pub announces: u32,
    /// When the base below these bytes was set.
    pub since: Seconds,
    /// That base began a session that is not journaled yet.
    pub began_up: bool,
    pub began_down: bool,
    /// The user's last client left the swarm.
    pub left: bool,
}

/// What one user did with the torrent over all sessions and clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserHistory {
    pub user: UserId,
    pub hnr: bool,
    /// A snatch was counted that the journal had no room for yet.
    pub owes_snatch: bool,
    /// Seconds.
    pub seed_time: u32,
    /// Bytes before multipliers.
    pub downloaded: u64,
    /// Unix time of the snatch.
    pub completed_at: Option<i64>,
}

// === impl Account ===

impl Account {
    /// The base of a total that was not reported yet.
    pub const NO_TOTAL: u64 = machines::NO_TOTAL;

    /// A record that begins with those totals: they are its base, and nothing is credited (rule A1).
    pub fn begin(uploaded: u64, downloaded: u64, now: Seconds) -> Self {
        Self {
            base_up: uploaded,
            base_down: downloaded,
            base_at: now,
            start_up: None,
            start_down: None,
            dip_up: None,
            dip_down: None,
            uploaded: 0,
            downloaded: 0,
            left: None,
            speed_up: 0,
            speed_down: 0,
            seed_time: 0,
            announces: 0,
            first_announce: now,
            last_announce: now,
            machines: None,
        }
    }
}

// === impl UserHistory ===

impl UserHistory {
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            hnr: false,
            owes_snatch: false,
            seed_time: 0,
            downloaded: 0,
            completed_at: None,
        }
    }

    /// Whether it says no more than an unknown user's history.
    pub fn is_nothing(&self) -> bool {
        *self == Self::new(self.user)
    }
}
