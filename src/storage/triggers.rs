//! The triggers that fill the feed: what the migrations create, and whether a database still has it.
//!
//! Tools that change tables leave triggers on the old one, and dumps omit them or name a deleted account.
//! So they are checked at runtime, not only created by a migration.

use super::Finding;

/// A trigger as it should be, or as a database has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) table: String,
    /// `AFTER` or `BEFORE`.
    pub(super) timing: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub(super) event: String,
    pub(super) body: String,
}

/// A trigger of Mika's that differs from the migration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misplaced {
    pub(super) name: String,
    /// The table, if the schema follows it no more: the trigger is to be dropped.
    pub(super) left_on: Option<String>,
    problem: String,
}

// === impl Trigger ===

impl Trigger {
    /// The trigger that a statement of a migration makes:
    /// `CREATE TRIGGER name AFTER event ON table FOR EACH ROW body`.
    pub(super) fn of_statement(statement: &str) -> Option<Self> {
        let rest = statement.strip_prefix("CREATE TRIGGER ")?;
        let (head, body) = rest.split_once("FOR EACH ROW")?;
        let mut words = head.split_whitespace();
        let (name, timing, event) = (words.next()?, words.next()?, words.next()?);
        let table = words.nth(1)?;
        Some(Self {
            name: name.into(),
            table: table.into(),
            timing: timing.into(),
            event: event.into(),
            body: body.into(),
        })
    }

    /// Whether Mika has made it, by its name and by what it does.
    pub(super) fn is_of_mika(&self) -> bool {
        let is_named = |event: &str| self.name == format!("mika_{}_{event}", self.table);
        let is_plain = |char: char| char.is_ascii_alphanumeric() || char == '_';
        ["insert", "update", "delete"].into_iter().any(is_named)
            && self.name.chars().all(is_plain)
            && self.body.contains("mika_feed")
    }

    /// How `found`, which has the same name, differs; none if it does the same.
    fn difference(&self, found: &Self) -> Option<String> {
        if !self.table.eq_ignore_ascii_case(&found.table) {
            return Some(format!(
                "on the table {} and not on {}",
                found.table, self.table
            ));
        }
        let event =
            |trigger: &Self| format!("{} {}", trigger.timing, trigger.event).to_ascii_uppercase();
        if event(self) != event(found) {
            return Some(format!("{} and not {}", event(found), event(self)));
        }
        (words(&self.body) != words(&found.body)).then(|| "with another body than Mika's".into())
    }
}

// === impl Misplaced ===

impl Misplaced {
    pub(super) fn new(name: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            left_on: None,
            problem: problem.into(),
        }
    }

    /// A trigger of Mika's that the schema has no more.
    pub(super) fn left(trigger: &Trigger) -> Self {
        let table = &trigger.table;
        let problem = format!("left on the table {table}, which the schema follows no more");
        Self {
            left_on: Some(table.clone()),
            ..Self::new(&trigger.name, problem)
        }
    }
}

/// A body with blanks normalised; comments were removed before.
fn words(body: &str) -> Vec<&str> {
    let body = body.trim().trim_end_matches(';');
    body.split_whitespace().collect()
}

/// The triggers of `expected` that are missing or different in `found`, and those that only `found` has.
pub(super) fn misplaced(expected: &[Trigger], found: &[Trigger]) -> Vec<Misplaced> {
    let look = |wanted: &Trigger| {
        let found = found
            .iter()
            .find(|trigger| trigger.name.eq_ignore_ascii_case(&wanted.name));
        let problem = match found {
            None => Some(format!("missing from the table {}", wanted.table)),
            Some(found) => wanted.difference(found),
        };
        problem.map(|problem| Misplaced::new(&wanted.name, problem))
    };
    let left = found.iter().filter(|trigger| {
        let is_it = |wanted: &Trigger| wanted.name.eq_ignore_ascii_case(&trigger.name);
        trigger.is_of_mika() && !expected.iter().any(is_it)
    });
    let left = left.map(Misplaced::left);
    expected.iter().filter_map(look).chain(left).collect()
}

/// One finding for all of them, because they mostly go missing together.
pub(super) fn finding(misplaced: &[Misplaced]) -> Option<Finding> {
    if misplaced.is_empty() {
        return None;
    }
    // Mostly all of a table are affected.
    let mut by_problem: Vec<(&str, Vec<&str>)> = Vec::new();
    for Misplaced { name, problem, .. } in misplaced {
        match by_problem.iter_mut().find(|(of, _)| of == problem) {
            Some((_, names)) => names.push(name),
            None => by_problem.push((problem, vec![name])),
        }
    }
    let each: Vec<String> = by_problem
        .into_iter()
        .map(|(problem, names)| format!("{}: {problem}", names.join(", ")))
        .collect();
    Some(Finding::problem(
        format!(
            "Mika's triggers are not as they should be, so the site's changes are not followed or can't \
             be written: {}",
            each.join("; ")
        ),
        "run mika-manage migrate: it makes these triggers again, or drops what is left, and touches no others",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = "CREATE TRIGGER mika_users_insert AFTER INSERT ON users FOR EACH ROW\n    \
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id)";

    #[test]
    fn a_trigger_is_known_by_all_that_it_does() {
        let wanted = Trigger::of_statement(STATEMENT).unwrap();
        assert_eq!(
            (&*wanted.table, &*wanted.timing, &*wanted.event),
            ("users", "AFTER", "INSERT")
        );
        let same = Trigger {
            body: "INSERT INTO mika_feed (kind, `key`)\nVALUES ('user', NEW.id);".into(),
            ..wanted.clone()
        };
        let problem = |found: &[Trigger]| {
            let misplaced = misplaced(std::slice::from_ref(&wanted), found);
            misplaced
                .first()
                .map(|finding| finding.problem.clone())
                .unwrap_or_default()
        };
        assert_eq!(problem(std::slice::from_ref(&same)), "");
        assert!(problem(&[]).contains("missing"));
        let moved = Trigger {
            table: "_users_old".into(),
            ..same.clone()
        };
        assert!(problem(&[moved]).contains("on the table _users_old"));
        let early = Trigger {
            timing: "BEFORE".into(),
            ..same.clone()
        };
        assert!(problem(&[early]).contains("BEFORE INSERT and not AFTER INSERT"));
        let other = Trigger {
            body: "SET @x = 1".into(),
            ..same
        };
        assert!(problem(&[other]).contains("another body"));
    }

    #[test]
    fn a_trigger_on_a_table_that_is_followed_no_more_is_left() {
        let trigger = Trigger::of_statement(STATEMENT).unwrap();
        let left = misplaced(&[], std::slice::from_ref(&trigger));
        assert_eq!(left[0].left_on.as_deref(), Some("users"));
        assert!(
            finding(&left)
                .unwrap()
                .problem
                .contains("left on the table users")
        );
        for other in [
            Trigger {
                name: "mika_users_log".into(),
                ..trigger.clone()
            },
            Trigger {
                table: "members".into(),
                ..trigger.clone()
            },
            Trigger {
                body: "SET @x = 1".into(),
                ..trigger
            },
        ] {
            assert_eq!(misplaced(&[], &[other]), []);
        }
    }
}
