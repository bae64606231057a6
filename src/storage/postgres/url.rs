//! `storage.url`: the hosts, the account, and how a connection is made.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::tls::{Certainty, PostgresTls};
use crate::base::secret::Secret;
use crate::base::url;
use crate::storage::hosts::Hosts;
use crate::storage::{StorageError, StorageResult};

/// What a URL looks like.
pub(super) const FORM: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";

const KEEPALIVE: Duration = Duration::from_secs(15);

/// What a URL says.
#[derive(Clone)]
pub(super) struct PostgresUrl {
    pub(super) hosts: Arc<Hosts<Config>>,
    pub(super) tls: PostgresTls,
    /// Whether a server that can't be written to will do.
    pub(super) takes_standby: bool,
    /// The URL without its password.
    pub(super) place: String,
}

/// The parameters that the client library does not have, or not in full.
#[derive(Default)]
struct Extras {
    tls: PostgresTls,
    takes_standby: bool,
    /// The text with the other parameters only.
    rest: String,
}

impl PostgresUrl {
    /// Reads a URL. No error shows a part of it, except the names of parameters.
    pub(super) fn of(url: &Secret) -> StorageResult<Self> {
        let wrong = |problem: String| {
            StorageError::Broken(format!("storage.url must be such as {FORM}: {problem}"))
        };
        check(url).map_err(wrong)?;
        let extras = Extras::of(url.expose()).map_err(wrong)?;
        let config = Config::from_str(&extras.rest).map_err(|error| wrong(problem_of(&error)))?;
        if config.get_dbname().is_none() {
            return Err(wrong("it names no database".into()));
        }
        let mut tls = extras.tls;
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hosts().iter().all(is_local) && config.get_hostaddrs().is_empty() {
            // A server has no TLS for sockets of its own host.
            tls.certainty = Certainty::NoTls;
        }
        let hosts = hosts(&config, tls.certainty).map_err(wrong)?;
        Ok(Self {
            hosts: Arc::new(Hosts::new(hosts)),
            tls,
            takes_standby: extras.takes_standby,
            place: url.masked(),
        })
    }
}

/// Whether the text looks like a URL of this driver, and can be read in one way only.
pub(in crate::storage) fn check(url: &Secret) -> Result<(), String> {
    url::check_scheme(url, "postgres", &["postgres", "postgresql"], FORM)?;
    url::check_login(url, true)?;
    let (_, rest) = url.expose().split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err("write %40 for a '@' in a user or a password".into());
    }
    if rest.contains('#') {
        return Err("write %23 for a '#'".into());
    }
    Ok(())
}

