//! The servers of a URL that names several.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Finding, StorageError};

/// Servers in the order of the URL. The one that was used last is tried first: one that comes back does not take
/// over again.
#[derive(Debug)]
pub(super) struct Hosts<T> {
    all: Vec<T>,
    last: AtomicUsize,
}

impl<T> Hosts<T> {
    pub(super) fn new(all: Vec<T>) -> Self {
        Self {
            all,
            last: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn all(&self) -> &[T] {
        &self.all
    }

    /// The servers with their places, in the order in which to try them.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &T)> {
        let last = self.last.load(Ordering::Relaxed);
        let all = || self.all.iter().enumerate();
        let others = all().filter(move |(place, _)| *place != last);
        all().skip(last).take(1).chain(others)
    }

    /// Remembers that the server at `place` is used; returns whether it is another one than before.
    pub(super) fn used(&self, place: usize) -> bool {
        self.last.swap(place, Ordering::Relaxed) != place
    }
}

/// What to say of one of several servers that can't be used.
pub(super) fn out_of_service(server: &str, why: &StorageError) -> Finding {
    Finding::note(
        format!("the server {server} of storage.url could not take over now: {why}"),
        "start it, or take it out of storage.url",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_last_is_tried_first_and_the_others_in_the_order_of_the_url() {
        let hosts = Hosts::new(vec!["a", "b", "c"]);
        let order = || hosts.in_turn().map(|(_, host)| *host).collect::<Vec<_>>();
        assert_eq!(order(), ["a", "b", "c"]);
        assert!(hosts.used(1));
        assert!(!hosts.used(1));
        assert_eq!(order(), ["b", "a", "c"]);
    }
}
