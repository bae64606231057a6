//! How the database is now: triggers, the accounts they run as, tables and their engines, the session.
//! It takes a few small queries, so the daemon looks every half a minute.

use mysql_async::Error;

use super::cells::Cells;
use super::fault::{self, Fault, NO_FEED};
use super::link::Session;
use super::rows::Rows;
use super::{settings, tables};
use crate::storage::Finding;
use crate::storage::schema::{self, Call, FEED, Schema, mentions};
use crate::storage::triggers::{self, Misplaced, Trigger};

pub(super) async fn inspect(
    session: &mut Session<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, Fault> {
    let mut findings = Vec::new();
    settings::inspect(session, &mut findings).await?;
    let tables = tables_of(session).await?;
    engines(session, schema, &tables, &mut findings);
    if session.has(&FEED) {
        let views = views(schema, &tables);
        if views.is_empty() {
            let misplaced = misplaced(session, schema).await?;
            findings.extend(findings_of(session, &misplaced).await?);
        }
        findings.extend(views);
    }
    Ok(findings)
}

/// A table or view of the database.
struct Table {
    name: String,
    is_view: bool,
    /// None for a view.
    engine: Option<String>,
    /// Whether its engine has transactions.
    is_transactional: bool,
}

async fn tables_of(session: &mut Session<'_>) -> Result<Vec<Table>, Fault> {
    let sql = "SELECT t.table_name, t.table_type, t.engine, e.transactions \
        FROM information_schema.tables AS t LEFT JOIN information_schema.engines AS e \
        ON e.engine = t.engine WHERE t.table_schema = DATABASE()";
    let rows = session.query(sql).await?;
    let table = |cells: Cells<'_>| Table {
        name: cells.text(0),
        is_view: cells.text(1).contains("VIEW"),
        engine: (!cells.is_null(2)).then(|| cells.text(2)),
        is_transactional: cells.text(3) == "YES",
    };
    Ok(rows.iter().map(|row| table(Cells(row))).collect())
}

/// Credit is exact because a batch and its number are one transaction. A table without
/// transactions keeps the first half of a batch that is then written again.
fn engines(session: &Session<'_>, schema: &Schema, tables: &[Table], findings: &mut Vec<Finding>) {
    let credit = [
        &schema::CREDIT_USERS,
        &schema::CREDIT_TORRENTS,
        &schema::CREDIT_SNATCHES,
        &schema::ADD_SNATCHED,
    ];
    let edits = [
        &schema::ADD_USER,
        &schema::UPDATE_USER,
        &schema::ADD_TORRENT,
        &schema::UPDATE_TORRENT,
        &schema::ADD_CLIENT,
    ];
    let is_in = |calls: &[&Call], name: &str| {
        let mut calls = calls.iter();
        calls.any(|call| mentions(session.statements_of(call), name))
    };
    for table in tables {
        let Table { name, .. } = table;
        let Some(engine) = &table.engine else {
            continue;
        };
        if table.is_transactional {
            continue;
        }
        let hint = format!("ALTER TABLE `{name}` ENGINE = InnoDB");
        if schema.owns(name) || is_in(&credit, name) {
            findings.push(Finding::fatal(
                format!(
                    "the table {name} has the engine {engine}, which has no transactions: credit \
                     could count twice"
                ),
                hint,
            ));
        } else if is_in(&edits, name) {
            findings.push(Finding::note(
                format!(
                    "the table {name} has the engine {engine}, which has no transactions: an edit \
                     that fails half-way is not taken back"
                ),
                hint,
            ));
        }
    }
}

/// Tables that should have triggers and are views.
fn views(schema: &Schema, tables: &[Table]) -> Vec<Finding> {
    let expected = tables::triggers(schema);
    let wants_triggers = |table: &&Table| {
        let mut expected = expected.iter();
        table.is_view && expected.any(|trigger| trigger.table.eq_ignore_ascii_case(&table.name))
    };
    let finding = |table: &Table| {
        Finding::problem(
            format!(
                "{} is a view, which can't have triggers: changes can't be followed",
                table.name
            ),
            NO_FEED,
        )
    };
    tables.iter().filter(wants_triggers).map(finding).collect()
}

/// The first view where triggers have to be, in words.
pub(super) async fn view_in_the_way(
    session: &mut Session<'_>,
    schema: &Schema,
) -> Result<Option<Finding>, Fault> {
    if !session.has(&FEED) {
        return Ok(None);
    }
    let tables = tables_of(session).await?;
    Ok(views(schema, &tables).into_iter().next())
}

/// Mika's triggers that are missing, elsewhere, changed, or run as an account that can't do it.
pub(super) async fn misplaced(
    session: &mut Session<'_>,
    schema: &Schema,
) -> Result<Vec<Misplaced>, Fault> {
    let sql = "SELECT trigger_name, event_object_table, action_timing, event_manipulation, \
        action_statement, definer FROM information_schema.triggers \
        WHERE trigger_schema = DATABASE() AND LEFT(trigger_name, 5) = 'mika_'";
    let rows = session.query(sql).await?;
    let (mut found, mut definers) = (Vec::new(), Vec::new());
    for row in &rows {
        let cells = Cells(row);
        found.push(Trigger {
            name: cells.text(0),
            table: cells.text(1),
            timing: cells.text(2),
            event: cells.text(3),
            body: cells.text(4),
        });
        definers.push(cells.text(5));
    }
    let expected = tables::triggers(schema);
    let mut misplaced = triggers::misplaced(&expected, &found);
    let is_in_place = |name: &str| {
        expected.iter().any(|trigger| trigger.name == name)
            && !misplaced.iter().any(|it| it.name == name)
    };
    let rest: Vec<(&Trigger, &str)> = found
        .iter()
        .zip(&definers)
        .filter(|(trigger, _)| is_in_place(&trigger.name))
        .map(|(trigger, definer)| (trigger, definer.as_str()))
        .collect();
    let disowned = disowned(session, &rest).await?;
    misplaced.extend(disowned);
    Ok(misplaced)
}

