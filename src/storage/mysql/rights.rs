//! The privileges of Mika's account: what to grant, and what a denial says.

use super::definers::quoted;
use super::fault::MysqlResult;
use super::session::MysqlSession;
use crate::storage::sql::check::rights::MissingPrivileges;

/// What docs/sql.md grants to Mika's account.
pub(super) const ALL: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, TRIGGER";

/// What Mika does with a table of its own, and what makes and changes it.
const ON_OWN: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP";

/// The statement that grants these to Mika's account on the whole database.
pub(super) async fn grant(session: &mut MysqlSession<'_>, privileges: &str) -> MysqlResult<String> {
    let (database, account) = database_and_account(session).await?;
    Ok(format!("GRANT {privileges} ON {database}.* TO {account}"))
}

/// The statements that grant what is missing, and nothing else.
pub(super) async fn grant_missing(
    session: &mut MysqlSession<'_>,
    missing: &MissingPrivileges,
) -> MysqlResult<String> {
    if let Some(names) = missing.on_database() {
        return grant(session, &names).await;
    }
    let by_tables = missing.by_tables();
    if by_tables.is_empty() {
        return grant(session, ALL).await;
    }
    let (database, account) = database_and_account(session).await?;
    let on_table = |name: &str| format!("{database}.`{}`", name.trim_matches('`'));
    let on_site = by_tables.into_iter().map(|(table, names)| {
        let place = table.map_or_else(|| format!("{database}.*"), on_table);
        format!("GRANT {names} ON {place} TO {account}")
    });
    let on_own = missing.new_tables().iter();
    let on_own = on_own.map(|table| format!("GRANT {ON_OWN} ON {} TO {account}", on_table(table)));
    Ok(on_site.chain(on_own).collect::<Vec<_>>().join("; "))
}

/// The database and Mika's account, as SQL.
async fn database_and_account(session: &mut MysqlSession<'_>) -> MysqlResult<(String, String)> {
    let rows = session.query("SELECT DATABASE(), CURRENT_USER()").await?;
    let row = rows.first();
    let text = |place| row.map(|row| row.text(place)).unwrap_or_default();
    Ok((format!("`{}`", text(0)), quoted(&text(1))))
}

/// The privileges and the table of a denial: `UPDATE command denied to user 'mika'@'%' for table
/// `mika`.`peers``, or without the database.
pub(super) fn denied(message: &str) -> Option<(String, String)> {
    let (privileges, rest) = message.split_once(" command denied to user ")?;
    let (_, table) = rest.rsplit_once(" table ")?;
    let table = table.trim_end_matches('.').replace(['`', '\''], "");
    let name = table
        .rsplit_once('.')
        .map_or(table.as_str(), |(_, name)| name);
    Some((privileges.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_read_in_each_form() {
        for message in [
            "DELETE, UPDATE command denied to user 'mika'@'%' for table `mika`.`peers`",
            "DELETE, UPDATE command denied to user 'mika'@'10.0.0.%' for table 'peers'",
        ] {
            let (privileges, table) = denied(message).unwrap();
            assert_eq!((&*privileges, &*table), ("DELETE, UPDATE", "peers"));
        }
        assert_eq!(denied("Access denied for user 'mika'@'%'"), None);
    }
}
