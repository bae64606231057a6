//! The privileges of Mika's account: what to grant, and what a denial says.

use super::definers::quoted;
use super::fault::MysqlFault;
use super::session::MysqlSession;

/// What docs/sql.md grants to Mika's account.
pub(super) const ALL: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, TRIGGER";

/// The statement that grants these to Mika's account.
pub(super) async fn grant(
    session: &mut MysqlSession<'_>,
    privileges: &str,
) -> Result<String, MysqlFault> {
    let rows = session.query("SELECT DATABASE(), CURRENT_USER()").await?;
    let row = rows.first();
    let text = |place| row.map(|row| row.text(place)).unwrap_or_default();
    let (database, account) = (text(0), quoted(&text(1)));
    Ok(format!("GRANT {privileges} ON `{database}`.* TO {account}"))
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
