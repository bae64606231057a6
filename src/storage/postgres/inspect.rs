//! Cheap checks: triggers, tables, the session. They take a few small queries, so the daemon runs them every half a
//! minute.

use super::fault::{NO_FEED, PostgresFault};
use super::session::PostgresSession;
use super::{rights, settings, tables};
use crate::storage::Finding;
use crate::storage::sql::calls::{self, Call, FEED};
use crate::storage::sql::cells::{Cell, SqlRow};
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, mentions};
use crate::storage::triggers::{self, Misplaced, Trigger};

pub(super) async fn inspect(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, PostgresFault> {
    let mut findings = Vec::new();
    settings::inspect(session, &mut findings).await?;
    let tables = tables_of(session).await?;
    unlogged(session, schema, &tables, &mut findings);
    if session.has(&FEED) {
        let mut obstacles = views(schema, &tables);
        obstacles.extend(absent(schema, &tables));
        if obstacles.is_empty() {
            let misplaced = misplaced(session, schema).await?;
            findings.extend(triggers::finding(&misplaced));
            findings.extend(rights::of_triggers(session).await?);
        }
        findings.extend(obstacles);
    }
    Ok(findings)
}

/// A table or view that statements find without naming its schema.
struct Relation {
    name: String,
    is_view: bool,
    /// Whether a crash of the server empties it.
    is_unlogged: bool,
}

async fn tables_of(session: &mut PostgresSession<'_>) -> Result<Vec<Relation>, PostgresFault> {
    let sql = "SELECT relname, relkind IN ('v', 'm', 'f'), relpersistence = 'u' FROM pg_class \
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(oid) \
        AND relnamespace <> 'pg_catalog'::regnamespace";
    let rows = session.query(sql, &[]).await?;
    let table = |row: SqlRow<'_>| Relation {
        name: row.text(0),
        is_view: row.flag(1),
        is_unlogged: row.flag(2),
    };
    Ok(rows.iter().map(table).collect())
}

/// Credit is exact because a batch and its number are one transaction. A crash would empty an unlogged table, and
/// leave the others.
fn unlogged(
    session: &PostgresSession<'_>,
    schema: &Schema,
    tables: &[Relation],
    findings: &mut Vec<Finding>,
) {
    let credit = [
        &calls::CREDIT_USERS,
        &calls::CREDIT_TORRENTS,
        &calls::CREDIT_SNATCHES,
        &calls::ADD_SNATCHED,
    ];
    let is_in = |call: &&Call, name: &str| mentions(session.statements_of(call), name);
    for Relation { name, .. } in tables.iter().filter(|table| table.is_unlogged) {
        if schema.owns(name) || credit.iter().any(|call| is_in(call, name)) {
            findings.push(Finding::fatal(
                format!("the table {name} is unlogged, so that a crash empties it: credit could count twice"),
                format!("ALTER TABLE {name} SET LOGGED"),
            ));
        }
    }
}

