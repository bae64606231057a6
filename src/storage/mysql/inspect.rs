//! Cheap checks: triggers and their accounts, tables and their engines, the session. They take a few small
//! queries, so the daemon runs them every half minute.

use super::definers::{self, Owned, Trial};
use super::fault::{MysqlFault, NO_FEED};
use super::rights::Missing;
use super::session::MysqlSession;
use super::{settings, tables};
use crate::storage::Finding;
use crate::storage::sql::calls::{self, Call, FEED};
use crate::storage::sql::cells::SqlRow;
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, mentions};
use crate::storage::triggers::{self, Misplaced, Trigger};

pub(super) async fn inspect(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    trial: Trial,
) -> Result<Vec<Finding>, MysqlFault> {
    let mut rights = Missing::default();
    let mut findings = inspect_with(session, schema, trial, &mut rights).await?;
    findings.extend(rights.finding(session).await?);
    Ok(findings)
}

/// Like [`inspect`], but leaves missing privileges to the caller.
pub(super) async fn inspect_with(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    trial: Trial,
    rights: &mut Missing,
) -> Result<Vec<Finding>, MysqlFault> {
    let mut findings = Vec::new();
    settings::inspect(session, &mut findings).await?;
    let tables = tables_of(session).await?;
    engines(session, schema, &tables, &mut findings);
    if session.has(&FEED) {
        let mut obstacles = views(schema, &tables);
        obstacles.extend(absent(schema, &tables));
        if obstacles.is_empty() {
            let found = triggers(session, schema, trial).await?;
            findings.extend(findings_of(session, found, rights).await?);
        }
        findings.extend(obstacles);
    }
    Ok(findings)
}

/// Missing tables that should have triggers.
fn absent(schema: &Schema, tables: &[Table]) -> Vec<Finding> {
    let mut names: Vec<String> = Vec::new();
    for trigger in tables::triggers(schema) {
        let is_there = |table: &Table| table.name.eq_ignore_ascii_case(&trigger.table);
        if !tables.iter().any(is_there) && !names.contains(&trigger.table) {
            names.push(trigger.table);
        }
    }
    let finding = |name: &String| {
        let (problem, hint) = tables::absence(schema, name);
        Finding::problem(problem, hint)
    };
    names.iter().map(finding).collect()
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

async fn tables_of(session: &mut MysqlSession<'_>) -> Result<Vec<Table>, MysqlFault> {
    let sql = "SELECT t.table_name, t.table_type, t.engine, e.transactions \
        FROM information_schema.tables AS t LEFT JOIN information_schema.engines AS e \
        ON e.engine = t.engine WHERE t.table_schema = DATABASE()";
    let rows = session.query(sql).await?;
    let table = |row: SqlRow<'_>| Table {
        name: row.text(0),
        is_view: row.text(1).contains("VIEW"),
        engine: (!row.is_null(2)).then(|| row.text(2)),
        is_transactional: row.text(3) == "YES",
    };
    Ok(rows.iter().map(table).collect())
}

/// Credit is exact because a batch and its number are one transaction. A table without transactions would
/// keep half of a batch, which would then be applied again.
fn engines(
    session: &MysqlSession<'_>,
    schema: &Schema,
    tables: &[Table],
    findings: &mut Vec<Finding>,
) {
    let credit = [
        &calls::CREDIT_USERS,
        &calls::CREDIT_TORRENTS,
        &calls::CREDIT_SNATCHES,
        &calls::ADD_SNATCHED,
    ];
    let edits = [
        &calls::ADD_USER,
        &calls::UPDATE_USER,
        &calls::ADD_TORRENT,
        &calls::UPDATE_TORRENT,
        &calls::ADD_CLIENT,
    ];
    let is_in = |calls: &[&Call], name: &str| {
        calls
            .iter()
            .any(|call| mentions(session.statements_of(call), name))
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
        let is_for_edits = ["mika_feed", "mika_migrations"].contains(&name.as_str());
        if is_in(&credit, name) || schema.owns(name) && !is_for_edits {
            findings.push(Finding::fatal(
                format!(
                    "the table {name} has the engine {engine}, which has no transactions: credit \
                     could count twice"
                ),
                hint,
            ));
        } else if is_for_edits || is_in(&edits, name) {
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

/// Views that should be tables with triggers.
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
            followed::unfollow(schema, &table.name).unwrap_or_else(|| NO_FEED.into()),
        )
    };
    tables.iter().filter(wants_triggers).map(finding).collect()
}

/// The finding for the first view that should be a table with triggers.
pub(super) async fn view_in_the_way(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Option<Finding>, MysqlFault> {
    if !session.has(&FEED) {
        return Ok(None);
    }
    let tables = tables_of(session).await?;
    Ok(views(schema, &tables).into_iter().next())
}

/// Triggers that need repair.
pub(super) struct TriggerState {
    /// Mika's own, if they are missing, on another table or changed, or run as an unusable account.
    pub(super) misplaced: Vec<Misplaced>,
    /// What is wrong with those of the site.
    site: Vec<Finding>,
}

pub(super) async fn triggers(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    trial: Trial,
) -> Result<TriggerState, MysqlFault> {
    let sql = "SELECT trigger_name, event_object_table, action_timing, event_manipulation, \
        action_statement, definer FROM information_schema.triggers \
        WHERE trigger_schema = DATABASE()";
    let rows = session.query(sql).await?;
    let (mut found, mut definers) = (Vec::new(), Vec::new());
    for row in rows.iter() {
        found.push(Trigger {
            name: row.text(0),
            table: row.text(1),
            timing: row.text(2),
            event: row.text(3),
            body: row.text(4),
        });
        definers.push(row.text(5));
    }
    let expected = tables::triggers(schema);
    let mut misplaced = triggers::misplaced(&expected, &found);
    let is_own = |(trigger, _): &Owned<'_>| expected.iter().any(|own| own.name == trigger.name);
    let definers = definers.iter().map(String::as_str);
    let (own, site): (Vec<Owned<'_>>, Vec<Owned<'_>>) =
        found.iter().zip(definers).partition(is_own);
    let mut place = own.clone();
    place.retain(|(trigger, _)| !misplaced.iter().any(|other| other.name == trigger.name));
    let (disowned, site) = definers::look(session, &own, &place, &site, trial).await?;
    misplaced.extend(disowned);
    Ok(TriggerState { misplaced, site })
}

/// What is wrong with triggers. One that seems to be missing may exist: an account needs a privilege to
/// see it.
async fn findings_of(
    session: &mut MysqlSession<'_>,
    found: TriggerState,
    rights: &mut Missing,
) -> Result<Vec<Finding>, MysqlFault> {
    let mut findings = found.site;
    let Some(first) = found.misplaced.first() else {
        return Ok(findings);
    };
    let shown = session
        .query(&format!("SHOW CREATE TRIGGER `{}`", first.name))
        .await;
    match shown {
        Err(fault) if fault.is_denied() || fault.lacks_privilege() => rights.note_trigger(),
        Err(fault) if !fault.is_no_trigger() => return Err(fault),
        _ => findings.extend(triggers::finding(&found.misplaced)),
    }
    Ok(findings)
}
