//! The privileges that Mika's account lacks, as one finding.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::PostgresFault;
use super::session::PostgresSession;
use crate::storage::Finding;
use crate::storage::sql::calls::{ADD_TORRENT, ADD_USER};
use crate::storage::sql::cells::Cell;
use crate::storage::sql::statements::mentions;
use crate::storage::triggers::Trigger;

/// What Mika needs on its own tables.
const PRIVILEGES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// Missing privileges, by table.
#[derive(Default)]
pub(super) struct Lacking {
    tables: BTreeMap<&'static str, BTreeSet<String>>,
    /// What the server says about the others.
    others: BTreeSet<String>,
}

impl Lacking {
    /// Records what a statement was denied for.
    pub(super) fn note(&mut self, fault: &PostgresFault) {
        self.others.extend(fault.lack());
    }

    /// Whether anything is missing on that table.
    pub(super) fn has(&self, table: &str) -> bool {
        self.tables.values().any(|tables| tables.contains(table))
    }

    /// Looks at the privileges on a table of Mika's own.
    pub(super) async fn look(
        &mut self,
        session: &mut PostgresSession<'_>,
        table: &str,
    ) -> Result<(), PostgresFault> {
        let sql = "SELECT has_table_privilege(to_regclass($1)::oid, $2)";
        for privilege in PRIVILEGES {
            let params = [Cell::Text(table), Cell::Text(privilege)];
            let rows = session.query(sql, &params).await?;
            // NULL without such a table.
            if rows
                .first()
                .is_some_and(|row| !row.is_null(0) && !row.flag(0))
            {
                let tables = self.tables.entry(privilege).or_default();
                tables.insert(table.to_owned());
            }
        }
        Ok(())
    }

    /// Looks at the sequences from which the ids of added rows come.
    pub(super) async fn look_at_ids(
        &mut self,
        session: &mut PostgresSession<'_>,
    ) -> Result<(), PostgresFault> {
        let sql = "SELECT pg_get_serial_sequence($1, 'id'), \
            has_sequence_privilege(pg_get_serial_sequence($1, 'id'), 'USAGE') \
            AND has_sequence_privilege(pg_get_serial_sequence($1, 'id'), 'UPDATE') \
            FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'id'";
        for (call, table) in [(&ADD_USER, "users"), (&ADD_TORRENT, "torrents")] {
            if !mentions(session.statements_of(call), table) {
                continue;
            }
            let rows = session.query(sql, &[Cell::Text(table)]).await?;
            if let Some(row) = rows.first()
                && !row.is_null(0)
                && !row.flag(1)
            {
                self.others
                    .insert(format!("USAGE, UPDATE on the sequence {}", row.text(0)));
            }
        }
        Ok(())
    }

    /// Whether a text of the server is about a table whose privileges were looked at.
    fn is_known(&self, text: &str) -> bool {
        let mut words = text.split(|char: char| !char.is_alphanumeric() && char != '_');
        words.any(|word| self.has(word))
    }

    pub(super) async fn finding(
        &self,
        session: &mut PostgresSession<'_>,
    ) -> Result<Option<Finding>, PostgresFault> {
        let account = account(session).await?;
        let mut lacks: Vec<String> = Vec::new();
        let mut by_tables: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (privilege, tables) in &self.tables {
            let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
            let privileges = by_tables.entry(tables.join(", ")).or_default();
            privileges.push(privilege);
        }
        let mut grants = Vec::new();
        for (tables, privileges) in by_tables {
            let privileges = privileges.join(", ");
            lacks.push(format!("{privileges} on {tables}"));
            grants.push(format!("GRANT {privileges} ON {tables} TO {account}"));
        }
        let others = self.others.iter().filter(|text| !self.is_known(text));
        let others: Vec<String> = others.cloned().collect();
        if !others.is_empty() {
            grants = vec![grant_all(&schema(session).await?, &account)];
        }
        lacks.extend(others);
        if lacks.is_empty() {
            return Ok(None);
        }
        let noun = if lacks.len() == 1 {
            "privilege"
        } else {
            "privileges"
        };
        Ok(Some(Finding::problem(
            format!("Mika's account lacks the {noun} {}", lacks.join("; ")),
            format!(
                "as an administrator: {} (see Rights in docs/sql.md)",
                grants.join("; ")
            ),
        )))
    }
}

/// Mika's account as SQL.
async fn account(session: &mut PostgresSession<'_>) -> Result<String, PostgresFault> {
    let rows = session
        .query("SELECT quote_ident(current_user)", &[])
        .await?;
    Ok(rows.first().map(|row| row.text(0)).unwrap_or_default())
}

/// The schema in which new tables are made, as SQL.
async fn schema(session: &mut PostgresSession<'_>) -> Result<String, PostgresFault> {
    let sql = "SELECT quote_ident(COALESCE(current_schema(), 'public'))";
    let rows = session.query(sql, &[]).await?;
    Ok(rows.first().map(|row| row.text(0)).unwrap_or_default())
}

fn grant_all(schema: &str, account: &str) -> String {
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO {account}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {account}; \
         GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {account}"
    )
}

/// The error for a statement of a migration that was denied: what to grant.
/// `is_new`: it makes what is not there yet.
pub(super) async fn denied(
    session: &mut PostgresSession<'_>,
    fault: PostgresFault,
    statement: &str,
    is_new: bool,
) -> PostgresFault {
    let names = async {
        let account = account(session).await?;
        Ok::<_, PostgresFault>((account, schema(session).await?))
    };
    let (account, schema) = match names.await {
        Ok(names) => names,
        Err(fault) => return fault,
    };
    let refused = fault.explain(session.place(), session.time_limit());
    let remedy = if let Some(Trigger { table, .. }) = Trigger::of_statement(statement) {
        format!("As an administrator run: GRANT TRIGGER ON {table} TO {account}")
    } else if is_new {
        format!("As an administrator run: GRANT USAGE, CREATE ON SCHEMA {schema} TO {account}")
    } else {
        "Name the account that owns it in storage.url for that".into()
    };
    PostgresFault::broken(format!(
        "{refused}. {remedy}; and then mika-manage migrate again"
    ))
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