/// Missing tables that should have triggers.
fn absent(schema: &Schema, tables: &[Relation]) -> Vec<Finding> {
    let mut names: Vec<String> = Vec::new();
    for trigger in expected(schema) {
        let is_there = |table: &Relation| table.name == trigger.table;
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

/// Views, and tables of other servers, that should be tables with triggers.
fn views(schema: &Schema, tables: &[Relation]) -> Vec<Finding> {
    let expected = expected(schema);
    let wants_triggers = |table: &&Relation| {
        let mut expected = expected.iter();
        table.is_view && expected.any(|trigger| trigger.table == table.name)
    };
    let finding = |table: &Relation| {
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
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Option<Finding>, PostgresFault> {
    if !session.has(&FEED) {
        return Ok(None);
    }
    let tables = tables_of(session).await?;
    Ok(views(schema, &tables).into_iter().next())
}

/// The triggers that the migrations of a schema create. The body is what they call, and the text of that function.
pub(super) fn expected(schema: &Schema) -> Vec<Trigger> {
    let all: Vec<String> = schema
        .migrations
        .iter()
        .flat_map(tables::statements)
        .collect();
    let text_of = |name: &str| {
        let mut functions = all
            .iter()
            .filter_map(|statement| tables::function_of(statement));
        let function = functions.find(|(known, _)| *known == name);
        function.map_or("", |(_, text)| text)
    };
    let triggers = all
        .iter()
        .filter_map(|statement| Trigger::of_statement(statement));
    triggers
        .map(|trigger| {
            let called = trigger.body.rsplit_once("EXECUTE FUNCTION ");
            let name = called.and_then(|(_, call)| call.split('(').next());
            let text = text_of(name.unwrap_or_default());
            Trigger {
                body: body_of(&trigger.body, text),
                ..trigger
            }
        })
        .collect()
}

/// Triggers of Mika's that are missing, on another table, changed or disabled.
pub(super) async fn misplaced(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<Misplaced>, PostgresFault> {
    let sql = "SELECT pg_get_triggerdef(t.oid), p.prosrc, t.tgenabled IN ('O', 'A'), \
            t.tgname LIKE 'mika\\_feed\\_%' OR (p.prosecdef AND p.proconfig::text LIKE '%search\\_path=%') \
        FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid \
        WHERE t.tgname LIKE 'mika\\_%' AND NOT t.tgisinternal AND t.tgparentid = 0 \
        AND pg_table_is_visible(t.tgrelid)";
    let rows = session.query(sql, &[]).await?;
    let expected = expected(schema);
    let mut found = Vec::new();
    let mut unusable = Vec::new();
    for row in rows.iter() {
        let Some(trigger) = Trigger::of_statement(&row.text(0)) else {
            continue;
        };
        // The server names the schema.
        let table = trigger.table.rsplit('.').next().unwrap_or_default();
        let is_it = |wanted: &&Trigger| wanted.name == trigger.name && wanted.table == table;
        let Some(wanted) = expected.iter().find(is_it) else {
            let left = Trigger {
                table: table.to_owned(),
                body: row.text(1),
                ..trigger
            };
            found.extend(Some(left).filter(Trigger::is_of_mika));
            continue;
        };
        let problem = match (row.flag(2), row.flag(3)) {
            (false, _) => Some("disabled"),
            (_, false) => Some("with a function that has the rights of whoever changes a row"),
            _ => None,
        };
        unusable.extend(problem.map(|problem| Misplaced::new(&wanted.name, problem)));
        found.push(Trigger {
            table: wanted.table.clone(),
            body: body_of(&trigger.body, &row.text(1)),
            ..trigger
        });
    }
    let mut misplaced = triggers::misplaced(&expected, &found);
    unusable.retain(|it| !misplaced.iter().any(|other| other.name == it.name));
    misplaced.extend(unusable);
    Ok(misplaced)
}

/// Whether a table has a trigger of that name.
pub(super) async fn has_trigger(
    session: &mut PostgresSession<'_>,
    table: &str,
    name: &str,
) -> Result<bool, PostgresFault> {
    let sql = "SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass($1) AND tgname = $2";
    let params = [Cell::Text(table), Cell::Text(name)];
    Ok(!session.query(sql, &params).await?.is_empty())
}

/// What a trigger does: what it calls, and the text of that function.
fn body_of(called: &str, function: &str) -> String {
    format!("{called}\n{function}")
}

#[cfg(test)]
mod tests {
    use super::super::SCHEMAS;
    use super::*;

    #[test]
    fn each_trigger_is_known_with_its_function() {
        let expected = expected(&SCHEMAS[0]);
        assert_eq!(expected.len(), 10);
        for trigger in expected {
            assert!(trigger.body.contains("mika"), "{trigger:?}");
            assert!(trigger.body.ends_with("END\n"), "{trigger:?}");
        }
    }
}
