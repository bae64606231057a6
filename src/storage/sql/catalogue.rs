//! What a database says of itself: its tables, columns and triggers, by the statements of `schemas/own`, and what only
//! its driver can find out.

use async_trait::async_trait;

use super::calls::{self, Call};
use super::cells::SqlRow;
use super::check::rights::MissingPrivileges;
use super::database::{SqlFault, SqlResult};
use super::job::Job;
use super::statements::Statement;
use super::triggers::{Misplaced, Trigger};
use crate::storage::Finding;
use crate::storage::unusable::plural;

/// A table or view of the database.
pub(super) struct SqlTable {
    pub(super) name: String,
    /// Whether it can't have triggers.
    pub(super) is_view: bool,
    /// Its engine, if that has no transactions.
    pub(super) engine: Option<String>,
    /// Whether a crash of the server empties it.
    pub(super) is_unlogged: bool,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct SqlColumn {
    pub table: String,
    pub name: String,
    /// The type, as the database shows it.
    pub kind: String,
    pub is_nullable: bool,
    /// As the database shows it; none without a default.
    pub default: Option<String>,
    /// The character set and collation of a text.
    pub charset: Option<String>,
    pub collation: String,
    /// Characters that a text holds, if there is a limit.
    pub width: Option<u64>,
}

/// Where the values in a column of a result come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlOrigin {
    pub schema: String,
    pub table: String,
    pub column: String,
}

/// What keeps triggers from running, beside their texts.
#[derive(Debug, Default)]
pub struct TriggerLook {
    /// Those of Mika that have to be made again.
    pub misplaced: Vec<Misplaced>,
    /// What is wrong with others.
    pub findings: Vec<Finding>,
    /// Whether the account can't see triggers, so that those that seem to be missing may be there.
    pub are_hidden: bool,
}

/// What the engine can't ask by a statement of `schemas/own`. The defaults are for a database without accounts, settings
/// and types of columns.
#[async_trait]
pub trait SqlCatalogue: Send {
    /// The URL without its password, or the path.
    fn place(&self) -> &str;

    /// Has the database plan SQL without running it; returns how many columns its result has. The parameters are NULL.
    async fn plan(&mut self, sql: &str) -> SqlResult<usize>;

    /// A text of the statement that can be planned.
    fn example(&self, statement: &Statement) -> SqlResult<String>;

    /// Where a column of the statement's result comes from; none for an expression.
    async fn origin(
        &mut self,
        statement: &Statement,
        column: usize,
    ) -> SqlResult<Option<SqlOrigin>> {
        let _ = (statement, column);
        Ok(None)
    }

    /// Looks at the version of the server, or whether the file is damaged: nothing can be done about that here.
    async fn look_at_server(&mut self) -> SqlResult<Vec<Finding>>;

    /// Looks at settings that may change at any time: those of the session, and whether the server takes writes.
    async fn look_at_session(&mut self) -> SqlResult<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Looks at the settings that decide whether committed data survives a crash or a fail-over.
    async fn look_at_durability(&mut self) -> SqlResult<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Looks at what triggers need beside their texts: the accounts that they run as. `own` are Mika's, of which those
    /// in `misplaced` are to be made again; `site` are the others. `tries_edits`: an edit without effect may be tried.
    async fn look_at_triggers(
        &mut self,
        own: &[Trigger],
        misplaced: &[Misplaced],
        site: &[Trigger],
        tries_edits: bool,
    ) -> SqlResult<TriggerLook> {
        let _ = (own, misplaced, site, tries_edits);
        Ok(TriggerLook::default())
    }

    /// Looks at the form in which columns hold info hashes, and the prefixes of clients.
    async fn look_at_forms(
        &mut self,
        hashes: &[SqlColumn],
        prefix: Option<&SqlColumn>,
    ) -> SqlResult<Vec<Finding>> {
        let _ = (hashes, prefix);
        Ok(Vec::new())
    }

    /// The statements by which an administrator grants what is missing.
    async fn grant(&mut self, missing: &MissingPrivileges) -> SqlResult<String> {
        let _ = missing;
        Ok(String::new())
    }

    /// The fault of a statement of a migration that the account may not run, with the remedy.
    async fn denied(&mut self, fault: SqlFault, statement: &str) -> SqlFault {
        let _ = statement;
        fault
    }
}