impl Extras {
    fn of(url: &str) -> Result<Self, String> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut extras = Self::default();
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = parameter
                .split_once('=')
                .ok_or("a parameter behind the '?' has no value")?;
            let value = percent_decode_str(value).decode_utf8_lossy();
            if !extras.take(name, &value)? {
                rest.push(parameter);
            }
        }
        // As in PostgreSQL's own programs: who names the authority wants it to be checked.
        if extras.tls.certainty == Certainty::AnyServer && extras.tls.roots.is_some() {
            extras.tls.certainty = Certainty::Authority;
        }
        let mark = if rest.is_empty() { "" } else { "?" };
        extras.rest = format!("{base}{mark}{}", rest.join("&"));
        Ok(extras)
    }

    /// Takes a parameter if it is one of these.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let file = || Some(PathBuf::from(value));
        let wrong = |known: &str| Err(format!("its parameter {name} must be one of {known}"));
        match name {
            "sslmode" => {
                self.tls.certainty = match value {
                    "disable" => Certainty::NoTls,
                    "allow" | "prefer" => Certainty::IfOffered,
                    "require" => Certainty::AnyServer,
                    "verify-ca" => Certainty::Authority,
                    "verify-full" => Certainty::Name,
                    _ => return wrong("disable, prefer, require, verify-ca and verify-full"),
                };
            }
            // `system` is the default here.
            "sslrootcert" => self.tls.roots = file().filter(|_| value != "system"),
            "sslcert" => self.tls.cert = file(),
            "sslkey" => self.tls.key = file(),
            "target_session_attrs" => {
                self.takes_standby = match value {
                    "read-write" | "primary" => false,
                    "any" => true,
                    _ => return wrong("read-write, primary and any"),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What the client library finds wrong: it names parameters, and shows no values of them.
fn problem_of(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;

    let cause = error.source().map(ToString::to_string);
    match cause {
        Some(cause) if cause.contains('`') => cause,
        _ => "it can't be read".into(),
    }
}

/// A configuration for each host.
fn hosts(config: &Config, certainty: Certainty) -> Result<Vec<Config>, String> {
    let (names, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let count = names.len().max(addresses.len());
    if count == 0 {
        return Err(
            "it names no host; a socket is named by its folder: ?host=/run/postgresql".into(),
        );
    }
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err("it has not as many addresses (hostaddr) as hosts".into());
    }
    if ports.len() > 1 && ports.len() != count {
        return Err("it has not as many ports as hosts".into());
    }
    let mut hosts: Vec<Config> = (0..count)
        .map(|at| {
            let mut one = without_hosts(config, certainty);
            match names.get(at) {
                Some(Host::Tcp(name)) => drop(one.host(name)),
                Some(Host::Unix(folder)) => drop(one.host_path(folder)),
                None => {}
            }
            if let Some(address) = addresses.get(at) {
                one.hostaddr(*address);
            }
            if let Some(port) = ports.get(at).or_else(|| ports.first()) {
                one.port(*port);
            }
            one
        })
        .collect();
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut hosts);
    }
    Ok(hosts)
}

/// All but the hosts.
fn without_hosts(config: &Config, certainty: Certainty) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    one.application_name(config.get_application_name().unwrap_or("mika"));
    if let Some(limit) = config.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    one.keepalives(config.get_keepalives());
    one.keepalives_idle(config.get_keepalives_idle().min(KEEPALIVE));
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.ssl_mode(match certainty {
        Certainty::NoTls => SslMode::Disable,
        Certainty::IfOffered => SslMode::Prefer,
        Certainty::AnyServer | Certainty::Authority | Certainty::Name => SslMode::Require,
    });
    one.ssl_negotiation(config.get_ssl_negotiation());
    one.channel_binding(config.get_channel_binding());
    // Mika looks itself, after it has set up the session.
    one.target_session_attrs(TargetSessionAttrs::Any);
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> PostgresUrl {
        PostgresUrl::of(&Secret::new(url)).expect(url)
    }

    fn error(url: &str) -> String {
        let read = PostgresUrl::of(&Secret::new(url));
        read.err().expect(url).to_string()
    }

    #[test]
    fn hosts_and_options_are_read() {
        let url = read("postgresql://u:p@a:1,b/site?sslmode=verify-full&sslrootcert=/x%20y.pem");
        let ports: Vec<_> = url.hosts.all().iter().map(Config::get_ports).collect();
        assert_eq!(ports, [[1], [5432]]);
        assert_eq!(url.hosts.all()[1].get_ssl_mode(), SslMode::Require);
        assert_eq!(url.hosts.all()[1].get_application_name(), Some("mika"));
        assert_eq!(url.tls.certainty, Certainty::Name);
        assert_eq!(url.tls.roots, Some(PathBuf::from("/x y.pem")));
        assert!(!url.takes_standby);
        assert_eq!(url.place, "postgresql://u:***@a:1,b/site?***");

        for socket in [
            "postgres://mika@/site?host=/run/postgresql&sslmode=require",
            "postgres://mika@%2Frun%2Fpostgresql/site?target_session_attrs=any",
        ] {
            let url = read(socket);
            let folder = Host::Unix("/run/postgresql".into());
            assert_eq!(url.hosts.all()[0].get_hosts(), [folder]);
            assert_eq!(url.hosts.all()[0].get_ssl_mode(), SslMode::Disable);
        }
    }

    #[test]
    fn who_names_an_authority_wants_it_checked() {
        let certainty = |query: &str| read(&format!("postgres://a/b{query}")).tls.certainty;
        assert_eq!(certainty(""), Certainty::IfOffered);
        assert_eq!(certainty("?sslmode=require"), Certainty::AnyServer);
        let checked = "?sslmode=require&sslrootcert=a.pem";
        assert_eq!(certainty(checked), Certainty::Authority);
    }

    #[test]
    fn a_wrong_url_is_refused_without_a_part_of_its_password() {
        for url in [
            "postgres://mika:hun?ter2=x@localhost/mika",
            "postgres://mika:hun?ter2@localhost/mika",
            "postgres://mika:hun@ter2@localhost/mika",
            "postgres://mika:hun/ter2@localhost/mika",
            "postgres://mika:hun#ter2@localhost/mika",
            "postgres://mika:hunter2@localhost:port/mika",
            "postgres://mika:hunter2/mika",
            "postgres://mika:hunter2@localhost",
            "postgres://mika:hunter2@/mika",
            "postgres://localhost/mika?port=hunter2",
            "postgres://localhost/mika?sslmode=hunter2",
            "postgres://localhost/mika?hunter2",
            "mysql://mika:hunter2@localhost/mika",
        ] {
            let error = error(url);
            assert!(error.contains(FORM), "{url}: {error}");
            assert!(
                !error.contains("hun") && !error.contains("ter2"),
                "{url}: {error}"
            );
        }
        let error = error("postgres://u:p@localhost/mika?compres=1");
        assert!(error.contains("unknown option `compres`"), "{error}");
    }
}
