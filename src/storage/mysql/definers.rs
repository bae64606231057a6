//! The accounts that triggers run as. If one is deleted or lacks a privilege, every statement that fires the
//! trigger fails: credit and edits, whether the trigger is Mika's or the site's.

use mysql_async::{Error, ServerError};

use super::fault::{self, MysqlFault, MysqlResult};
use super::session::MysqlSession;
use crate::storage::Finding;
use crate::storage::sql::calls::{self, Call};
use crate::storage::sql::catalogue::TriggerLook;
use crate::storage::sql::cells::{Cell, SqlRow, SqlRows};
use crate::storage::sql::place::StatementPlace;
use crate::storage::sql::statements::mentions;
use crate::storage::sql::triggers::{Misplaced, Trigger};

/// Why a statement could not fire its triggers.
struct Failed {
    /// The account that the server names.
    account: String,
    is_gone: bool,
    /// What the server says.
    text: String,
}

/// Checks the accounts of triggers: which of Mika's `own` have to be created again beside those in `misplaced`, and what
/// is wrong with those of the `site`. Only administrators can see accounts, so where a trigger runs as another account,
/// a credit of 0 is tried and rolled back.
pub(super) async fn look(
    session: &mut MysqlSession<'_>,
    own: &[Trigger],
    misplaced: &[Misplaced],
    site: &[Trigger],
    tries_edits: bool,
) -> MysqlResult<TriggerLook> {
    let ourselves = ourselves(session).await?;
    let is_foreign = |trigger: &&Trigger| trigger.owner != ourselves;
    let is_placed = |trigger: &&Trigger| !misplaced.iter().any(|it| it.name == trigger.name);
    let place: Vec<&Trigger> = own.iter().filter(is_placed).filter(is_foreign).collect();
    let runs = |call: &Call, trigger: &Trigger| {
        trigger.event != "DELETE" && mentions(session.statements_of(call), &trigger.table)
    };
    let site_runs = |call: &Call| {
        let mut foreign = site.iter().filter(is_foreign);
        foreign.any(|trigger| runs(call, trigger))
    };
    let credit = CREDIT.map(|(_, call)| call);
    let tries_edits = tries_edits && EDITS.iter().any(|(_, it)| site_runs(it));
    if place.is_empty() && !tries_edits && !credit.into_iter().any(site_runs) {
        return Ok(TriggerLook::default());
    }
    let tried: Vec<&str> = place
        .iter()
        .filter(|trigger| credit.into_iter().any(|call| runs(call, trigger)))
        .map(|trigger| trigger.owner.as_str())
        .collect();
    let failed = try_nothing(session, tries_edits).await?;
    let problem = |owner: &str| match failed.iter().find(|failed| failed.account == owner) {
        Some(Failed { is_gone: true, .. }) => Some(format!("as {owner}, an account that is gone")),
        Some(Failed { text, .. }) => Some(format!("as {owner}, which can't do it ({text})")),
        None if tried.contains(&owner) => None,
        None => Some(format!(
            "as {owner}, and not as Mika's account, which can't see whether that one is there"
        )),
    };
    let disowned = place
        .iter()
        .filter_map(|it| Some(Misplaced::new(&it.name, problem(&it.owner)?)));
    let findings = failed
        .iter()
        .filter(|failed| failed.account != ourselves)
        .filter_map(|failed| {
            let theirs: Vec<&Trigger> = of_account(site, &failed.account);
            let is_own = !of_account(own, &failed.account).is_empty();
            (!theirs.is_empty() || !is_own).then(|| failed.finding(&theirs))
        });
    Ok(TriggerLook {
        misplaced: disowned.collect(),
        findings: findings.collect(),
        are_hidden: false,
    })
}

fn of_account<'a>(triggers: &'a [Trigger], account: &str) -> Vec<&'a Trigger> {
    let triggers = triggers.iter();
    triggers
        .filter(|trigger| trigger.owner == account)
        .collect()
}

/// Whether the account can't see a trigger that seems to be missing: it needs a privilege for that.
pub(super) async fn is_hidden(session: &mut MysqlSession<'_>, trigger: &str) -> MysqlResult<bool> {
    let sql = format!("SHOW CREATE TRIGGER `{trigger}`");
    match session.query(&sql).await {
        Err(fault) if fault.is_denied() || fault.lacks_privilege() => Ok(true),
        Err(fault) if !fault.is_no_trigger() => Err(fault),
        _ => Ok(false),
    }
}