/// What is lost where a server forgets what it has confirmed.
pub(in crate::storage) const AFTERWARDS: &str =
    "nodes that run apply again what they still have; what no node has any more is lost";

/// The note on replicas that are not waited for; `noun` says what one does, and several.
pub(in crate::storage) fn asynchronous(count: usize, noun: (&str, &str), remedy: &str) -> Finding {
    let noun = plural(count, noun.0, noun.1);
    Finding::note(
        format!(
            "{count} {noun} asynchronously: one that takes the server's place may lack what that has \
             confirmed; {AFTERWARDS}"
        ),
        remedy,
    )
}

/// The finding for a setting of the session that is not as Mika set it; none if it is.
pub(in crate::storage) fn changed_setting(
    name: &str,
    found: &str,
    wanted: &str,
    instead: &str,
) -> Option<Finding> {
    (found != wanted).then(|| {
        Finding::problem(
            format!("the session has {name} = {found:?} though Mika set {wanted:?}"),
            format!("name the server itself in storage.url, {instead}"),
        )
    })
}

pub(super) async fn tables(job: &mut Job<'_>) -> SqlResult<Vec<SqlTable>> {
    let rows = job.call(&calls::TABLES, &[]).await?;
    let table = |row: SqlRow<'_>| SqlTable {
        name: row.text(0),
        is_view: row.flag(1),
        engine: text(row, 2),
        is_unlogged: row.flag(3),
    };
    Ok(rows.iter().map(table).collect())
}

/// The names of the columns of a table; none if there is no such table, or the account may not see it.
pub(super) async fn column_names(job: &mut Job<'_>, table: &str) -> SqlResult<Vec<String>> {
    let params = [("table", table.into())];
    let rows = job.call(&calls::COLUMNS, &params).await?;
    Ok(rows.iter().map(|row| row.text(0)).collect())
}

/// The column of a table from which a column of a call's result comes; none for an expression.
pub(super) async fn column_of(
    job: &mut Job<'_>,
    call: &'static Call,
    name: &str,
) -> SqlResult<Option<SqlColumn>> {
    let place = call.columns.split_whitespace().position(|it| it == name);
    let (Some(place), Some(statement)) = (place, job.statements_of(call).first()) else {
        return Ok(None);
    };
    let Some(origin) = job.session().origin(statement, place).await? else {
        return Ok(None);
    };
    let params = [
        ("schema", origin.schema.as_str().into()),
        ("table", origin.table.as_str().into()),
    ];
    let rows = job.call(&calls::COLUMNS, &params).await?;
    let row = rows.iter().find(|row| row.text(0) == origin.column);
    Ok(row.map(|row| SqlColumn {
        table: origin.table,
        name: origin.column,
        kind: row.text(1),
        is_nullable: row.flag(2),
        default: text(row, 3),
        width: (!row.is_null(4)).then(|| row.total(4)),
        charset: text(row, 5),
        collation: row.text(6),
    }))
}

pub(super) async fn triggers(job: &mut Job<'_>) -> SqlResult<Vec<Trigger>> {
    let rows = job.call(&calls::TRIGGERS, &[]).await?;
    let trigger = |row: SqlRow<'_>| {
        Some(Trigger {
            name: row.text(0),
            table: row.text(1),
            owner: row.text(3),
            flaw: text(row, 4),
            ..Trigger::of_statement(&row.text(2))?
        })
    };
    Ok(rows.iter().filter_map(trigger).collect())
}

fn text(row: SqlRow<'_>, column: usize) -> Option<String> {
    (!row.is_null(column)).then(|| row.text(column))
}

impl SqlColumn {
    pub fn named(&self) -> String {
        format!("the column `{}` of `{}`", self.name, self.table)
    }

    /// The first word of its type, such as `varchar`.
    pub fn type_name(&self) -> &str {
        let end = self.kind.find(|char: char| !char.is_alphanumeric());
        end.map_or(&self.kind, |end| &self.kind[..end])
    }

    /// The characters that it holds, if it is text and holds fewer than that.
    pub fn short_of(&self, wanted: u64) -> Option<u64> {
        let width = self.width.filter(|_| self.charset.is_some());
        width.filter(|width| *width < wanted)
    }
}
