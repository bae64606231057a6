//! `GET /metrics` of the running program: the effect of clients and outages on its numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Output;

use crate::harness::http::{Connection, get};
use crate::harness::redis::Redis;
use crate::harness::udp::{Announce, Client};
use crate::harness::{Mika, PROGRAM_DEADLINE, free_port, poll};
use rustix::process::Signal;
use serde_json::{Value, json};

const LOGIN: &str = "prometheus:correct horse";
const STARTED: u32 = 2;

/// A daemon with an API at that address, and what else the test wants.
fn prepare(api: SocketAddr, mode: &str, more: &[(&str, Value)]) -> Mika {
    let (username, password) = LOGIN.split_once(':').unwrap();
    let mut config = json!({
        "mode": mode,
        "api": {
            "listen": [api],
            "username": username,
            "password": password,
            "tls": { "key": "api.key", "cert": "api.pem" },
        },
    });
    for (key, value) in more {
        config[key] = value.clone();
    }
    let mika = Mika::prepare_udp(&["127.0.0.1"], &config);
    mika.managed(&["genkey"]);
    mika
}

fn ask(mika: &Mika, api: SocketAddr, login: &str) -> Output {
    let mut command = mika.command("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]);
    command.args(["--max-time", "20", "--cacert", "api.pem", "--user", login]);
    let url = format!("https://{api}/metrics");
    command.arg(url).output().expect("curl starts")
}

/// Every series, and its value.
fn scrape(mika: &Mika, api: SocketAddr) -> BTreeMap<String, f64> {
    let output = ask(mika, api, LOGIN);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    series.collect()
}

fn whole(series: &BTreeMap<String, f64>, name: &str) -> u64 {
    let value = series.get(name);
    *value.unwrap_or_else(|| panic!("no {name} in {series:#?}")) as u64
}

#[test]
fn evictions_and_missing_proxy_headers_are_counted() {
    let api = free_port();
    let http = json!({
        "max_connections": 4,
        "trusted_proxies": ["127.0.0.1/32"],
        "forwarded_header": "X-Real-IP",
    });
    let mut mika = prepare(api, "public", &[("http", http)]);
    mika.run();
    let kept: Vec<Connection> = (0..7)
        .map(|_| {
            let mut kept = Connection::open(mika.http()).unwrap();
            kept.get("/announce?port=1").unwrap();
            kept
        })
        .collect();
    let series = scrape(&mika, api);
    for (name, value) in [
        (r#"mika_http_connections_evicted_total{reason="full"}"#, 3),
        (
            r#"mika_http_connections_evicted_total{reason="network_share"}"#,
            0,
        ),
        ("mika_http_connections_open", 4),
        ("mika_http_connections_max", 4),
        ("mika_http_forwarded_missing_total", 7),
    ] {
        assert_eq!(whole(&series, name), value, "{name}");
    }
    drop(kept);
}

#[test]
fn requests_of_clients_and_open_connections_are_counted() {
    let api = free_port();
    let mut mika = prepare(api, "public", &[]);
    mika.run();
    let hash = "%00abcdefghijklmnopqrs";
    let announce = |id: &str, event: &str| {
        format!("/announce?info_hash={hash}&peer_id={id}&port=6881&left=0&event={event}")
    };
    get(mika.http(), &announce("-TR4050-abcdefghijkl", "started"));
    let mut kept = Connection::open(mika.http()).unwrap();
    kept.get(&announce("-TR4050-abcdefghijkl", "")).unwrap();
    kept.get("/announce?peer_id=-TR4050-abcdefghijkl&port=1")
        .unwrap();
    kept.get(&format!("/scrape?info_hash={hash}")).unwrap();
    let client = Client::new(mika.udp("127.0.0.1"));
    let mut by_udp = Announce::new(client.connect(), *b"\0abcdefghijklmnopqrs").peer(2);
    by_udp.event = STARTED;
    client.announce(&by_udp);

    let series = scrape(&mika, api);
    let expected = [
        (
            r#"mika_announces_total{protocol="http",outcome="answered"}"#,
            2,
        ),
        (
            r#"mika_announces_total{protocol="http",outcome="refused"}"#,
            1,
        ),
        (
            r#"mika_announces_total{protocol="udp",outcome="answered"}"#,
            1,
        ),
        (
            r#"mika_scrapes_total{protocol="http",outcome="answered"}"#,
            1,
        ),
        (r#"mika_refusals_total{reason="bad_info_hash"}"#, 1),
        (r#"mika_request_duration_seconds_count{protocol="http"}"#, 4),
        (r#"mika_request_duration_seconds_count{protocol="udp"}"#, 1),
        (
            r#"mika_client_sessions_total{client="Transmission",version="4.0.5"}"#,
            1,
        ),
        ("mika_swarms", 1),
        (r#"mika_peers{family="ipv4",role="seeder"}"#, 1),
        ("mika_http_connections_open", 1),
        ("mika_storage_up", 1),
    ];
    for (name, value) in expected {
        assert_eq!(whole(&series, name), value, "{name}");
    }
    assert!(!series.contains_key("mika_cache_up"), "there is no cache");
    assert!(whole(&series, "mika_http_connections_max") >= 16_384);
    drop(kept);
    poll(
        PROGRAM_DEADLINE,
        "the connection is seen to be closed",
        || whole(&scrape(&mika, api), "mika_http_connections_open") == 0,
    );
}

#[test]
fn metrics_need_a_login() {
    let api = free_port();
    let mut mika = prepare(api, "public", &[]);
    mika.run();
    assert!(ask(&mika, api, LOGIN).status.success());
    let refused = ask(&mika, api, "prometheus:wrong");
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("401"));
}

#[test]
fn the_expiry_of_a_certificate_follows_its_replacement() {
    const EXPIRY: &str = r#"mika_certificate_expiry_timestamp_seconds{listener="api"}"#;
    let api = free_port();
    let mut mika = prepare(api, "public", &[]);
    mika.run();
    let series = scrape(&mika, api);
    let now = whole(&series, "mika_process_start_time_seconds");
    let first = whole(&series, EXPIRY);
    assert!(first > now + 15 * 86_400);
    assert!(!mika.log().contains("expires soon"));
    mika.managed(&["genkey", "--force", "--days", "3"]);
    mika.signal(Signal::HUP);
    poll(PROGRAM_DEADLINE, "the other certificate is shown", || {
        let output = ask(&mika, api, LOGIN);
        output.status.success() && whole(&scrape(&mika, api), EXPIRY) < first
    });
    let second = whole(&scrape(&mika, api), EXPIRY);
    assert!((now..=now + 4 * 86_400).contains(&second));
    poll(PROGRAM_DEADLINE, "the log warns", || {
        mika.log().contains("api.tls: the certificate expires soon")
    });
}

#[test]
fn storage_that_refuses_writes_is_down_until_it_accepts_them() {
    let passkey = "0123456789abcdef";
    let api = free_port();
    let tracker = json!({ "whitelist": false });
    let mut mika = prepare(api, "private", &[("tracker", tracker)]);
    mika.managed(&["users", "add", "first", "--passkey", passkey]);
    let hash = "006162636465666768696a6b6c6d6e6f70717273";
    mika.managed(&["torrents", "add", hash, "--name", "A torrent"]);
    mika.run();
    let storage = mika.storage();
    storage.execute_batch("BEGIN IMMEDIATE").unwrap();
    let target = format!(
        "/{passkey}/announce?info_hash=%00abcdefghijklmnopqrs&peer_id=-qB4650-abcdefghijkl&port=1&left=9"
    );
    get(mika.http(), &target);
    let is_down = |series: &BTreeMap<String, f64>| {
        whole(series, "mika_storage_up") == 0
            && whole(series, "mika_journal_backlog") > 0
            && whole(series, "mika_journal_lag_seconds") > 0
            && whole(series, "mika_journal_batch_failures_total") > 0
    };
    poll(PROGRAM_DEADLINE, "storage is down", || {
        is_down(&scrape(&mika, api))
    });
    storage.execute_batch("ROLLBACK").unwrap();
    let is_up = |series: &BTreeMap<String, f64>| {
        whole(series, "mika_storage_up") == 1
            && whole(series, "mika_journal_backlog") == 0
            && whole(series, "mika_journal_lag_seconds") == 0
    };
    poll(PROGRAM_DEADLINE, "storage is up again", || {
        is_up(&scrape(&mika, api))
    });
    let series = scrape(&mika, api);
    assert_eq!(whole(&series, "mika_storage_reconnects_total"), 1);
    assert!(whole(&series, "mika_journal_apply_duration_seconds_count") >= 1);
}

#[test]
fn a_lost_cache_is_down_until_it_is_back() {
    let mut redis = Redis::start();
    let api = free_port();
    let cache = json!({ "driver": "redis", "url": redis.url() });
    let mut mika = prepare(api, "public", &[("cache", cache)]);
    mika.run();
    let up = || whole(&scrape(&mika, api), "mika_cache_up");
    poll(PROGRAM_DEADLINE, "the cache is up", || up() == 1);
    redis.stop();
    poll(PROGRAM_DEADLINE, "the cache is down", || up() == 0);
    assert_eq!(whole(&scrape(&mika, api), "mika_storage_up"), 1);
    redis.restart();
    poll(PROGRAM_DEADLINE, "the cache is up again", || up() == 1);
    let series = scrape(&mika, api);
    assert!(whole(&series, "mika_cache_failures_total") >= 1);
    assert!(whole(&series, "mika_cache_reconnects_total") >= 1);
}