/// The account of this session, such as `mika@localhost`.
async fn ourselves(session: &mut MysqlSession<'_>) -> MysqlResult<String> {
    let rows = session.query("SELECT CURRENT_USER()").await?;
    Ok(rows.first().map(|row| row.text(0)).unwrap_or_default())
}

/// The statements to try, each with the one that finds a row for it.
static CREDIT: [(&Call, &Call); 2] = [
    (&calls::USERS, &calls::CREDIT_USERS),
    (&calls::TORRENTS, &calls::CREDIT_TORRENTS),
];
static EDITS: [(&Call, &Call); 2] = [
    (&calls::USERS, &calls::UPDATE_USER),
    (&calls::TORRENTS, &calls::UPDATE_TORRENT),
];

/// Adds 0 to the totals of one user and one torrent, which fires triggers as credit does, and optionally
/// edits nothing of them. Returns why that fails, if an account or its privileges are the cause.
async fn try_nothing(
    session: &mut MysqlSession<'_>,
    tries_edits: bool,
) -> MysqlResult<Vec<Failed>> {
    let mut failed: Vec<Failed> = Vec::new();
    let edits: &[(&'static Call, &'static Call)] = if tries_edits { &EDITS } else { &[] };
    session.query("START TRANSACTION").await?;
    for (read, call) in CREDIT.iter().chain(edits) {
        match change_nothing(session, read, call).await {
            Err(MysqlFault::Sql(Error::Server(error), _)) => {
                // The check reports statements that fail for other reasons.
                let of = Failed::of(&error);
                failed.extend(
                    of.filter(|new| !failed.iter().any(|known| known.account == new.account)),
                );
            }
            Ok(()) | Err(MysqlFault::Storage(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    session.query("ROLLBACK").await?;
    Ok(failed)
}

async fn change_nothing(
    session: &mut MysqlSession<'_>,
    read: &'static Call,
    call: &'static Call,
) -> MysqlResult<()> {
    let Some(read_one) = session.statements_of(read).first() else {
        return Ok(());
    };
    let params = [("after", Cell::Int(-1)), ("limit", Cell::Int(1))];
    let rows = session.call(read_one, &params, "").await?;
    let Some((row, id)) = rows.first().and_then(|row| Some((row, row.id(0).ok()?))) else {
        return Ok(());
    };
    // NULL leaves a column unchanged; the name is set to its present value.
    let name = |column: &str| {
        let mut names = read.columns.split(' ');
        names.position(|name| name == column).map(|at| row.text(at))
    };
    let (username, release_name) = (name("username"), name("release_name"));
    let params = [
        ("id", id.into()),
        ("username", username.as_deref().into()),
        ("release_name", release_name.as_deref().into()),
    ];
    let width = call.rows.split_whitespace().count();
    let mut nothing = SqlRows::new(width);
    for column in 0..width {
        nothing.push_cell(Cell::Int(if column == 0 { id.into() } else { 0 }));
    }
    for statement in session.statements_of(call) {
        if nothing.is_empty() {
            session.call(statement, &params, "").await?;
        } else {
            session.call_for(statement, call.rows, &nothing).await?;
        }
    }
    Ok(())
}

/// Adds the trigger and the remedy to the error of a statement that failed because of a trigger's account;
/// returns other errors unchanged.
pub(super) async fn named(session: &mut MysqlSession<'_>, fault: MysqlFault) -> MysqlFault {
    let MysqlFault::Sql(Error::Server(error), statement) = &fault else {
        return fault;
    };
    let Some(failed) = Failed::of(error) else {
        return fault;
    };
    let at = statement
        .as_ref()
        .map_or_else(String::new, StatementPlace::at);
    let Ok(advice) = advice(session, &failed).await else {
        return fault;
    };
    match advice {
        Some(advice) => MysqlFault::broken(format!(
            "{}: {}{at}: {advice}",
            session.link().place(),
            failed.text
        )),
        None => fault,
    }
}

/// The trigger that has that account, and what to do; none if it is Mika's own account.
async fn advice(session: &mut MysqlSession<'_>, failed: &Failed) -> MysqlResult<Option<String>> {
    if failed.account == ourselves(session).await? {
        return Ok(None);
    }
    let sql = "SELECT trigger_name, event_object_table FROM information_schema.triggers \
        WHERE trigger_schema = DATABASE() AND definer = ? ORDER BY trigger_name";
    let rows = session.exec(sql, &[failed.account.as_str().into()]).await?;
    let trigger = |row: SqlRow<'_>| Trigger {
        name: row.text(0),
        table: row.text(1),
        ..Trigger::default()
    };
    let all: Vec<Trigger> = rows.iter().map(trigger).collect();
    let (own, site): (Vec<&Trigger>, Vec<&Trigger>) = all
        .iter()
        .partition(|trigger| trigger.name.starts_with("mika_"));
    if own.is_empty() {
        let Finding { problem, hint, .. } = failed.finding(&site);
        return Ok(Some(format!("{problem}: {hint}")));
    }
    let mut advice = format!(
        "Mika's triggers run as {}, {}: run mika-manage migrate, which makes them again under its own \
         account",
        failed.account,
        failed.why()
    );
    if !site.is_empty() {
        let Finding { problem, hint, .. } = failed.finding(&site);
        advice = format!("{advice}; and {problem}: {hint}");
    }
    Ok(Some(advice))
}

impl Failed {
    fn of(error: &ServerError) -> Option<Self> {
        let is_gone = fault::is_no_definer(error);
        if !is_gone && !fault::is_denial(error) {
            return None;
        }
        Some(Self {
            account: account_in(&error.message)?,
            is_gone,
            text: error.message.trim_end_matches('.').to_owned(),
        })
    }

    fn why(&self) -> &'static str {
        if self.is_gone {
            "an account that is gone"
        } else {
            "an account that may not do what they do"
        }
    }

    /// The finding for triggers of the site that have the account; without any, it belongs to something that
    /// a trigger or statement uses.
    fn finding(&self, site: &[&Trigger]) -> Finding {
        let account = quoted(&self.account);
        let remedy = if self.is_gone {
            format!("make the account again (CREATE USER {account})")
        } else {
            format!("grant {account} what it lacks ({})", self.text)
        };
        let Some(first) = site.first() else {
            return Finding::problem(
                format!(
                    "credit or edits can't be written: something that they use runs as {}, {}",
                    self.account,
                    self.why()
                ),
                format!(
                    "find the view, function or procedure of that definer (information_schema.views \
                     and .routines) and make it again under an account that exists, or {remedy}"
                ),
            );
        };
        let named: Vec<String> = site
            .iter()
            .map(|trigger| format!("{} on {}", trigger.name, trigger.table))
            .collect();
        Finding::problem(
            format!(
                "credit or edits can't be written: of the site's own triggers, {} runs as {}, {}",
                named.join(", "),
                self.account,
                self.why()
            ),
            format!(
                "make it again under an account that exists (SHOW CREATE TRIGGER `{}` shows its text), \
                 or {remedy}; mika-manage migrate touches Mika's own triggers only",
                first.name
            ),
        )
    }
}

/// The account that an error names as `'user'@'host'`, in the form `user@host`.
fn account_in(message: &str) -> Option<String> {
    let (before, after) = message.split_once("'@'")?;
    let (_, user) = before.rsplit_once('\'')?;
    let (host, _) = after.split_once('\'')?;
    Some(format!("{user}@{host}"))
}

/// An account in SQL.
pub(super) fn quoted(account: &str) -> String {
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    format!("'{}'@'{host}'", user.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_the_one_that_the_server_names() {
        for (message, account) in [
            (
                "The user specified as a definer ('olddev'@'localhost') does not exist",
                Some("olddev@localhost"),
            ),
            (
                "INSERT command denied to user 'it'@'10.0.0.%' for table `mika`.`mika_feed`",
                Some("it@10.0.0.%"),
            ),
            ("Something else", None),
        ] {
            assert_eq!(account_in(message).as_deref(), account, "{message}");
        }
        assert_eq!(quoted("it@%"), "'it'@'%'");
    }
}
