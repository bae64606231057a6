//! The privileges of Mika's account, and of the one that its triggers run as: what to grant.

use super::fault::PostgresFault;
use super::session::PostgresSession;
use crate::storage::Finding;
use crate::storage::migrate::made_function;
use crate::storage::sql::cells::Cell;
use crate::storage::sql::check::rights::MissingPrivileges;
use crate::storage::sql::triggers::Trigger;

/// Mika's account, and the schema in which new tables are made, as SQL.
async fn account_and_schema(
    session: &mut PostgresSession<'_>,
) -> Result<(String, String), PostgresFault> {
    let sql = "SELECT quote_ident(current_user), quote_ident(COALESCE(current_schema(), 'public'))";
    let rows = session.query(sql, &[]).await?;
    let row = rows.first();
    Ok(row
        .map(|row| (row.text(0), row.text(1)))
        .unwrap_or_default())
}

/// The statements that grant what is missing.
pub(super) async fn grant(
    session: &mut PostgresSession<'_>,
    missing: &MissingPrivileges,
) -> Result<String, PostgresFault> {
    let (account, schema) = account_and_schema(session).await?;
    if missing.has_others() {
        return Ok(format!(
            "GRANT USAGE ON SCHEMA {schema} TO {account}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {account}; \
             GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {account}"
        ));
    }
    let grants = missing.by_tables().into_iter();
    let grants = grants.map(|(tables, names)| format!("GRANT {names} ON {tables} TO {account}"));
    Ok(grants.collect::<Vec<_>>().join("; "))
}

/// What to do about a statement of a migration that was denied.
pub(super) async fn remedy(
    session: &mut PostgresSession<'_>,
    statement: &str,
) -> Result<String, PostgresFault> {
    session.recover().await?;
    let (account, schema) = account_and_schema(session).await?;
    if let Some(Trigger { table, .. }) = Trigger::of_statement(statement) {
        return Ok(format!(
            "As an administrator run: GRANT TRIGGER ON {table} TO {account}"
        ));
    }
    let makes_new = match made_function(statement) {
        Some((name, _)) => {
            let sql = "SELECT to_regprocedure($1 || '()') IS NULL";
            let rows = session.query(sql, &[Cell::Text(name)]).await?;
            rows.first().is_some_and(|row| row.flag(0))
        }
        None => statement.starts_with("CREATE TABLE "),
    };
    if let Some(drop) = statement.strip_prefix("DROP TRIGGER IF EXISTS ") {
        return Ok(format!(
            "As the owner of the table run: DROP TRIGGER {drop}"
        ));
    }
    Ok(if makes_new {
        format!("As an administrator run: GRANT USAGE, CREATE ON SCHEMA {schema} TO {account}")
    } else {
        "Name the account that owns it in storage.url for that".into()
    })
}

/// Whether the function of the triggers may write the feed and delete peers: it has the rights of its owner.
pub(super) async fn of_triggers(
    session: &mut PostgresSession<'_>,
) -> Result<Option<Finding>, PostgresFault> {
    let sql = "SELECT DISTINCT quote_ident(r.rolname) \
        FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_roles AS r ON r.oid = p.proowner \
        WHERE t.tgname LIKE 'mika\\_%' AND p.prosecdef AND pg_table_is_visible(t.tgrelid) \
        AND NOT has_table_privilege(r.oid, to_regclass('mika_feed')::oid, 'INSERT')";
    let rows = session.query(sql, &[]).await?;
    Ok(rows.first().map(|row| {
        let owner = row.text(0);
        Finding::problem(
            format!(
                "Mika's triggers run as {owner}, which may not write mika_feed: the site can't change \
                 users and torrents"
            ),
            format!(
                "as an administrator: GRANT SELECT, INSERT ON mika_feed TO {owner}; \
                 GRANT SELECT, DELETE ON peers TO {owner}"
            ),
        )
    }))
}
