use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::load::resolve;
use super::*;

const DIST: &str = include_str!("../../config.json.dist");
const MANUAL: &str = include_str!("../../docs/config.md");

fn read(text: &str) -> Result<Loaded, ConfigError> {
    let source = ConfigSource::File(PathBuf::from("config.json"));
    resolve(Some(text), source, |_| None)
}

fn with_variable(text: &str, name: &str, value: &str) -> Result<Loaded, ConfigError> {
    let source = ConfigSource::File(PathBuf::from("config.json"));
    resolve(Some(text), source, |asked| {
        (asked == name).then(|| OsString::from(value))
    })
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn wrong_configs_are_refused_with_one_line_that_says_what_was_expected() {
    for (text, error) in [
        // Texts that are not JSON.
        ("", "line 1, column 0: not JSON: EOF while parsing a value"),
        (
            "{\n \"mode\": public }",
            "line 2, column 10: not JSON: expected value",
        ),
        ("[]", "expected { … }, found a list"),
        (r#"{"http": []}"#, "http: expected { … }, found a list"),
        (r#"{"api": "hunter2"}"#, "api: expected { … }, found a text"),
        (r#"{"udp": null}"#, "udp: expected { … }, found null"),
        (
            r#"{"mode": "public", "mode": "private"}"#,
            "mode: the key is there twice",
        ),
        (
            r#"{"tracker": {"numwant": 1, "numwant": 2}}"#,
            "tracker.numwant: the key is there twice",
        ),
        // Keys that do not exist.
        (
            r#"{"tracker": {"anounce_interval": "30m"}}"#,
            r#"tracker.anounce_interval: unknown key, did you mean "announce_interval"?"#,
        ),
        (
            r#"{"htpp": {}}"#,
            r#"htpp: unknown key, did you mean "http"?"#,
        ),
        (
            r#"{"numwant": 50}"#,
            r#"numwant: unknown key, did you mean "tracker.numwant"?"#,
        ),
        (
            r#"{"http": {"tls": {"pem": "x"}}}"#,
            "http.tls.pem: unknown key, the keys here are cert, key",
        ),
        (
            r#"{"tracker": {"numwant": "fifty", "color": 1}}"#,
            "tracker.color: unknown key, the keys here are announce_interval, auto_register, \
             blocked_networks, blocked_ports, forget_torrents_after, hide_own_peers, hnr_min_bytes, hnr_threshold, \
             max_numwant, max_peers_per_ip, \
             max_peers_per_user, max_rate, max_records_per_user, max_torrents, \
             min_announce_interval, new_records_burst, new_records_rate, numwant, peer_ttl, \
             public_addresses, tombstone_ttl, trust_client_ip, whitelist",
        ),
        // Values of the wrong kind.
        (
            r#"{"storage": {"statements": {"users": 1}}}"#,
            "storage.statements.users: expected a text in quotes, found 1",
        ),
        (
            r#"{"http": {"listen": ["foo"]}}"#,
            r#"http.listen[0]: expected an address like "0.0.0.0:34000", found "foo""#,
        ),
        (
            r#"{"http": {"listen": "0.0.0.0:80"}}"#,
            r#"http.listen: expected a list of addresses like ["0.0.0.0:34000"], found "0.0.0.0:80""#,
        ),
        (
            r#"{"http": {"trusted_proxies": ["127.0.0.1/8", "all"]}}"#,
            r#"http.trusted_proxies[1]: expected a network like "10.0.0.0/8", or an address like "::1", found "all""#,
        ),
        (
            r#"{"http": {"forwarded_header": "X-Real-IP:"}}"#,
            r#"http.forwarded_header: expected the name of a header, such as "X-Forwarded-For" or "X-Real-IP", or "", found "X-Real-IP:""#,
        ),
        (
            r#"{"mode": "secret"}"#,
            r#"mode: expected "public" or "private", found "secret""#,
        ),
        (
            r#"{"mode": 1}"#,
            r#"mode: expected "public" or "private", found 1"#,
        ),
        (
            r#"{"log": {"format": "xml"}}"#,
            r#"log.format: expected "text" or "json", found "xml""#,
        ),
        (
            r#"{"tracker": {"peer_ttl": 65}}"#,
            r#"tracker.peer_ttl: expected a time like "30m", found 65"#,
        ),
        (
            r#"{"tracker": {"peer_ttl": "65 parsecs"}}"#,
            r#"tracker.peer_ttl: expected a time like "30m", found "65 parsecs""#,
        ),
        (
            r#"{"tracker": {"public_addresses": ["here"]}}"#,
            r#"tracker.public_addresses[0]: expected a list of addresses like ["203.0.113.7"], or of networks with theirs like [{"network": "192.168.0.0/16", "address": "203.0.113.7"}], found "here""#,
        ),
        (
            r#"{"tracker": {"public_addresses": [{"network": "10.0.0.0/8", "adress": "203.0.113.7"}]}}"#,
            r#"tracker.public_addresses[0]: expected a list of addresses like ["203.0.113.7"], or of networks with theirs like [{"network": "192.168.0.0/16", "address": "203.0.113.7"}], found a section"#,
        ),
        (
            r#"{"tracker": {"public_addresses": ["0.0.0.0"]}}"#,
            r#"tracker.public_addresses: expected the address of a host, found "0.0.0.0""#,
        ),
        (
            r#"{"tracker": {"public_addresses": [{"network": "10.0.0.0/8", "address": "2001:db8::1"}]}}"#,
            r#"tracker.public_addresses: expected an address of the family of 10.0.0.0/8, found "2001:db8::1""#,
        ),
        (
            r#"{"tracker": {"public_addresses": [{"network": "8.0.0.0/8", "address": "203.0.113.7"}]}}"#,
            r#"tracker.public_addresses: expected a network that the internet can't reach, found "8.0.0.0/8""#,
        ),
        (
            r#"{"tracker": {"whitelist": "yes"}}"#,
            r#"tracker.whitelist: expected true or false, found "yes""#,
        ),
        (
            r#"{"tracker": {"numwant": -1}}"#,
            "tracker.numwant: expected a whole number up to 4294967295, found -1",
        ),
        (
            r#"{"http": {"max_connections": 5000000000}}"#,
            "http.max_connections: expected a whole number up to 4294967295, found 5000000000",
        ),
        (
            r#"{"http": {"tls": {"key": 5}}}"#,
            "http.tls.key: expected a text in quotes, found 5",
        ),
        (
            r#"{"node": null}"#,
            "node: expected a text in quotes, found null",
        ),
        (
            r#"{"storage": {"statements": ["users"]}}"#,
            "storage.statements: expected { … }, found a list",
        ),
        (
            r#"{"storage": {"statements": {"users": 5}}}"#,
            "storage.statements.users: expected a text in quotes, found 5",
        ),
        // Secrets are not repeated.
        (
            r#"{"api": {"password": 74656}}"#,
            "api.password: expected a text in quotes, found a number",
        ),
        (
            r#"{"storage": {"url": ["mysql://u:hunter2@h/d"]}}"#,
            "storage.url: expected a text in quotes, found a list",
        ),
        (
            r#"{"storage": {"url": "mysql://u:hunter2@h/d"}}"#,
            r#"storage.url: expected a URL like sqlite://PATH, because the driver is "sqlite""#,
        ),
    ] {
        assert_refused(text, error);
    }
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn invalid_values_are_refused() {
    for (text, error) in [
        (
            r#"{"tracker": {"announce_interval": "10m"}}"#,
            "tracker.min_announce_interval: expected at most announce_interval (10m), found 15m",
        ),
        (
            r#"{"tracker": {"announce_interval": "2h"}}"#,
            "tracker.peer_ttl: expected at least 1.1 times announce_interval (2h), found 1h 5m",
        ),
        (
            r#"{"tracker": {"peer_ttl": "13h"}}"#,
            r#"tracker.peer_ttl: expected at most 12h, because mode is "public", found 13h"#,
        ),
        (
            r#"{"tracker": {"min_announce_interval": "0s"}}"#,
            "tracker.min_announce_interval: expected 1s to 365d, found 0s",
        ),
        (
            r#"{"tracker": {"tombstone_ttl": "400d"}}"#,
            "tracker.tombstone_ttl: expected 1s to 365d, found 400d",
        ),
        (
            r#"{"tracker": {"numwant": 201}}"#,
            "tracker.numwant: expected at most max_numwant (200), found 201",
        ),
        (
            r#"{"tracker": {"max_numwant": 1001}}"#,
            "tracker.max_numwant: expected 1 to 1000, found 1001",
        ),
        (
            r#"{"tracker": {"max_rate": 0}}"#,
            "tracker.max_rate: expected at least 1, found 0",
        ),
        (
            r#"{"mode": "private", "tracker": {"auto_register": true}}"#,
            r#"tracker.auto_register: expected false, because mode is "private": there, torrents are registered"#,
        ),
        (
            r#"{"cache": {"url": "redis://localhost"}}"#,
            r#"cache.url: expected "", because the driver "memory" connects to nothing"#,
        ),
        (
            r#"{"storage": {"url": "sqlite://"}}"#,
            r#"storage.url: expected a URL like sqlite://PATH, because the driver is "sqlite""#,
        ),
        (
            r#"{"storage": {"poll_interval": "2m"}}"#,
            "storage.poll_interval: expected 100ms to 1m, found 2m",
        ),
        (
            r#"{"journal": {"flush_interval": "1ms"}}"#,
            "journal.flush_interval: expected 10ms to 1h, found 1ms",
        ),
        (
            r#"{"journal": {"ack_timeout": "2m"}}"#,
            "journal.ack_timeout: expected 0s to 1m, found 2m",
        ),
        (
            r#"{"journal": {"max_pending": 999}}"#,
            "journal.max_pending: expected at least 1000, found 999",
        ),
        (
            r#"{"http": {"max_connections": 0}}"#,
            "http.max_connections: expected at least 1, found 0",
        ),
        (
            r#"{"journal": {"spill": ""}}"#,
            r#"journal.spill: expected the path of a file, such as "mika.spill", found """#,
        ),
        (
            r#"{"storage": {"schema": "mika-2015"}}"#,
            r#"storage.schema: expected "mika", the one schema of the driver "sqlite", or the path of a file such as "./my-site.sql", found "mika-2015""#,
        ),
        (
            r#"{"storage": {"driver": "mysql", "url": "mysql://localhost/mika", "schema": ""}}"#,
            r#"storage.schema: expected the name of a schema, such as "mika", found """#,
        ),
        (
            r#"{"cache": {"driver": "redis", "url": "/run/redis.sock"}}"#,
            r#"cache.url: expected a URL like redis://HOST:PORT/NUMBER or unix:///PATH, because the driver is "redis""#,
        ),
        (
            r#"{"node": "my node"}"#,
            r#"node: expected 1 to 64 printable ASCII characters without blanks and #, found "my node""#,
        ),
        (
            r#"{"log": {"level": "loud"}}"#,
            r#"log.level: expected "error", "warn", "info", "debug" or "trace", found "loud""#,
        ),
        (
            r#"{"api": {"listen": ["127.0.0.1:1", "[::]:34001"]}}"#,
            "api.password: expected a password (or a token in api.tokens), because api.listen has \
             [::]:34001, which other hosts can reach: set it here or in MIKA_API_PASSWORD, or listen on \
             127.0.0.1",
        ),
        (
            r#"{"api": {"tokens": [{"name": "a", "token": "hunter2-hunter2-", "scope": "all"}]}}"#,
            r#"api.tokens[0].scope: expected "metrics", "read" or "write", found "all""#,
        ),
        (
            r#"{"api": {"tokens": [{"name": "a", "token": 12345678, "scope": "read"}]}}"#,
            "api.tokens[0].token: expected a text in quotes, found a number",
        ),
        (
            r#"{"api": {"tokens": [{"name": "a", "token": "hunter2", "scope": "read"}]}}"#,
            "api.tokens: expected 16 to 256 printable ASCII characters without blanks in the token of \
             entry 1, and another token for each name",
        ),
        (
            r#"{"api": {"tokens": [{"name": "", "token": "hunter2-hunter2-", "scope": "read"}]}}"#,
            "api.tokens: expected a name of its own for each token, of 1 to 64 printable ASCII \
             characters without blanks; that of entry 1 is not",
        ),
        (
            r#"{"api": {"hosts": ["https://tracker.example.org"]}}"#,
            "api.hosts: expected a host name or address, with or without a port, such as \
             \"tracker.example.org\"; entry 1 is not",
        ),
        (
            r#"{"api": {"hosts": ["a.example", "*"]}}"#,
            "api.hosts: expected a host name or address, with or without a port, such as \
             \"tracker.example.org\"; entry 2 is not",
        ),
        (
            r#"{"api": {"username": "si:te", "password": "hunter2"}}"#,
            "api.username: expected a name without ':' and control characters: with one no login would \
             work, because HTTP basic authentication ends the name at the first ':'",
        ),
    ] {
        assert_refused(text, error);
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for text in [
        r#"{"api": {"tokens": "hunter2-hunter2-"}}"#,
        r#"{"api": {"tokens": ["hunter2-hunter2-"]}}"#,
        r#"{"api": {"tokens": [["hunter2-hunter2-"]]}}"#,
        r#"{"api": {"tokens": [{"name": "hunter2-hunter2-", "token": "grafana", "scope": "read"}]}}"#,
        r#"{"api": {"tokens": [{"name": "hunter2 hunter2", "token": "hunter2-hunter2-", "scope": "read"}]}}"#,
        r#"{"api": {"tokens": [{"name": "a", "token": "b", "scope": "hunter2-hunter2-"}]}}"#,
        r#"{"api": {"username": 1, "password": ["hunter2"]}}"#,
        r#"{"api": {"listen": "https://site:hunter2@127.0.0.1:1"}}"#,
        r#"{"cache": "redis://:hunter2@127.0.0.1"}"#,
        r#"{"cache": {"driver": "redis://:hunter2@127.0.0.1"}}"#,
        r#"{"storage": {"driver": "mysql://mika:hunter2@127.0.0.1/mika"}}"#,
        r#"{"storage": {"schema": "mysql://mika:hunter2@127.0.0.1/mika"}}"#,
        r#"{"mode": "mysql://mika:hunter2@127.0.0.1/mika"}"#,
        r#"{"storage": {"url": "mysql:/mika:hunter2@127.0.0.1/mika", "driver": "mysql"}}"#,
        r#"{"api": {"password": "hunter2}}"#,
        r#"{"api": {"password": "hunter2\q"}}"#,
        r#"{"api": {"password": hunter2}}"#,
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn valid_configs_are_accepted() {
    for text in [
        "{}",
        DIST,
        r#"{"mode": "public"}"#,
        r#"{"mode": "public", "tracker": {"auto_register": false, "whitelist": true}}"#,
        r#"{"http": {"listen": [], "tls": {}}}"#,
        r#"{"http": {"tls": {"key": "k", "cert": "c"}, "trusted_proxies": ["10.0.0.0/8", "::1/128"]}}"#,
        r#"{"tracker": {"announce_interval": "1s", "min_announce_interval": "1s", "peer_ttl": "2s"}}"#,
        r#"{"tracker": {"numwant": 0, "hnr_threshold": "0s", "tombstone_ttl": "1s"}}"#,
        r#"{"storage": {"driver": "mysql", "url": "mysql://user:pass@localhost:3306/dbname"}}"#,
        r#"{"storage": {"driver": "mysql", "url": "mysql://u@h/d", "schema": "mika-2015", "statements": {"users": "SELECT 1"}}}"#,
        r#"{"cache": {"driver": "redis", "url": "unix:///run/redis/redis.sock?db=1"}}"#,
        r#"{"cache": {"driver": "redis", "url": "rediss://:hunter2@cache.example.org:6380/2"}}"#,
        r#"{"cache": {"driver": "mine", "url": "whatever it likes"}}"#,
        r#"{"api": {"listen": ["127.0.0.1:34001", "[::1]:34001"]}}"#,
        r#"{"api": {"listen": ["0.0.0.0:34001"], "password": "hunter2"}}"#,
        r#"{"api": {"hosts": ["tracker.example.org", "admin.example.org:8443", "192.0.2.1", "[2001:db8::1]:443"]}}"#,
        r#"{"api": {"listen": ["0.0.0.0:34001"], "tokens": [{"name": "a", "token": "hunter2-hunter2-", "scope": "read"}]}}"#,
        r#"{"log": {"level": "trace", "format": "json", "stats_interval": "0s"}}"#,
    ] {
        assert!(read(text).is_ok(), "{text}: {:?}", read(text).err());
    }
}

#[test]
fn without_a_file_it_is_a_public_tracker_that_needs_no_server() {
    let loaded = resolve(None, ConfigSource::BuiltIn, |_| None).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert_eq!(config.mode, Mode::Public);
    assert!(config.tracker.auto_register && !config.tracker.whitelist);
    assert_eq!(config.cache.driver, "memory");
    assert_eq!(config.storage.url.expose(), "sqlite://mika.db");
    assert!(!config.node.is_empty());
}

#[test]
fn a_private_tracker_serves_registered_torrents_unless_configured_otherwise() {
    let tracker = read(r#"{"mode": "private"}"#).unwrap().config.tracker;
    assert!(!tracker.auto_register && tracker.whitelist);
    let tracker = read(r#"{"mode": "private", "tracker": {"whitelist": false}}"#);
    assert!(!tracker.unwrap().config.tracker.whitelist);
}

#[test]
fn a_named_file_must_exist() {
    let error = load(Some(Path::new("/nowhere/mika.json"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/mika.json: no such file; name one with --config PATH, \
         or begin with a copy of config.json.dist"
    );
}

#[test]
fn the_environment_replaces_secrets_and_is_named_when_it_is_wrong() {
    let set = |value| with_variable("{}", "MIKA_STORAGE_URL", value);
    let url = set("sqlite:///var/lib/mika.db").unwrap().config.storage.url;
    assert_eq!(url.expose(), "sqlite:///var/lib/mika.db");
    let url = set("").unwrap().config.storage.url;
    assert_eq!(url.expose(), "sqlite://mika.db");
    assert_eq!(
        set("mysql://u:hunter2@h/d").unwrap_err().to_string(),
        r#"MIKA_STORAGE_URL: expected a URL like sqlite://PATH, because the driver is "sqlite""#
    );
    let open = r#"{"api": {"listen": ["0.0.0.0:34001"]}}"#;
    assert!(with_variable(open, "MIKA_API_PASSWORD", "hunter2").is_ok());
}

#[test]
fn an_api_that_the_file_does_not_name_is_there_only_with_its_files() {
    let is_default = |text| read(text).unwrap().config.api.is_default;
    assert!(is_default("{}") && is_default(r#"{"api": {"username": "site"}}"#));
    assert!(!is_default(r#"{"api": {"listen": ["127.0.0.1:34001"]}}"#));
    let built_in = resolve(None, ConfigSource::BuiltIn, |_| None).unwrap();
    assert!(built_in.config.api.is_default);
}

#[test]
fn udp_is_served_where_http_is_unless_the_file_says_otherwise() {
    let udp = |text| read(text).unwrap().config.udp.listen;
    let everywhere = super::Config::default().udp.listen;
    assert_eq!(udp("{}"), everywhere);
    let address: std::net::SocketAddr = "127.0.0.1:80".parse().unwrap();
    assert_eq!(udp(r#"{"http": {"listen": ["127.0.0.1:80"]}}"#), [address]);
    assert_eq!(
        udp(r#"{"http": {"listen": []}, "udp": {"listen": ["127.0.0.1:80"]}}"#),
        [address]
    );
    assert_eq!(udp(r#"{"udp": {"listen": []}}"#), []);
}

#[test]
fn settings_without_an_effect_are_reported() {
    let text = r#"{"http": {"listen": []}}"#;
    assert_eq!(
        read(text).unwrap().warnings,
        ["http.listen, udp.listen: both are empty, so no client can announce",]
    );
    let text = r#"{"http": {"forwarded_header": "Forwarded"}}"#;
    assert_eq!(
        read(text).unwrap().warnings,
        ["http.forwarded_header: has no effect without http.trusted_proxies"]
    );
}

#[test]
fn settings_that_let_others_in_are_reported() {
    let text = r#"{"http": {"trusted_proxies": ["0.0.0.0/0"]}}"#;
    let warnings = read(text).unwrap().warnings;
    assert!(
        matches!(&warnings[..], [one] if one.contains("0.0.0.0/0") && one.contains("forge")),
        "{warnings:?}"
    );
    let text = r#"{"cache": {"driver": "redis", "url": "redis://s3cret@localhost"}}"#;
    let warnings = read(text).unwrap().warnings;
    assert!(
        matches!(&warnings[..], [one] if one.contains("colon is missing") && !one.contains("s3cret")),
        "{warnings:?}"
    );
}

#[test]
fn a_bare_address_is_a_network_of_one_host() {
    let text = r#"{"http": {"trusted_proxies": ["127.0.0.1", "::1", "10.0.0.0/8"]}}"#;
    let proxies = read(text).unwrap().config.http.trusted_proxies;
    let shown: Vec<String> = proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1/32", "::1/128", "10.0.0.0/8"]);
}

#[test]
fn headers_that_never_name_a_client_are_refused() {
    for name in ["Host", "via", "COOKIE", "Authorization", "Connection"] {
        let text = format!(r#"{{"http": {{"forwarded_header": "{name}"}}}}"#);
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains("names the client"), "{error}");
    }
    for name in ["X-Real-IP", "CF-Connecting-IP", "Forwarded", ""] {
        let text =
            format!(r#"{{"http": {{"trusted_proxies": ["::1"], "forwarded_header": "{name}"}}}}"#);
        assert_eq!(
            read(&text).unwrap().warnings,
            Vec::<String>::new(),
            "{name}"
        );
    }
}

#[test]
fn passwords_with_raw_delimiters_are_explained() {
    for (driver, url) in [
        ("redis", "redis://:hun/ter2@host/0"),
        ("redis", "redis://:hun#ter2@host/0"),
        ("redis", "redis://user:12?ter2@host/0"),
        ("redis", "rediss://:hun@t#er2@host/0"),
        ("mysql", "mysql://user:hun/ter2@host/mika"),
        ("mysql", "mysql://user:hun@t/er2@host/mika"),
    ] {
        let (key, rest) = match driver {
            "redis" => ("cache", ""),
            _ => ("storage", r#", "schema": "mika""#),
        };
        let text = format!(r#"{{"{key}": {{"driver": "{driver}", "url": "{url}"{rest}}}}}"#);
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains("%2F for '/'"), "{url}: {error}");
        assert!(
            !error.contains("ter2") && !error.contains("er2@"),
            "{error}"
        );
    }
    let text = r#"{"storage": {"driver": "mysql", "schema": "mika",
        "url": "mysql://user:p%2F@host/mika?x=a@b"}}"#;
    assert!(read(text).is_ok());
}

#[test]
fn the_distributed_file_is_a_private_tracker_on_mysql_and_redis() {
    let loaded = read(DIST).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    // Apart from the two servers, nothing differs from the defaults of private mode.
    let given = r#"{
        "mode": "private",
        "cache": {"driver": "redis", "url": "redis://localhost:6379/0"},
        "storage": {"driver": "mysql", "url": "mysql://mika:PASSWORD@localhost:3306/mika"},
        "api": {"listen": ["127.0.0.1:34001"]}
    }"#;
    assert_eq!(loaded, read(given).unwrap());
}

#[test]
fn the_distributed_file_shows_every_key() {
    let shown: Value = serde_json::from_str(DIST).unwrap();
    for key in keys() {
        let pointer = format!("/{}", key.replace('.', "/"));
        let parent_is_off = pointer.starts_with("/http/tls/");
        assert!(parent_is_off || shown.pointer(&pointer).is_some(), "{key}");
    }
}

#[test]
fn the_manual_explains_every_key_and_no_other() {
    let mut explained: Vec<&str> = MANUAL
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key)
        .filter(|key| *key != "http.tls") // a section that may be null
        .collect();
    explained.sort_unstable();
    let mut keys = keys();
    keys.sort_unstable();
    assert_eq!(explained, keys);
}

#[test]
fn statements_have_names_that_the_driver_knows() {
    let given = r#"{"storage": {
        "driver": "mysql", "url": "mysql://localhost/site",
        "statements": {"users": "SELECT 1"}
    }}"#;
    let config = read(given).unwrap().config;
    assert_eq!(config.storage.statements["users"], "SELECT 1");
}

#[test]
fn every_kind_of_value_is_described() {
    // A key that is not in the table of expectations would ask for a text.
    for key in keys() {
        let is_text = shape::every_key()
            .pointer(&format!("/{}", key.replace('.', "/")))
            .is_some_and(|value| value.is_string() && !is_time(value));
        let wrong = nested(&key, "[[[]]]");
        let error = read(&wrong).unwrap_err().to_string();
        let asks_for_text = error.contains("a text in quotes");
        let named = matches!(key.as_str(), "mode" | "log.level" | "log.format");
        assert_eq!(asks_for_text, is_text && !named, "{error}");
    }
}

fn is_time(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| humantime::parse_duration(text).is_ok())
}

/// `a.b` and a value as `{"a": {"b": value}}`.
fn nested(key: &str, value: &str) -> String {
    key.rsplit('.').fold(value.to_owned(), |inner, name| {
        format!("{{{name:?}: {inner}}}")
    })
}

/// The path of every key that is not a section.
fn keys() -> Vec<String> {
    fn walk(path: &str, value: &Value, keys: &mut Vec<String>) {
        match value.as_object() {
            // An empty one accepts any key: the names of statements.
            Some(section) if !section.is_empty() => {
                for (key, value) in section {
                    walk(&shape::join(path, key), value, keys);
                }
            }
            _ => keys.push(path.to_owned()),
        }
    }
    let mut keys = Vec::new();
    walk("", &shape::every_key(), &mut keys);
    keys
}

fn assert_refused(text: &str, error: &str) {
    let refused = read(text).expect_err(text).to_string();
    assert_eq!(refused, format!("config.json: {error}"), "{text}");
    assert!(!refused.contains("hunter2") && !refused.contains('\n'));
}
