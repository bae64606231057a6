//! What the engine asks of the server beside statements.

use async_trait::async_trait;

use super::definers;
use super::fault::MysqlResult;
use super::session::{MysqlSession, example, told};
use super::{columns, durability, rights, settings};
use crate::storage::Finding;
use crate::storage::sql::catalogue::{SqlCatalogue, SqlColumn, SqlOrigin, TriggerLook};
use crate::storage::sql::check::rights::MissingPrivileges;
use crate::storage::sql::database::{SqlFault, SqlResult};
use crate::storage::sql::statements::Statement;
use crate::storage::sql::triggers::{Misplaced, Trigger};

/// Marks a statement that creates or drops a trigger.
const TRIGGER: &str = "TRIGGER ";

#[async_trait]
impl SqlCatalogue for MysqlSession<'_> {
    fn place(&self) -> &str {
        self.link().place()
    }

    async fn plan(&mut self, sql: &str) -> SqlResult<usize> {
        told(plan(self, sql).await, self).await
    }

    fn example(&self, statement: &Statement) -> SqlResult<String> {
        Ok(example(statement))
    }

    async fn origin(
        &mut self,
        statement: &Statement,
        column: usize,
    ) -> SqlResult<Option<SqlOrigin>> {
        let columns = told(self.described(statement).await, self).await?;
        let column = columns.get(column).map(|column| SqlOrigin {
            schema: column.schema_str().into_owned(),
            table: column.org_table_str().into_owned(),
            column: column.org_name_str().into_owned(),
        });
        Ok(column.filter(|origin| !origin.column.is_empty()))
    }

    async fn look_at_server(&mut self) -> SqlResult<Vec<Finding>> {
        told(settings::version(self).await, self).await
    }

    async fn look_at_session(&mut self) -> SqlResult<Vec<Finding>> {
        let mut findings = Vec::new();
        told(settings::inspect(self, &mut findings).await, self).await?;
        Ok(findings)
    }

    async fn look_at_durability(&mut self) -> SqlResult<Vec<Finding>> {
        told(durability::inspect(self).await, self).await
    }

    async fn look_at_triggers(
        &mut self,
        own: &[Trigger],
        misplaced: &[Misplaced],
        site: &[Trigger],
        tries_edits: bool,
    ) -> SqlResult<TriggerLook> {
        let mut look = told(
            definers::look(self, own, misplaced, site, tries_edits).await,
            self,
        )
        .await?;
        if let Some(first) = misplaced.first().or(look.misplaced.first()) {
            look.are_hidden = told(definers::is_hidden(self, &first.name).await, self).await?;
        }
        Ok(look)
    }

    async fn look_at_forms(
        &mut self,
        hashes: &[SqlColumn],
        prefix: Option<&SqlColumn>,
    ) -> SqlResult<Vec<Finding>> {
        let mut findings = Vec::new();
        told(columns::hashes(self, hashes, &mut findings).await, self).await?;
        if let Some(prefix) = prefix {
            told(columns::prefixes(self, prefix, &mut findings).await, self).await?;
        }
        Ok(findings)
    }

    async fn grant(&mut self, missing: &MissingPrivileges) -> SqlResult<String> {
        told(rights::grant_missing(self, missing).await, self).await
    }

    async fn denied(&mut self, fault: SqlFault, statement: &str) -> SqlFault {
        let privileges = if statement.contains(TRIGGER) {
            "TRIGGER"
        } else {
            rights::ALL
        };
        match told(rights::grant(self, privileges).await, self).await {
            Ok(grant) => SqlFault::broken(format!(
                "{}. As an administrator run: {grant}; and then mika-manage migrate again",
                fault.error
            )),
            Err(fault) => fault,
        }
    }
}

/// Columns of what a statement writes are looked up when it is planned, and not when it is prepared.
async fn plan(session: &mut MysqlSession<'_>, sql: &str) -> MysqlResult<usize> {
    let width = session.prepare(sql).await?;
    if width == 0 {
        match session.query(&format!("EXPLAIN {sql}")).await {
            Err(fault) if fault.is_no_column() || fault.is_lost() => return Err(fault),
            // What else it may lack is looked at elsewhere.
            _ => {}
        }
    }
    Ok(width)
}
