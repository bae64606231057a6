//! Which changes of the feed were published by their editors already, and need not be written to the
//! cache and published again.
//!
//! An editor may fail between writing a row and publishing it. Then the cache has the row, and
//! nodes don't know it: so a row that the cache has counts as published only if there was a notice
//! after it was written. That a notice came after the edit is not enough: it may belong to an
//! earlier edit of the row, whose row other nodes have read. So a change counts as published if
//!
//! 1. its row was noticed since the feed was read without that change,
//! 2. the feed has one change of it in that time, so there is one editor who published it, and
//! 3. no earlier editor is late: for [`LATE_MAX`], the lease holder has published no change of that
//!    row itself. (A change that an editor published is over with its notice.)
//!
//! Where one of these is not known, the change is written and published again, which does no harm.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::clock::timer;
use crate::base::ids::{InfoHash, UserId};
use crate::cache::Notice;

/// The longest time from an editor's change in storage until this node has followed its notice: a
/// few calls, each of which ends within two seconds, and what the node is behind.
const LATE_MAX: Duration = Duration::from_secs(20);

/// How many rows are remembered; beyond that none is, and their changes are published again.
const ROWS_MAX: usize = 200_000;

/// A row that notices name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NoticedRow {
    User(UserId),
    Torrent(InfoHash),
    Whitelist,
}

/// The rows of notices that a node has followed, until its lease holder takes them.
#[derive(Default)]
pub struct NoticeLog(Mutex<HashSet<NoticedRow>>);

/// What the lease holder knows of notices.
pub(super) struct Published {
    /// Rows noticed since the feed was last read.
    noticed: HashSet<NoticedRow>,
    /// Rows that this node has published itself, in this period and in the last one.
    own: [HashSet<NoticedRow>; 2],
    period_began: Instant,
    /// Since when all of that is known.
    known_since: Instant,
}

impl NoticedRow {
    pub fn of(notice: &Notice) -> Option<Self> {
        match notice {
            Notice::User(id) => Some(Self::User(*id)),
            Notice::Torrent(info_hash) => Some(Self::Torrent(*info_hash)),
            Notice::Whitelist => Some(Self::Whitelist),
            Notice::Registry
            | Notice::Peers
            | Notice::PeersBy(_)
            | Notice::SnatchesWiped
            | Notice::Node => None,
        }
    }
}

// === impl NoticeLog ===

impl NoticeLog {
    pub fn add(&self, notices: &[Notice]) {
        let mut rows = self.0.lock();
        if rows.len() + notices.len() > ROWS_MAX {
            rows.clear();
            return;
        }
        rows.extend(notices.iter().filter_map(NoticedRow::of));
    }

    pub(super) fn take(&self) -> HashSet<NoticedRow> {
        std::mem::take(&mut *self.0.lock())
    }
}

// === impl Published ===

impl Published {
    pub fn new() -> Self {
        Self {
            noticed: HashSet::new(),
            own: [HashSet::new(), HashSet::new()],
            period_began: timer(),
            known_since: timer(),
        }
    }

    /// Adds what was noticed.
    pub fn add(&mut self, noticed: HashSet<NoticedRow>) {
        self.noticed.extend(noticed);
    }

    pub fn has_notice(&self, notice: &Notice) -> bool {
        NoticedRow::of(notice).is_some_and(|row| self.has(&row))
    }

    /// Whether that row was published by its editor, if the feed has one edit of it.
    pub fn has(&self, row: &NoticedRow) -> bool {
        timer().duration_since(self.known_since) >= LATE_MAX
            && self.noticed.contains(row)
            && self.own.iter().all(|rows| !rows.contains(row))
    }

    /// The changes up to here were handled, of which this node has published `own` itself. What is
    /// noticed from now on may belong to the next read of the feed; so may `noticed_after_read`.
    pub fn finish(&mut self, own: &[Notice], noticed_after_read: HashSet<NoticedRow>) {
        self.noticed = noticed_after_read;
        if timer().duration_since(self.period_began) >= LATE_MAX {
            self.own.swap(0, 1);
            self.own[0].clear();
            self.period_began = timer();
        }
        self.own[0].extend(own.iter().filter_map(NoticedRow::of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: NoticedRow = NoticedRow::User(UserId(1));
    const NOTICE: Notice = Notice::User(UserId(1));

    fn noticed() -> HashSet<NoticedRow> {
        let log = NoticeLog::default();
        log.add(&[NOTICE, Notice::Registry, Notice::Peers]);
        log.take()
    }

    async fn known_for_long() -> Published {
        let published = Published::new();
        tokio::time::sleep(LATE_MAX).await;
        published
    }

    #[tokio::test(start_paused = true)]
    async fn a_noticed_row_is_published_until_the_feed_was_read_again() {
        let mut published = known_for_long().await;
        assert!(!published.has(&ROW));
        published.add(noticed());
        assert!(published.has(&ROW));
        assert!(!published.has(&NoticedRow::Whitelist));
        published.finish(&[], noticed());
        assert!(published.has(&ROW), "noticed after the feed was read");
        published.finish(&[], HashSet::new());
        assert!(!published.has(&ROW));
    }

    #[tokio::test(start_paused = true)]
    async fn the_notice_of_a_row_may_be_that_of_an_earlier_editor_who_is_late() {
        let mut published = Published::new();
        published.add(noticed());
        assert!(!published.has(&ROW), "of an edit before the first feed");
        let mut published = known_for_long().await;
        published.finish(&[NOTICE], noticed());
        assert!(!published.has(&ROW), "of the edit that was published here");
        tokio::time::sleep(LATE_MAX).await;
        published.finish(&[], noticed());
        assert!(!published.has(&ROW));
        tokio::time::sleep(LATE_MAX).await;
        published.finish(&[], noticed());
        assert!(published.has(&ROW));
    }

    #[test]
    fn too_many_rows_are_not_remembered() {
        let log = NoticeLog::default();
        let notices: Vec<Notice> = (0..ROWS_MAX as u32).map(UserId).map(Notice::User).collect();
        log.add(&notices);
        assert_eq!(log.0.lock().len(), ROWS_MAX);
        log.add(&[Notice::Whitelist]);
        assert_eq!(log.take(), HashSet::new());
    }
}
