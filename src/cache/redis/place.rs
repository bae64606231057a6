//! Where the servers are: the forms of `cache.url`.

use std::fmt;

use percent_encoding::percent_decode_str;
use redis::io::tcp::TcpSettings;
use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo,
};

use crate::base::secret::Secret;
use crate::base::url;

const CLUSTER: &str = "redis+cluster";
const CLUSTER_TLS: &str = "rediss+cluster";
const SENTINEL: &str = "redis+sentinel";
const SENTINEL_TLS: &str = "rediss+sentinel";

const SCHEMES: [&str; 8] = [
    "redis",
    "rediss",
    "unix",
    "redis+unix",
    CLUSTER,
    CLUSTER_TLS,
    SENTINEL,
    SENTINEL_TLS,
];

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The most hosts in a URL: more are not needed to find the others.
const HOSTS_MAX: usize = 64;

pub(super) const FORMS: &str = "its forms are redis://user:password@host:port/database, rediss:// for TLS, \
     unix:///path/to/socket?db=0, redis+cluster://user:password@host:port,host:port and \
     redis+sentinel://user:password@sentinel:port,sentinel:port/name/database; in a password write %2F for '/', \
     %23 for '#', %3F for '?', %40 for '@' and %3A for ':'";

/// What `cache.url` names.
#[derive(Clone)]
pub(super) enum Place {
    One(Box<ConnectionInfo>),
    /// Some servers of a cluster.
    Cluster(RedisHosts),
    Sentinel(SentinelPlace),
}

/// Servers that are logged in to in the same way.
#[derive(Clone)]
pub(super) struct RedisHosts {
    pub(super) addresses: Vec<Address>,
    uses_tls: bool,
    settings: RedisConnectionInfo,
}

/// Sentinels, and the master that they watch.
#[derive(Clone)]
pub(super) struct SentinelPlace {
    pub(super) sentinels: RedisHosts,
    /// The name under which they watch it.
    pub(super) service: String,
    /// How to log in to the master; has no addresses.
    servers: RedisHosts,
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

// === impl Place ===

impl Place {
    /// Parses the URL. Errors do not quote it.
    pub(super) fn of(url: &Secret) -> Result<Self, String> {
        let form = "redis://HOST:PORT/NUMBER or unix:///PATH";
        url::check_scheme(url, "redis", &SCHEMES, form)?;
        let (scheme, rest) = url.expose().split_once("://").unwrap_or_default();
        match scheme {
            "redis" | "rediss" => {
                url::check_login(url, false)?;
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                if host.contains(',') {
                    return Err(format!(
                        "several hosts are written {scheme}+cluster://HOST:PORT,HOST:PORT (any servers of a Redis \
                         Cluster) or {scheme}+sentinel://HOST:PORT,HOST:PORT/NAME (sentinels, and the name of \
                         their master)"
                    ));
                }
                Self::one(url)
            }
            CLUSTER | CLUSTER_TLS => {
                url::check_login(url, false)?;
                cluster(rest, scheme == CLUSTER_TLS).map(Self::Cluster)
            }
            SENTINEL | SENTINEL_TLS => {
                url::check_login(url, true)?;
                sentinel(rest, scheme == SENTINEL_TLS).map(Self::Sentinel)
            }
            _ => Self::one(url),
        }
    }

    fn one(url: &Secret) -> Result<Self, String> {
        let info = url
            .expose()
            .into_connection_info()
            .map_err(|error| error.to_string())?;
        let settings = common(info.redis_settings().clone());
        let info = info
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self::One(Box::new(info)))
    }
}

/// Settings of every connection.
fn common(settings: RedisConnectionInfo) -> RedisConnectionInfo {
    settings
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name()
}

fn cluster(rest: &str, uses_tls: bool) -> Result<RedisHosts, String> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path, "" | "0") {
        return Err(
            "a Redis Cluster has only the database 0: leave out what follows the '/'".into(),
        );
    }
    let (login, hosts) = split_login(authority);
    Ok(RedisHosts {
        addresses: addresses(hosts, PORT)?,
        uses_tls,
        settings: settings(login)?,
    })
}

fn sentinel(rest: &str, uses_tls: bool) -> Result<SentinelPlace, String> {
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    let (service, database) = path.split_once('/').unwrap_or((path, "0"));
    if service.is_empty() {
        return Err(
            "the name of the master is missing: redis+sentinel://HOST:PORT,HOST:PORT/NAME, as in \
             `sentinel monitor NAME …`"
                .into(),
        );
    }
    let database: u16 = database
        .parse()
        .map_err(|_| "the database after the name of the master is no number".to_owned())?;
    let (login, hosts) = split_login(authority);
    let (mut user, mut password) = (None, None);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "sentinel_user" => user = Some(decoded(value)?),
            "sentinel_password" => password = Some(decoded(value)?),
            _ => return Err("its parameters are sentinel_user and sentinel_password".into()),
        }
    }
    Ok(SentinelPlace {
        sentinels: RedisHosts {
            addresses: addresses(hosts, SENTINEL_PORT)?,
            uses_tls,
            settings: with_login(user, password),
        },
        service: decoded(service)?,
        servers: RedisHosts {
            addresses: Vec::new(),
            uses_tls,
            settings: settings(login)?.set_db(database.into()),
        },
    })
}

/// User and password, if any, and what follows the `@`.
fn split_login(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    }
}

