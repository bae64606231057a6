//! The triggers that fill the feed: what the migrations create, and whether a database still has it.
//!
//! Tools that change tables leave triggers on the old one, and dumps omit them or name a deleted account.
//! So they are checked at runtime, not only created by a migration.

use crate::storage::Finding;
use crate::storage::migrate::{self, Migration};

/// A trigger as it should be, or as a database has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trigger {
    pub name: String,
    pub table: String,
    /// `AFTER` or `BEFORE`.
    pub timing: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub event: String,
    /// What it does, with the text of the function that it calls.
    pub body: String,
    /// The account that it runs as, such as `mika@localhost`; empty where there are none.
    pub owner: String,
    /// Why it does not work, if the database says so.
    pub flaw: Option<String>,
}

/// A trigger of Mika's that differs from the migration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    pub name: String,
    /// The table, if it should not have the trigger: that is to be dropped.
    pub left_on: Option<String>,
    problem: String,
}

// === impl Trigger ===

impl Trigger {
    /// The trigger that a statement of a migration makes: `CREATE TRIGGER name AFTER event ON table FOR EACH ROW body`.
    /// In SQLite, where columns and a condition may stand between, all of that is the body.
    pub fn of_statement(statement: &str) -> Option<Self> {
        let rest = statement.strip_prefix("CREATE TRIGGER ")?;
        let mut words = rest.split_whitespace();
        let (name, timing, event) = (words.next()?, words.next()?, words.next()?);
        let table = words.skip_while(|word| *word != "ON").nth(1)?;
        let body = rest.split_once("FOR EACH ROW");
        Some(Self {
            name: name.into(),
            table: table.into(),
            timing: timing.into(),
            event: event.into(),
            body: body.map_or(rest, |(_, body)| body).into(),
            ..Self::default()
        })
    }

    /// The columns of the row that it names.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '.';
        let words = self.body.split(move |char| !is_part(char));
        words.filter_map(|word| {
            let (row, column) = word.split_once('.')?;
            ["old", "new"]
                .iter()
                .any(|it| row.eq_ignore_ascii_case(it))
                .then_some(column)
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
        if words(&self.body) != words(&found.body) {
            return Some("with another body than Mika's".into());
        }
        found.flaw.clone()
    }
}

// === impl Misplaced ===

impl Misplaced {
    pub fn new(name: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            left_on: None,
            problem: problem.into(),
        }
    }

    /// A trigger of Mika's that is to be dropped.
    fn left(trigger: &Trigger, why: &str) -> Self {
        let table = &trigger.table;
        Self {
            left_on: Some(table.clone()),
            ..Self::new(&trigger.name, format!("left on the table {table}, {why}"))
        }
    }
}

/// A body with blanks normalised; comments were removed before.
fn words(body: &str) -> Vec<&str> {
    let body = body.trim().trim_end_matches(';');
    body.split_whitespace().collect()
}

/// The triggers that migrations make.
pub(super) fn expected(migrations: &[Migration]) -> Vec<Trigger> {
    let all: Vec<String> = migrations.iter().flat_map(migrate::statements).collect();
    let mut triggers: Vec<Trigger> = all
        .iter()
        .filter_map(|statement| Trigger::of_statement(statement))
        .collect();
    for trigger in &mut triggers {
        let called = trigger.body.rsplit_once("EXECUTE FUNCTION ");
        let name = called.and_then(|(_, call)| call.split('(').next());
        let mut functions = all.iter().filter_map(|it| migrate::made_function(it));
        let function = functions.find(|(known, _)| Some(*known) == name);
        if let Some((_, text)) = function {
            trigger.body = format!("{}\n{text}", trigger.body);
        }
    }
    triggers
}

