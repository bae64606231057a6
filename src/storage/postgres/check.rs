//! What the engine asks of the server beside statements.

use async_trait::async_trait;

use super::fault::PostgresResult;
use super::session::{PostgresSession, told};
use super::statement::with_params;
use super::values::PostgresValue;
use super::{durability, rights, settings};
use crate::storage::Finding;
use crate::storage::sql::catalogue::{SqlCatalogue, SqlColumn, SqlOrigin, TriggerLook};
use crate::storage::sql::cells::Cell;
use crate::storage::sql::check::rights::MissingPrivileges;
use crate::storage::sql::database::{SqlFault, SqlResult};
use crate::storage::sql::header::Dialect;
use crate::storage::sql::statements::Statement;
use crate::storage::sql::triggers::{Misplaced, Trigger};

/// Characters of an info hash as hexadecimal digits.
const HEX_DIGITS: u64 = 40;

#[async_trait]
impl SqlCatalogue for PostgresSession<'_> {
    fn place(&self) -> &str {
        self.link().place()
    }

    async fn plan(&mut self, sql: &str) -> SqlResult<usize> {
        told(plan(self, sql).await, self)
    }

    fn example(&self, statement: &Statement) -> SqlResult<String> {
        let columns = statement.call.rows;
        if columns.is_empty() {
            return Ok(with_params(statement, "").0);
        }
        let sql = self.with_rows(statement, columns);
        sql.map_err(|fault| fault.told(self.place(), self.time_limit()))
    }

    async fn origin(
        &mut self,
        statement: &Statement,
        column: usize,
    ) -> SqlResult<Option<SqlOrigin>> {
        told(origin(self, statement, column).await, self)
    }

    async fn look_at_server(&mut self) -> SqlResult<Vec<Finding>> {
        told(settings::version(self).await, self)
    }

    async fn look_at_session(&mut self) -> SqlResult<Vec<Finding>> {
        let mut findings = Vec::new();
        told(settings::inspect(self, &mut findings).await, self)?;
        Ok(findings)
    }

    async fn look_at_durability(&mut self) -> SqlResult<Vec<Finding>> {
        told(durability::inspect(self).await, self)
    }

    async fn look_at_triggers(
        &mut self,
        _own: &[Trigger],
        _misplaced: &[Misplaced],
        _site: &[Trigger],
        _tries_edits: bool,
    ) -> SqlResult<TriggerLook> {
        let finding = told(rights::of_triggers(self).await, self)?;
        Ok(TriggerLook {
            findings: finding.into_iter().collect(),
            ..TriggerLook::default()
        })
    }

    /// Hashes can be read from hexadecimal digits, but bytes are shorter.
    async fn look_at_forms(
        &mut self,
        hashes: &[SqlColumn],
        _prefix: Option<&SqlColumn>,
    ) -> SqlResult<Vec<Finding>> {
        let finding = |column: &SqlColumn| {
            let (problem, kind) = match column.short_of(HEX_DIGITS) {
                Some(width) => (
                    format!(
                        "holds {width} characters, and an info hash has {HEX_DIGITS} hexadecimal digits"
                    ),
                    format!("char({HEX_DIGITS})"),
                ),
                None if column.charset.is_some() || column.kind == "bytea" => return None,
                None => (format!("is {}, and not bytes", column.kind), "bytea".into()),
            };
            Some(Finding::problem(
                format!("{} {problem}", column.named()),
                column.altered(Dialect::Postgres, &kind),
            ))
        };
        Ok(hashes.iter().filter_map(finding).collect())
    }

    async fn grant(&mut self, missing: &MissingPrivileges) -> SqlResult<String> {
        told(rights::grant(self, missing).await, self)
    }

    async fn denied(&mut self, fault: SqlFault, statement: &str) -> SqlFault {
        match told(rights::remedy(self, statement).await, self) {
            Ok(remedy) => SqlFault::broken(format!(
                "{}. {remedy}; and then mika-manage migrate again",
                fault.error
            )),
            Err(fault) => fault,
        }
    }
}

/// By the tables as they are now. The server looks at privileges when it plans a statement with values.
async fn plan(session: &mut PostgresSession<'_>, sql: &str) -> PostgresResult<usize> {
    let prepared = session.prepare_anew(sql).await?;
    let width = prepared.columns().len();
    let explain = async {
        let prepared = session.prepare_anew(&format!("EXPLAIN {sql}")).await?;
        let params = prepared.params().iter();
        let nothing: Vec<_> = params.map(|_| PostgresValue::Cell(Cell::Null)).collect();
        session.run_prepared(&prepared, &nothing).await
    };
    match explain.await {
        Err(fault) if fault.is_denied() || !fault.is_of_server() => Err(fault),
        // Not every statement can be explained.
        _ => Ok(width),
    }
}

async fn origin(
    session: &mut PostgresSession<'_>,
    statement: &Statement,
    column: usize,
) -> PostgresResult<Option<SqlOrigin>> {
    let prepared = session.prepare(&with_params(statement, "").0).await?;
    let column = prepared.columns().get(column);
    let Some((table, number)) =
        column.and_then(|column| Some((column.table_oid()?, column.column_id()?)))
    else {
        return Ok(None);
    };
    let sql = "SELECT n.nspname, c.relname, a.attname FROM pg_attribute AS a \
        JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace \
        WHERE a.attrelid = $1 AND a.attnum = $2";
    let params = [Cell::Int(table.into()), Cell::Int(number.into())];
    let rows = session.query(sql, &params).await?;
    Ok(rows.first().map(|row| SqlOrigin {
        schema: row.text(0),
        table: row.text(1),
        column: row.text(2),
    }))
}
