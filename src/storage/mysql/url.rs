//! `storage.url`: the servers, the account, and how a connection is made.

use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, UrlError};

use crate::base::secret::Secret;
use crate::base::url;
use crate::storage::{StorageError, StorageResult};

/// What a URL looks like.
const FORM: &str = "mysql://USER:PASSWORD@HOST:PORT/DATABASE";

const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
/// Prepared statements kept by each connection; more than there are named statements.
const STATEMENTS_MAX: usize = 128;

/// Whether the text looks like a URL of this driver.
pub(in crate::storage) fn check(url: &Secret) -> Result<(), String> {
    check_scheme(url)?;
    url::check_login(url, true)
}

fn check_scheme(url: &Secret) -> Result<(), String> {
    url::check_scheme(url, "mysql", &["mysql", "mariadb"], FORM)
}

/// The options of each host, in the order of the URL.
pub(super) fn hosts(url: &Secret) -> StorageResult<Vec<Opts>> {
    let wrong = |problem| StorageError::Broken(format!("storage.url: {problem}"));
    check_scheme(url).map_err(wrong)?;
    let texts = texts(url.expose());
    let hosts = texts.iter().map(|text| options(text, url));
    let hosts: Vec<Opts> = hosts.collect::<Result<_, _>>()?;
    if hosts.len() > 1 && hosts.iter().any(|opts| opts.socket().is_some()) {
        return Err(StorageError::Broken(
            "storage.url names a socket, which several hosts can't share".into(),
        ));
    }
    Ok(hosts)
}

/// A URL for each host of one that has commas between them.
fn texts(url: &str) -> Vec<String> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    let text = |host: &str| format!("mysql://{login}{host}{path}");
    hosts.split(',').map(text).collect()
}

/// The error for an invalid `storage.url`. The parser's own texts may quote it, so they are not shown.
fn invalid(error: &UrlError, url: &Secret) -> StorageError {
    // A '?' in a password looks like parameters.
    let query = url.expose().split_once('?');
    let may_be_password = query.is_some_and(|(_, query)| query.contains('@'));
    let problem = match error {
        _ if may_be_password => "write '%3F' for a '?' and '%40' for a '@' in a password".into(),
        UrlError::UnknownParameter { param } => format!("it has an unknown parameter {param:?}"),
        UrlError::InvalidParamValue { param, .. } => {
            format!("the value of its parameter {param:?} is wrong")
        }
        _ => NO_URL.into(),
    };
    bad_url(&problem)
}

const NO_URL: &str = "it is none; write '%40' for a '@' and '%2F' for a '/' in a password";

/// The error for a text that is no URL.
pub(super) fn none() -> StorageError {
    bad_url(NO_URL)
}

fn bad_url(problem: &str) -> StorageError {
    StorageError::Broken(format!(
        "storage.url must be such as mysql://user:password@host:3306/database: {problem}"
    ))
}

fn options(text: &str, url: &Secret) -> StorageResult<Opts> {
    let opts = Opts::from_url(text).map_err(|error| invalid(&error, url))?;
    if opts.db_name().is_none() {
        return Err(StorageError::Broken(
            "storage.url names no database: mysql://user:password@host:3306/database".into(),
        ));
    }
    let keepalive = opts.tcp_keepalive().unwrap_or(TCP_KEEPALIVE);
    let opts = OptsBuilder::from_opts(opts)
        // The socket that the server names may belong to another server on this host.
        .prefer_socket(false)
        // An UPDATE returns how many rows it found, not how many it changed.
        .client_found_rows(true)
        .tcp_keepalive(Some(keepalive))
        .tcp_nodelay(true)
        .stmt_cache_size(STATEMENTS_MAX);
    Ok(opts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        let error = hosts(&Secret::new(url)).expect_err(url);
        error.to_string()
    }

    #[test]
    fn each_host_has_its_port_and_the_same_login() {
        let hosts = hosts(&Secret::new("mariadb://u:a%2Cb@[::1]:3307,b,c:1/site")).expect("a URL");
        let found = hosts.iter().map(|it| (it.ip_or_hostname(), it.tcp_port()));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [("[::1]", 3307), ("b", 3306), ("c", 1)]
        );
        assert!(hosts.iter().all(|it| it.pass() == Some("a,b")));
        assert!(hosts.iter().all(|it| it.db_name() == Some("site")));
        assert!(error("mysql://u@a,b/site?socket=/run/s").contains("several hosts"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_a_part_of_its_password() {
        for url in [
            "mysql://mika:hun?ter2=x@localhost/mika",
            "mysql://mika:hun?ter2@localhost/mika",
            "mysql://mika:hunter2@localhost:port/mika",
            "mysql://mika:hunter2@localhost",
            "mysql://mika:hunter2@localhost,/mika",
            "mysql://mika:hunter2@localhost,b:port/mika",
            "mysql://mika:hunter2@localhost/mika?pool_min=hunter2",
        ] {
            let error = error(url);
            assert!(
                !error.contains("hun") && !error.contains("ter2"),
                "{url}: {error}"
            );
        }
        let error = error("mysql://u:p@localhost/mika?compres=1");
        assert!(error.contains("\"compres\""));
    }
}
