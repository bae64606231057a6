//! What the engine asks of the server beside statements.

use async_trait::async_trait;

use super::definers;
use super::fault::MysqlFault;
use super::session::{MysqlSession, example};
use super::{columns, durability, rights, settings};
use crate::storage::Finding;
use crate::storage::sql::catalogue::{SqlCatalogue, SqlColumn, SqlOrigin, TriggerLook};
use crate::storage::sql::check::rights::MissingPrivileges;
use crate::storage::sql::database::SqlFault;
use crate::storage::sql::statements::Statement;
use crate::storage::sql::triggers::{Misplaced, Trigger};

/// Marks a statement that creates or drops a trigger.
const TRIGGER: &str = "TRIGGER ";

#[async_trait]
impl SqlCatalogue for MysqlSession<'_> {
    fn place(&self) -> &str {
        self.link().place()
    }

    async fn plan(&mut self, sql: &str) -> Result<usize, SqlFault> {
        let result = plan(self, sql).await;
        self.told(result).await
    }

    fn example(&self, statement: &Statement) -> Result<String, SqlFault> {
        Ok(example(statement))
    }

    async fn origin(
        &mut self,
        statement: &Statement,
        column: usize,
    ) -> Result<Option<SqlOrigin>, SqlFault> {
        let result = self.described(statement).await;
        let columns = self.told(result).await?;
        let column = columns.get(column).map(|column| SqlOrigin {
            schema: column.schema_str().into_owned(),
            table: column.org_table_str().into_owned(),
            column: column.org_name_str().into_owned(),
        });
        Ok(column.filter(|origin| !origin.column.is_empty()))
    }

    async fn look_at_server(&mut self) -> Result<Vec<Finding>, SqlFault> {
        let result = settings::version(self).await;
        self.told(result).await
    }

    async fn look_at_session(&mut self) -> Result<Vec<Finding>, SqlFault> {
        let mut findings = Vec::new();
        let result = settings::inspect(self, &mut findings).await;
        self.told(result).await?;
        Ok(findings)
    }

    async fn look_at_durability(&mut self) -> Result<Vec<Finding>, SqlFault> {
        let result = durability::inspect(self).await;
        self.told(result).await
    }

    async fn look_at_triggers(
        &mut self,
        own: &[Trigger],
        misplaced: &[Misplaced],
        site: &[Trigger],
        tries_edits: bool,
    ) -> Result<TriggerLook, SqlFault> {
        let result = definers::look(self, own, misplaced, site, tries_edits).await;
        let mut look = self.told(result).await?;
        if let Some(first) = misplaced.first().or(look.misplaced.first()) {
            let result = definers::is_hidden(self, &first.name).await;
            look.are_hidden = self.told(result).await?;
        }
        Ok(look)
    }

    async fn look_at_forms(
        &mut self,
        hashes: &[SqlColumn],
        prefix: Option<&SqlColumn>,
    ) -> Result<Vec<Finding>, SqlFault> {
        let mut findings = Vec::new();
        let result = columns::hashes(self, hashes, &mut findings).await;
        self.told(result).await?;
        if let Some(prefix) = prefix {
            let result = columns::prefixes(self, prefix, &mut findings).await;
            self.told(result).await?;
        }
        Ok(findings)
    }

    async fn grant(&mut self, missing: &MissingPrivileges) -> Result<String, SqlFault> {
        let result = rights::grant_missing(self, missing).await;
        self.told(result).await
    }

    async fn denied(&mut self, fault: SqlFault, statement: &str) -> SqlFault {
        let privileges = if statement.contains(TRIGGER) {
            "TRIGGER"
        } else {
            rights::ALL
        };
        let result = rights::grant(self, privileges).await;
        match self.told(result).await {
            Ok(grant) => SqlFault::broken(format!(
                "{}. As an administrator run: {grant}; and then mika-manage migrate again",
                fault.error
            )),
            Err(fault) => fault,
        }
    }
}

/// Columns of what a statement writes are looked up when it is planned, and not when it is prepared.
async fn plan(session: &mut MysqlSession<'_>, sql: &str) -> Result<usize, MysqlFault> {
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
