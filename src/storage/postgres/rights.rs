//! The privileges of Mika's account, and of the one that its triggers run as: what to grant.

use std::collections::BTreeMap;

use super::fault::PostgresResult;
use super::session::PostgresSession;
use crate::storage::Finding;
use crate::storage::migrate::made_function;
use crate::storage::sql::cells::Cell;
use crate::storage::sql::check::rights::MissingPrivileges;
use crate::storage::sql::triggers::Trigger;

/// Mika's account, and the schema in which new tables are made, as SQL.
async fn account_and_schema(session: &mut PostgresSession<'_>) -> PostgresResult<(String, String)> {
    let sql = "SELECT quote_ident(current_user), quote_ident(COALESCE(current_schema(), 'public'))";
    let rows = session.query(sql, &[]).await?;
    let row = rows.first();
    Ok(row
        .map(|row| (row.text(0), row.text(1)))
        .unwrap_or_default())
}

/// The statements that grant what is missing, and nothing else.
pub(super) async fn grant(
    session: &mut PostgresSession<'_>,
    missing: &MissingPrivileges,
) -> PostgresResult<String> {
    let (account, schema) = account_and_schema(session).await?;
    let mut grants = Vec::new();
    if !missing.new_tables().is_empty() {
        grants.push(format!(
            "GRANT USAGE, CREATE ON SCHEMA {schema} TO {account}"
        ));
    } else if missing.has_others() {
        grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {account}"));
    }
    let mut by_names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (table, names) in missing.by_tables() {
        by_names.entry(names).or_default().extend(table);
    }
    let on_tables = by_names
        .into_iter()
        .filter(|(_, tables)| !tables.is_empty());
    grants.extend(
        on_tables
            .map(|(names, tables)| format!("GRANT {names} ON {} TO {account}", tables.join(", "))),
    );
    let on_sequences = missing.sequences();
    grants.extend(
        on_sequences.map(|(name, lacks)| format!("GRANT {lacks} ON SEQUENCE {name} TO {account}")),
    );
    Ok(grants.join("; "))
}

/// The relation that a denial names: `permission denied for table members`, or view, or sequence.
pub(super) fn denied(message: &str) -> Option<String> {
    let relation = message.strip_prefix("permission denied for ")?;
    let (kind, name) = relation.split_once(' ')?;
    let is_table = ["table", "view", "relation"].contains(&kind);
    is_table.then(|| name.to_owned())
}

/// What to do about a statement of a migration that was denied.
pub(super) async fn remedy(
    session: &mut PostgresSession<'_>,
    statement: &str,
) -> PostgresResult<String> {
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
) -> PostgresResult<Option<Finding>> {
    let sql = "SELECT quote_ident(r.rolname), \
        COALESCE(max(substring(p.prosrc FROM 'DELETE FROM (\\w+)')), 'peers') \
        FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_roles AS r ON r.oid = p.proowner \
        WHERE t.tgname LIKE 'mika\\_%' AND p.prosecdef AND pg_table_is_visible(t.tgrelid) \
        AND NOT has_table_privilege(r.oid, to_regclass('mika_feed')::oid, 'INSERT') \
        GROUP BY r.rolname";
    let rows = session.query(sql, &[]).await?;
    Ok(rows.first().map(|row| {
        let (owner, peers) = (row.text(0), row.text(1));
        Finding::problem(
            format!(
                "Mika's triggers run as {owner}, which may not write mika_feed: the site can't change \
                 users and torrents"
            ),
            format!(
                "as an administrator: GRANT SELECT, INSERT ON mika_feed TO {owner}; \
                 GRANT SELECT, DELETE ON {peers} TO {owner}"
            ),
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::denied;

    #[test]
    fn the_table_of_a_denial_is_read() {
        assert_eq!(
            denied("permission denied for table members").unwrap(),
            "members"
        );
        assert_eq!(denied("permission denied for view ranks").unwrap(), "ranks");
        assert_eq!(denied("permission denied for schema site"), None);
        assert_eq!(denied("keine Berechtigung für Tabelle members"), None);
    }
}
