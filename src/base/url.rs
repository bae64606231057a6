//! Checks of the URL in a driver's section of the config. No message repeats the URL: what is malformed
//! can't be masked reliably.

use super::secret::Secret;

/// Whether the URL has one of the driver's schemes; `form` is an example of one.
pub fn check_scheme(
    url: &Secret,
    driver: &str,
    schemes: &[&str],
    form: &str,
) -> Result<(), String> {
    let fits = url
        .expose()
        .split_once("://")
        .is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty());
    if fits {
        return Ok(());
    }
    Err(format!(
        "expected a URL like {form}, because the driver is {driver:?}"
    ))
}

/// Refuses a user or password with a character that ends the authority part of a URL: the wrong host
/// would be read. `has_parameters`: whether what follows a '?' may hold an '@'.
pub fn check_login(url: &Secret, has_parameters: bool) -> Result<(), String> {
    let (_, rest) = url.expose().split_once("://").unwrap_or_default();
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    let path = behind.split('?').next().unwrap_or_default();
    let is_parameter = authority.contains('@') && !path.contains('@') && has_parameters;
    if !behind.contains('@') || is_parameter {
        return Ok(());
    }
    Err(
        "a '/', '?' or '#' stands before the '@': in a user or a password write %2F for '/', %23 for \
         '#', %3F for '?', %40 for '@' and %3A for ':'"
            .into(),
    )
}