/// The triggers of `expected` that are missing or different in `found`, and those that only `found` has.
pub(super) fn misplaced(expected: &[Trigger], found: &[Trigger]) -> Vec<Misplaced> {
    let look = |wanted: &Trigger| {
        let is_named = |trigger: &&Trigger| trigger.name.eq_ignore_ascii_case(&wanted.name);
        let named = found.iter().filter(is_named);
        // A database may let triggers of several tables have the same name.
        let found = named.max_by_key(|it| it.table.eq_ignore_ascii_case(&wanted.table));
        let problem = match found {
            None => Some(format!("missing from the table {}", wanted.table)),
            Some(found) => wanted.difference(found),
        };
        problem.map(|problem| Misplaced::new(&wanted.name, problem))
    };
    let left = found
        .iter()
        .filter_map(|trigger| left(expected, found, trigger));
    expected.iter().filter_map(look).chain(left).collect()
}

/// The trigger, if it is on a table that the schema follows no more, or that was renamed while another one has its name
/// and its trigger now.
fn left(expected: &[Trigger], found: &[Trigger], trigger: &Trigger) -> Option<Misplaced> {
    let is_named = |other: &&Trigger| other.name.eq_ignore_ascii_case(&trigger.name);
    let Some(wanted) = expected.iter().find(is_named) else {
        let why = "which the schema follows no more";
        return trigger.is_of_mika().then(|| Misplaced::left(trigger, why));
    };
    let is_there = |other: &Trigger| other.table.eq_ignore_ascii_case(&wanted.table);
    let is_copy = !is_there(trigger) && found.iter().filter(is_named).any(is_there);
    is_copy.then(|| Misplaced::left(trigger, "which has another name now"))
}

/// One finding for those to be made again and one for those to be dropped, because they mostly go missing together.
pub(super) fn findings(misplaced: &[Misplaced]) -> Vec<Finding> {
    let (left, wrong): (Vec<_>, Vec<_>) = misplaced.iter().partition(|it| it.left_on.is_some());
    let mut findings = Vec::new();
    if !wrong.is_empty() {
        findings.push(Finding::problem(
            format!(
                "Mika's triggers are not as they should be, so the site's changes are not followed or can't \
                 be written: {}",
                in_words(&wrong)
            ),
            "run mika-manage migrate: it makes these triggers again, and touches no others",
        ));
    }
    if !left.is_empty() {
        let drops = left.iter().filter_map(|Misplaced { name, left_on, .. }| {
            Some(format!(
                "DROP TRIGGER {name} ON {}",
                quoted(left_on.as_ref()?)
            ))
        });
        findings.push(Finding::problem(
            format!(
                "Mika's triggers are where they should not be, so that changes there are taken for changes of \
                 users and torrents: {}",
                in_words(&left)
            ),
            format!(
                "run mika-manage migrate: it drops these triggers, and touches no others; if that is left to the \
                 owner of the table: {}",
                drops.collect::<Vec<_>>().join("; ")
            ),
        ));
    }
    findings
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    if name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn in_words(misplaced: &[&Misplaced]) -> String {
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
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = "CREATE TRIGGER mika_users_insert AFTER INSERT ON users FOR EACH ROW\n    \
        INSERT INTO mika_feed (kind, `key`) VALUES ('user', NEW.id)";

    #[test]
    fn those_of_each_database_are_known_with_their_functions() {
        for (migrations, count) in [
            (migrate::MYSQL, 9),
            (migrate::MYSQL_2015, 15),
            (migrate::POSTGRES, 10),
            (migrate::SQLITE, 9),
        ] {
            let expected = expected(migrations);
            assert_eq!(expected.len(), count);
            for trigger in expected {
                assert!(trigger.body.contains("mika"), "{trigger:?}");
                assert!(!trigger.body.ends_with(')') || !trigger.body.contains("EXECUTE"));
            }
        }
    }

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
        let findings = findings(&left);
        assert!(findings[0].problem.contains("left on the table users"));
        assert!(
            findings[0]
                .hint
                .contains("DROP TRIGGER mika_users_insert ON users")
        );
        // A copy of the table has it, too; without its own, it is not there yet.
        let renamed = Trigger {
            table: "users_old".into(),
            ..trigger.clone()
        };
        let both = [renamed.clone(), trigger.clone()];
        let left = misplaced(std::slice::from_ref(&trigger), &both);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].left_on.as_deref(), Some("users_old"));
        let moved = misplaced(std::slice::from_ref(&trigger), &[renamed]);
        assert_eq!(moved.len(), 1);
        assert_eq!(moved[0].left_on, None);
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
