//! The identity of a database: a random text.

use super::Finding;

/// The longest identity of a database, in characters.
const IDENTITY_MAX: usize = 64;

/// The identity in `mika_identity`, if it is valid.
pub(super) fn checked(found: Option<String>) -> Result<String, Finding> {
    match found {
        Some(id) if is_identity(&id) => Ok(id),
        Some(_) => Err(Finding::problem(
            "the id in the table mika_identity is not 1 to 64 letters and digits",
            "delete that row, then run mika-manage migrate",
        )),
        None => Err(Finding::problem(
            "the database has no identity (table mika_identity)",
            "run mika-manage migrate",
        )),
    }
}

fn is_identity(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    (1..=IDENTITY_MAX).contains(&id.len()) && id.bytes().all(is_plain)
}