/// Triggers that run as an account that is gone, or may not do it. Accounts are for administrators to
/// see, so where it is not Mika's own, credit of nothing is tried, and taken back.
async fn disowned(
    session: &mut Session<'_>,
    triggers: &[(&Trigger, &str)],
) -> Result<Vec<Misplaced>, Fault> {
    let rows = session.query("SELECT CURRENT_USER()").await?;
    let ourselves = rows.first().map(|row| Cells(row).text(0));
    let others = triggers
        .iter()
        .filter(|(_, definer)| Some(*definer) != ourselves.as_deref());
    let others: Vec<&(&Trigger, &str)> = others.collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let failed = credit_of_nothing(session).await?;
    let runs_with_credit = |trigger: &Trigger| {
        let mut credit = [&schema::CREDIT_USERS, &schema::CREDIT_TORRENTS].into_iter();
        trigger.event != "DELETE"
            && credit.any(|call| mentions(session.statements_of(call), &trigger.table))
    };
    let tried: Vec<&str> = others
        .iter()
        .filter(|(trigger, _)| runs_with_credit(trigger))
        .map(|(_, definer)| *definer)
        .collect();
    let problem = |definer: &str| match &failed {
        Some(Failed::Gone) => Some(format!("as {definer}, an account that is gone")),
        Some(Failed::Denied(text)) => Some(format!("as {definer}, which can't do it ({text})")),
        None if tried.contains(&definer) => None,
        None => Some(format!(
            "as {definer}, and not as Mika's account, which can't see whether that one is there"
        )),
    };
    let misplaced = others.iter().filter_map(|(trigger, definer)| {
        let problem = problem(definer)?;
        Some(Misplaced::new(&trigger.name, problem))
    });
    Ok(misplaced.collect())
}

/// Why a trigger could not run.
enum Failed {
    /// The account that it runs as is gone.
    Gone,
    /// That account lacks a privilege; what the server says.
    Denied(String),
}

/// Adds nothing to the totals of one user and one torrent, which runs triggers as credit does; why
/// that fails, if it is for want of an account or its privileges.
async fn credit_of_nothing(session: &mut Session<'_>) -> Result<Option<Failed>, Fault> {
    let mut failed = None;
    tables::begin(session).await?;
    for (read, credit) in [
        (&schema::USERS, &schema::CREDIT_USERS),
        (&schema::TORRENTS, &schema::CREDIT_TORRENTS),
    ] {
        match add_nothing(session, read, credit).await {
            Err(fault) if fault.is_no_definer() => failed = Some(Failed::Gone),
            Err(Fault::Sql(Error::Server(error), _)) if fault::is_denial(&error) => {
                let text = error.message.trim_end_matches('.');
                failed.get_or_insert(Failed::Denied(text.to_owned()));
            }
            // The check tells of statements that don't work.
            Ok(()) | Err(Fault::Sql(Error::Server(_), _)) => {}
            Err(fault) => return Err(fault),
        }
    }
    session.run("ROLLBACK").await?;
    Ok(failed)
}

async fn add_nothing(
    session: &mut Session<'_>,
    read: &'static Call,
    credit: &'static Call,
) -> Result<(), Fault> {
    let params = [("after", (-1).into()), ("limit", 1.into())];
    let rows = session.call(read, &params).await?;
    if let Some(id) = rows.first().and_then(|row| Cells(row).id(0).ok()) {
        let columns = credit.rows.split(' ').count();
        let zeros = ",0".repeat(columns - 1);
        let mut nothing = Rows::default();
        nothing.push_written(format!("{id}{zeros}"));
        session.call_with(credit, &nothing).await?;
    }
    Ok(())
}

/// Triggers that are not seen may be there all the same, without the right to see them.
async fn findings_of(
    session: &mut Session<'_>,
    misplaced: &[Misplaced],
) -> Result<Option<Finding>, Fault> {
    let Some(first) = misplaced.first() else {
        return Ok(None);
    };
    let shown = session
        .query(&format!("SHOW CREATE TRIGGER `{}`", first.name))
        .await;
    match shown {
        Err(fault) if fault.is_denied() || fault.lacks_privilege() => Ok(Some(Finding::problem(
            "Mika's account lacks the privilege TRIGGER: its triggers can't be seen, and do not work",
            "as an administrator: GRANT TRIGGER on the database to Mika's account (see docs/sql.md)",
        ))),
        Ok(_) => Ok(triggers::finding(misplaced)),
        Err(fault) if fault.is_no_trigger() => Ok(triggers::finding(misplaced)),
        Err(fault) => Err(fault),
    }
}
