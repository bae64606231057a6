//! Sessions before the latest two. Their reports arrive late where a node could not reach storage while the client
//! began again at another one, more than once.

use super::{LATE_MAX, Point, Session};

/// Some sessions that ended before the previous one began, newest first and without gaps between them. Only a report
/// that names one of them adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EarlierSessions([Option<Session>; EarlierSessions::MAX]);

impl EarlierSessions {
    /// How many are kept.
    pub const MAX: usize = 4;

    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.0.iter().flatten()
    }

    pub fn get(&self, place: usize) -> Option<Session> {
        self.0.get(place).copied().flatten()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Session> {
        self.0.get_mut(place)?.as_mut()
    }

    /// Adds the oldest one; the caller adds no more than [`Self::MAX`].
    pub fn push_oldest(&mut self, session: Session) {
        if let Some(free) = self.0.iter_mut().find(|it| it.is_none()) {
            *free = Some(session);
        }
    }

    /// Keeps the newest `count` of them.
    pub fn newest(mut self, count: usize) -> Self {
        self.0.iter_mut().skip(count).for_each(|it| *it = None);
        self
    }

    /// Adds the newest one. Forgets the oldest if there is no room, and from the first one that ended more than a day
    /// before `now` (Unix seconds), when the current session began.
    pub(super) fn push(&mut self, session: Session, now: i64) {
        self.insert(0, session);
        let is_recent = |it: &&Session| now.saturating_sub(it.last) <= LATE_MAX;
        let count = self.iter().take_while(is_recent).count();
        *self = self.newest(count);
    }

    /// Adds one before the session at `place`, which is newer.
    fn insert(&mut self, place: usize, session: Session) {
        self.0[place..].rotate_right(1);
        self.0[place] = Some(Session {
            is_first: false,
            ..session
        });
    }

    /// Where a session counts that began at `start` and was reported until then (Unix seconds): at a place of its own
    /// between two sessions that are kept, of which `newer` is newer than all of these, or with the older one, which
    /// may have reports of it. None where what was before is unknown.
    pub(super) fn place_of(&mut self, newer: Session, start: Point, until: i64) -> Option<usize> {
        let pairs = std::iter::once(&newer).chain(self.iter()).zip(self.iter());
        let (place, (newer, older)) = pairs
            .enumerate()
            .find(|(_, (_, older))| older.began <= start.at)?;
        // A session without a name may be the one that is looked for.
        if until >= newer.began || newer.start.is_none() {
            return None;
        }
        if older.ended_before(start) {
            self.insert(place, Session::named(start));
        }
        Some(place)
    }
}
