//! What the engine asks of a file: whether it is damaged, whether it takes statements, and the form of info hashes.

use async_trait::async_trait;
use rusqlite::Connection;

use super::fault::SqliteFault;
use super::session::SqliteSession;
use super::statement::SqliteStatement;
use crate::storage::Finding;
use crate::storage::sql::catalogue::{SqlCatalogue, SqlColumn};
use crate::storage::sql::database::SqlResult;
use crate::storage::sql::statements::Statement;

#[async_trait]
impl SqlCatalogue for SqliteSession<'_> {
    fn place(&self) -> &str {
        self.path()
    }

    async fn plan(&mut self, sql: &str) -> SqlResult<usize> {
        let sql = sql.to_owned();
        self.step(move |connection| Ok(connection.prepare(&sql)?.column_count()))
            .await
    }

    fn example(&self, statement: &Statement) -> SqlResult<String> {
        let call = statement.call;
        let params = call.params.split_whitespace();
        let columns: Vec<&str> = params.chain(call.rows.split_whitespace()).collect();
        Ok(SqliteStatement::new(statement, &columns, "").sql)
    }

    async fn look_at_server(&mut self) -> SqlResult<Vec<Finding>> {
        self.step(damage).await
    }

    async fn look_at_forms(
        &mut self,
        _hashes: &[SqlColumn],
        _prefix: Option<&SqlColumn>,
    ) -> SqlResult<Vec<Finding>> {
        self.step(text_hashes).await
    }
}

fn damage(connection: &Connection) -> Result<Vec<Finding>, SqliteFault> {
    let mut quick_check = connection.prepare("PRAGMA quick_check(5)")?;
    let answers = quick_check.query_map([], |row| row.get(0))?;
    let answers: Vec<String> = answers.collect::<Result<_, _>>()?;
    let damages = answers.into_iter().filter(|answer| answer != "ok");
    let finding = |answer: String| {
        Finding::problem(
            format!("the file is damaged: {}", answer.replace('\n', " ")),
            "restore a backup, or save what can be read with sqlite3's .recover",
        )
    };
    Ok(damages.map(finding).collect())
}

/// The finding for info hashes that a site wrote as text, with the conversion to blobs.
fn text_hashes(connection: &Connection) -> Result<Vec<Finding>, SqliteFault> {
    let mut findings = Vec::new();
    for column in ["info_hash", "info_hash_v2"] {
        if !connection.column_exists(None, "torrents", column)? {
            continue;
        }
        for (length, value) in [(40, "unhex({})"), (20, "CAST({} AS BLOB)")] {
            let value = value.replace("{}", column);
            let is_meant = format!("typeof({column}) = 'text' AND length({column}) = {length}");
            let sql = format!("SELECT count(*) FROM torrents WHERE {is_meant}");
            let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
            if count > 0 {
                findings.push(Finding::problem(
                    format!("torrents: {count} rows have {column} as text and not as a blob"),
                    format!("UPDATE torrents SET {column} = {value} WHERE {is_meant}"),
                ));
            }
        }
    }
    Ok(findings)
}
