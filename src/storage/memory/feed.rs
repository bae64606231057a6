//! The feed of a driver that makes all changes itself.

use std::collections::VecDeque;

use crate::registry::RowChange;
use crate::storage::{Feed, FeedPosition};

/// Changes that are kept. Nodes read the feed every few seconds; one that was away for longer loads all rows.
const KEPT_MAX: usize = 100_000;

/// The latest changes of users, torrents and the whitelist, each with a position: 1 is that of the first one ever.
#[derive(Clone, Debug, Default)]
pub struct MemoryFeed {
    kept: VecDeque<RowChange>,
    /// The number of changes before those that are kept.
    dropped: u64,
}

impl MemoryFeed {
    /// Adds the newest change, and drops the oldest one if too many are kept.
    pub fn push(&mut self, change: RowChange) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(change);
    }

    /// The position of the newest change; 0 if there was none.
    pub fn position(&self) -> FeedPosition {
        FeedPosition(self.dropped + self.kept.len() as u64)
    }

    /// At most `limit` changes after a position; [`Feed::Lost`] if some of those were dropped, or if there never was such a
    /// position.
    pub fn after(&self, position: FeedPosition, limit: u32) -> Feed {
        let skipped = position.0.checked_sub(self.dropped);
        let skipped = skipped.and_then(|skipped| usize::try_from(skipped).ok());
        let Some(skipped) = skipped.filter(|skipped| *skipped <= self.kept.len()) else {
            return Feed::Lost;
        };
        let later = self.kept.range(skipped..).take(limit as usize);
        let changes: Vec<RowChange> = later.cloned().collect();
        let position = FeedPosition(position.0 + changes.len() as u64);
        Feed::Changes(changes, position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::UserId;

    fn after(feed: &MemoryFeed, position: u64, limit: u32) -> Option<(Vec<RowChange>, u64)> {
        match feed.after(FeedPosition(position), limit) {
            Feed::Changes(changes, position) => Some((changes, position.0)),
            Feed::Lost => None,
        }
    }

    #[test]
    fn it_is_read_in_portions_and_forgets_the_oldest() {
        let gone = |id| RowChange::UserGone(UserId(id));
        let mut feed = MemoryFeed::default();
        assert_eq!(after(&feed, 0, 10), Some((Vec::new(), 0)));
        assert_eq!(after(&feed, 1, 10), None, "it is not there yet");
        (1..=3).for_each(|id| feed.push(gone(id)));
        assert_eq!(after(&feed, 0, 2), Some((vec![gone(1), gone(2)], 2)));
        assert_eq!(after(&feed, 2, 2), Some((vec![gone(3)], 3)));
        assert_eq!(after(&feed, 3, 2), Some((Vec::new(), 3)));
        (0..KEPT_MAX as u32).for_each(|id| feed.push(gone(id)));
        assert_eq!(feed.position(), FeedPosition(3 + KEPT_MAX as u64));
        assert_eq!(after(&feed, 2, 1), None, "the third one was dropped");
        assert_eq!(after(&feed, 3, 1), Some((vec![gone(0)], 4)));
        assert_eq!(after(&feed, u64::MAX, 1), None);
    }
}
