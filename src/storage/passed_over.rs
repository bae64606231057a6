//! The log of changed rows that can't be used, and of credit that reaches no row. Rate limited, so that neither a change that is
//! read repeatedly nor an edit of the whole table floods it.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::base::clock::Clock;

/// Seconds for which a row with the same problem is not named again.
const WINDOW: i64 = 60;

/// Maximum of rows named within one window.
const NAMED_MAX: usize = 20;

/// What was logged since the window began.
struct Window {
    /// Unix time.
    began: Option<i64>,
    named: HashSet<(&'static str, u32, String)>,
    is_full: bool,
}

/// The windows of this process, which has one log.
static ROWS: Mutex<Option<Window>> = Mutex::new(None);
static CREDIT: Mutex<Option<Window>> = Mutex::new(None);

/// Credit that reaches no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uncredited {
    /// Storage does not have the user or torrent any more: it was deleted while reports of it were on their way.
    Gone { table: &'static str, id: u32 },
    /// It is there, and the site's statement changes no row for it.
    Unmatched {
        table: &'static str,
        id: u32,
        statement: String,
    },
    /// The site's statement changes fewer rows than it is given.
    SomeUnmatched {
        table: &'static str,
        statement: String,
    },
}

/// Logs that a changed row can't be used, and counts as deleted.
pub(super) fn log(table: &'static str, id: u32, problem: &str) {
    match see(&ROWS, table, id, problem) {
        Seen::New => tracing::warn!(table, id, "row passed over: {problem}"),
        Seen::TooMany => {
            tracing::warn!("more rows that changed were passed over; see: mika-manage check");
        }
        Seen::Known => {}
    }
}

/// Logs credit that reached no row, which is lost.
pub(super) fn log_uncredited(uncredited: &Uncredited) {
    let (table, id, statement) = match uncredited {
        Uncredited::Gone { table, id } => (*table, *id, ""),
        Uncredited::Unmatched {
            table,
            id,
            statement,
        } => (*table, *id, statement.as_str()),
        Uncredited::SomeUnmatched { table, statement } => (*table, 0, statement.as_str()),
    };
    match (see(&CREDIT, table, id, statement), uncredited) {
        (Seen::Known, _) => {}
        (Seen::TooMany, _) => tracing::warn!(
            "more credit was dropped because it reached no row; see: mika-manage check"
        ),
        (Seen::New, Uncredited::Gone { .. }) => {
            tracing::info!(
                table,
                id,
                "reports dropped: storage does not have it any more"
            );
        }
        (Seen::New, Uncredited::Unmatched { .. }) => {
            tracing::warn!(
                table,
                id,
                "credit lost: the statement {statement} changes no row for it"
            );
        }
        (Seen::New, Uncredited::SomeUnmatched { .. }) => {
            tracing::warn!(
                table,
                "credit lost: the statement {statement} changes fewer rows than it is given"
            );
        }
    }
}

/// Whether that is to be logged now.
fn see(window: &Mutex<Option<Window>>, table: &'static str, id: u32, problem: &str) -> Seen {
    let mut window = window.lock();
    let window = window.get_or_insert_with(Window::new);
    window.see(Clock::start().now().unix, (table, id, problem.to_owned()))
}

/// Whether a row is to be named.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    New,
    /// The first one that is not named.
    TooMany,
    Known,
}

impl Window {
    fn new() -> Self {
        Self {
            began: None,
            named: HashSet::new(),
            is_full: false,
        }
    }

    fn see(&mut self, now: i64, row: (&'static str, u32, String)) -> Seen {
        // A clock that was set back begins a new window, too.
        let is_over = |began| !(began..began + WINDOW).contains(&now);
        if self.began.is_none_or(is_over) {
            *self = Self::new();
            self.began = Some(now);
        }
        if self.named.contains(&row) || self.is_full {
            return Seen::Known;
        }
        if self.named.len() == NAMED_MAX {
            self.is_full = true;
            return Seen::TooMany;
        }
        self.named.insert(row);
        Seen::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_once_in_a_window_and_a_flood_is_cut() {
        let mut window = Window::new();
        let now = 1_000_000;
        let row = |id| ("users", id, "passkey: too short".to_owned());
        assert_eq!(window.see(now, row(1)), Seen::New);
        assert_eq!(window.see(now, row(1)), Seen::Known);
        // Another problem of the same row is news.
        let other = ("users", 1, "enabled: not a number".to_owned());
        assert_eq!(window.see(now, other), Seen::New);
        for id in 2..20 {
            assert_eq!(window.see(now, row(id)), Seen::New, "{id}");
        }
        assert_eq!(window.see(now, row(20)), Seen::TooMany);
        assert_eq!(window.see(now, row(21)), Seen::Known);
        assert_eq!(window.see(now + WINDOW, row(1)), Seen::New);
    }
}