fn settings(login: Option<&str>) -> Result<RedisConnectionInfo, String> {
    let (user, password) = match login {
        None => (None, None),
        Some(login) => match login.split_once(':') {
            Some(("", password)) => (None, Some(decoded(password)?)),
            Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
            None => (Some(decoded(login)?), None),
        },
    };
    Ok(with_login(user, password))
}

fn with_login(user: Option<String>, password: Option<String>) -> RedisConnectionInfo {
    let mut settings = common(RedisConnectionInfo::default());
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    settings
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    Ok(text.map_err(|_| "it is not UTF-8".to_owned())?.into_owned())
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>, String> {
    let addresses: Result<Vec<Address>, String> = hosts
        .split(',')
        .map(|host| {
            Address::parse(host, Some(port))
                .ok_or_else(|| "each host is HOST, HOST:PORT or [IPv6]:PORT".to_owned())
        })
        .collect();
    let addresses = addresses?;
    if addresses.len() > HOSTS_MAX {
        return Err(format!(
            "{HOSTS_MAX} hosts at most: the others are found through these"
        ));
    }
    Ok(addresses)
}

// === impl RedisHosts ===

impl RedisHosts {
    /// How to connect to one of these servers, or to another one of the same kind.
    pub(super) fn connect_to(
        &self,
        address: &Address,
    ) -> Result<ConnectionInfo, redis::RedisError> {
        let (host, port) = (address.host.clone(), address.port);
        let address = if self.uses_tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        Ok(address
            .into_connection_info()?
            .set_redis_settings(self.settings.clone())
            .set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }
}

// === impl SentinelPlace ===

impl SentinelPlace {
    /// How to connect to the master.
    pub(super) fn connect_to(&self, master: &Address) -> Result<ConnectionInfo, redis::RedisError> {
        self.servers.connect_to(master)
    }
}

// === impl Address ===

impl Address {
    /// Host and port; without a port in the text, `default` is taken.
    pub(super) fn parse(text: &str, default: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if rest.is_empty() => (host, None),
                    None => return None,
                }
            }
            // Servers write an IPv6 address without brackets.
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok()?,
            None => default?,
        };
        let is_of_host = |byte: u8| byte.is_ascii_graphic() && !b"/@?#,[]".contains(&byte);
        let is_valid = port > 0 && !host.is_empty() && host.bytes().all(is_of_host);
        is_valid.then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place, String> {
        Place::of(&Secret::new(url))
    }

    fn shown(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_servers() {
        let Ok(Place::Cluster(hosts)) = place("redis+cluster://mika:p%40ss@a:7000,b,[::1]:7001/0")
        else {
            panic!("it is one");
        };
        assert_eq!(shown(&hosts.addresses), ["a:7000", "b:6379", "[::1]:7001"]);
        assert_eq!(hosts.settings.username(), Some("mika"));
        assert_eq!(hosts.settings.password(), Some("p@ss"));
        assert!(!hosts.uses_tls);
        assert!(matches!(place("rediss+cluster://a"), Ok(Place::Cluster(hosts)) if hosts.uses_tls));
    }

    #[test]
    fn sentinels_are_followed_by_the_name_of_the_master() {
        let url = "redis+sentinel://:pw@s1,s2:5000/mika/3?sentinel_password=other";
        let Ok(Place::Sentinel(place)) = place(url) else {
            panic!("it is one");
        };
        assert_eq!(shown(&place.sentinels.addresses), ["s1:26379", "s2:5000"]);
        assert_eq!(place.service, "mika");
        assert_eq!(place.servers.settings.password(), Some("pw"));
        assert_eq!(place.servers.settings.db(), 3);
        assert_eq!(place.sentinels.settings.password(), Some("other"));
    }

    #[test]
    fn wrong_forms_are_explained_without_the_password() {
        for (url, word) in [
            ("redis://:secret-1@a,b/0", "redis+cluster://"),
            ("rediss://a:1,b:2/0", "rediss+sentinel://"),
            ("redis+cluster://:secret-1@a/1", "only the database 0"),
            ("redis+cluster://:secret-1@a:x", "each host"),
            ("redis+cluster://a,,b", "each host"),
            ("redis+cluster://:secret-1/x@a", "%2F for"),
            ("redis+sentinel://:secret-1@a,b", "name of the master"),
            ("redis+sentinel://a/name/x", "no number"),
            (
                "redis+sentinel://a/name?password=secret-1",
                "sentinel_password",
            ),
            ("http://a", "expected a URL"),
        ] {
            let error = place(url).err().expect(url);
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("secret-1"), "{error}");
        }
    }

    #[test]
    fn one_server_stays_as_it_was() {
        for url in [
            "redis://:pw@h:1/2",
            "rediss://h",
            "unix:///run/redis.sock?db=1",
        ] {
            assert!(matches!(place(url), Ok(Place::One(_))), "{url}");
        }
    }

    #[test]
    fn addresses_of_servers_are_parsed() {
        for (text, host, port) in [
            ("10.0.0.1:7000", "10.0.0.1", 7000),
            ("2001:db8::1:7000", "2001:db8::1", 7000),
            ("[2001:db8::1]:7000", "2001:db8::1", 7000),
            ("redis-1.example:6379", "redis-1.example", 6379),
        ] {
            let address = Address::parse(text, None).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
        for text in [
            "", ":7000", "a", "a:0", "a:70000", "[::1", "[::1]x", "a b:1",
        ] {
            assert_eq!(Address::parse(text, None), None, "{text}");
        }
    }
}
