use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::secret::Secret;
use crate::registry::Registry;
use crate::telemetry::metrics::{ProbeSource, Protocol, RequestKind};
use crate::tracker::{AnnounceRequest, Mode, Reason, Rules, Workspace};
use crate::wire::query;

/// The parts of a node without a cache, over a database in a temporary folder.
struct TestNode {
    sources: Sources,
    work: Workspace,
    _folder: tempfile::TempDir,
}

impl TestNode {
    async fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mika.db").display().to_string();
        let open = crate::storage::StorageDrivers::built_in()
            .get("sqlite")
            .unwrap();
        let url = Secret::new(format!("sqlite://{path}"));
        let place = crate::storage::StorageConfig::of(&url, "mika", &BTreeMap::new());
        let storage = open(&place).unwrap();
        storage.migrate().await.unwrap();
        let (metrics, registry) = (Arc::new(Metrics::default()), Arc::new(Registry::default()));
        let known = Arc::clone(&registry);
        let tracker = Tracker::new(mode, rules(), known, 1000, Arc::clone(&metrics));
        let tracker = Arc::new(tracker);
        let clock = Clock::start();
        let parts = journal::JournalParts {
            tracker: Arc::clone(&tracker),
            cache: None,
            storage,
            metrics: Arc::clone(&metrics),
            clock,
        };
        let settings = journal::JournalSettings {
            node: "n".into(),
            flush_interval: std::time::Duration::from_secs(1),
            spill: folder.path().join("spill"),
            memory_max: 1000,
            keep: 60,
        };
        let journal = journal::Journal::resume(parts, settings).await.unwrap();
        Self {
            sources: Sources {
                metrics,
                tracker,
                registry,
                journal: journal.handle(),
                clock,
                swarm_stats: Arc::default(),
            },
            work: Workspace::new(Protocol::Udp, fastrand::Rng::with_seed(1)),
            _folder: folder,
        }
    }

    fn announce(&mut self, ip: &str, query: &str) {
        let request = AnnounceRequest {
            passkey: None,
            params: query::parse_announce(query.as_bytes()),
            source: ip.parse().unwrap(),
        };
        let now = self.sources.clock.now();
        // Refusals count too.
        let _ = self.sources.tracker.announce(&request, now, &mut self.work);
    }

    fn text(&self) -> String {
        text(&self.sources)
    }
}

fn rules() -> Rules {
    Rules {
        max_torrents: 100_000,
        blocked_ports: vec![25],
        max_rate: 1 << 40,
        hnr_threshold: 1,
        hnr_min_bytes: 1,
        ..Rules::default()
    }
}

fn query(peer_id: &str, port: u16, left: u64, event: &str) -> String {
    let hash = "A".repeat(20);
    format!("info_hash={hash}&peer_id={peer_id}&port={port}&left={left}&event={event}")
}

/// The value of each series of a text.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series, value.parse().unwrap())
        })
        .collect()
}

/// Every name that a text describes.
fn names(text: &str) -> BTreeSet<&str> {
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    described
        .map(|line| line.split_once(' ').unwrap().0)
        .collect()
}

#[tokio::test]
async fn announces_are_counted_by_protocol_and_outcome_and_peers_by_family_and_role() {
    let mut place = TestNode::new(Mode::Public).await;
    place.announce("192.0.2.1", &query("-qB4650-abcdefghijkl", 1, 0, "started"));
    place.announce("192.0.2.1", &query("-qB4650-abcdefghijkl", 1, 0, ""));
    place.announce("192.0.2.2", &query("-TR4050-abcdefghijkl", 2, 9, "started"));
    place.announce("192.0.2.3", &query("-TR4050-bbcdefghijkl", 3, 9, "paused"));
    place.announce(
        "2001:db8::1",
        &query("12345678abcdefghijkl", 4, 9, "started"),
    );
    place.announce(
        "192.0.2.4",
        &query("-TR4050-cbcdefghijkl", 25, 9, "started"),
    );
    place.announce("192.0.2.4", "peer_id=1");
    place
        .sources
        .metrics
        .refused(RequestKind::Scrape, Protocol::Udp, Reason::NoScrape);
    let text = place.text();
    let series = series(&text);
    let expected = [
        (
            r#"mika_announces_total{protocol="udp",outcome="answered"}"#,
            5.0,
        ),
        (
            r#"mika_announces_total{protocol="udp",outcome="refused"}"#,
            2.0,
        ),
        (
            r#"mika_announces_total{protocol="https",outcome="refused"}"#,
            0.0,
        ),
        (
            r#"mika_scrapes_total{protocol="udp",outcome="refused"}"#,
            1.0,
        ),
        (r#"mika_refusals_total{reason="port_blocked"}"#, 1.0),
        (r#"mika_refusals_total{reason="bad_info_hash"}"#, 1.0),
        (r#"mika_refusals_total{reason="no_scrape"}"#, 1.0),
        ("mika_blocked_total", 1.0),
        (
            r#"mika_client_sessions_total{client="qBittorrent",version="4.6.5"}"#,
            1.0,
        ),
        (
            r#"mika_client_sessions_total{client="Transmission",version="4.0.5"}"#,
            1.0,
        ),
        (
            r#"mika_client_sessions_total{client="other",version="other"}"#,
            1.0,
        ),
        ("mika_swarms", 1.0),
        (r#"mika_peers{family="ipv4",role="seeder"}"#, 1.0),
        (r#"mika_peers{family="ipv4",role="leecher"}"#, 1.0),
        (r#"mika_peers{family="ipv4",role="paused"}"#, 1.0),
        (r#"mika_peers{family="ipv6",role="leecher"}"#, 1.0),
        (r#"mika_peers{family="ipv6",role="seeder"}"#, 0.0),
        ("mika_outbox_capacity", 1000.0),
        ("mika_journal_lag_seconds", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(series.get(name), Some(&value), "{name} in:\n{text}");
    }
}

#[tokio::test]
async fn durations_are_cumulative_buckets_in_seconds() {
    let place = TestNode::new(Mode::Public).await;
    let durations = place.sources.metrics.durations.of(Protocol::Http);
    durations.observe(1500);
    durations.observe_each(30_000_000, 2);
    durations.observe(20_000_000_000);
    let text = place.text();
    let series = series(&text);
    let of = |end: &str| series[&*format!("mika_request_duration_seconds{end}")];
    let bucket = |bound: f64| {
        let mark = "mika_request_duration_seconds_bucket{le=\"";
        let found = series.iter().find(|(name, _)| {
            let rest = name.strip_prefix(mark);
            let bound_of = |rest: &str| {
                Some((
                    rest.split_once('"')?.0.parse().ok()?,
                    rest.contains("\"http\""),
                ))
            };
            rest.and_then(bound_of) == Some((bound, true))
        });
        *found.unwrap_or_else(|| panic!("{bound} in {text}")).1
    };
    assert_eq!(of(r#"_count{protocol="http"}"#) as u64, 4);
    assert!((of(r#"_sum{protocol="http"}"#) - 20.060_001_5).abs() < 1e-9);
    let buckets =
        [0.000_001, 0.000_002, 0.02, 0.05, 10.0, f64::INFINITY].map(|bound| bucket(bound) as u64);
    assert_eq!(buckets, [0, 1, 1, 3, 3, 4]);
}

#[tokio::test]
async fn missing_values_have_only_a_description() {
    let place = TestNode::new(Mode::Private).await;
    let before = place.text();
    assert!(before.contains("# TYPE mika_cache_up gauge\n"));
    assert!(!series(&before).contains_key("mika_cache_up"));
    let metrics = &place.sources.metrics;
    metrics.cache.failed(ProbeSource::Probe, "gone");
    metrics.storage.succeeded(ProbeSource::Probe);
    metrics.certificates.set("http", Some(1_900_000_000));
    metrics.connections_open.add(|| 3);
    let after = place.text();
    let series = series(&after);
    assert_eq!(
        (series["mika_cache_up"], series["mika_storage_up"]),
        (0.0, 1.0)
    );
    let expiry = series[r#"mika_certificate_expiry_timestamp_seconds{listener="http"}"#];
    assert_eq!(
        (expiry, series["mika_http_connections_open"]),
        (1_900_000_000.0, 3.0)
    );
    assert!(series["mika_process_resident_memory_bytes"] > 1e6);
    assert!(series["mika_process_start_time_seconds"] > 1.7e9);
    assert_eq!(names(&before), names(&after));
    let health = place.sources.health();
    assert_eq!((health.storage_up, health.cache_up), (true, Some(false)));
    assert_eq!(health.cache_problem.as_deref(), Some("gone"));
}

#[tokio::test]
async fn clients_cannot_grow_the_text_beyond_the_closed_lists() {
    let mut place = TestNode::new(Mode::Public).await;
    let mut rng = fastrand::Rng::with_seed(5);
    for number in 0..5000_u32 {
        let id: String = (0..12).map(|_| rng.alphanumeric()).collect();
        let id = format!("-qB{number:04}-{id}");
        let id = if number % 2 == 0 {
            id
        } else {
            format!("{}{}", &id[8..], &id[..8])
        };
        let hash: String = (0..20).map(|_| rng.alphanumeric()).collect();
        place.announce(
            "198.51.100.7",
            &format!("info_hash={hash}&peer_id={id}&port={number}&event=started"),
        );
    }
    let text = place.text();
    let series = series(&text);
    let sessions = series
        .iter()
        .filter(|(name, _)| name.starts_with("mika_client_sessions_total"));
    let lines = sessions.clone().count();
    assert!(lines < 60, "{lines}");
    assert!(sessions.map(|(_, number)| number).sum::<f64>() >= 1000.0);
    assert!(text.len() < 100_000, "{}", text.len());
}

/// The docs page names exactly the metrics that the text does.
#[tokio::test]
async fn the_documentation_names_every_metric() {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `mika_"));
    let named: BTreeSet<String> = rows
        .map(|row| format!("mika_{}", row.split_once('`').unwrap().0))
        .collect();
    let text = TestNode::new(Mode::Public).await.text();
    let written: BTreeSet<String> = names(&text).into_iter().map(str::to_owned).collect();
    assert_eq!(named, written);
    for reason in Reason::ALL {
        let name = format!("`{}`", reason.name());
        assert!(
            page.contains(&name),
            "docs/metrics.md does not explain {name}"
        );
    }
}

/// Every `mika_` name in queries of the dashboard and in the alert rules is a metric.
#[tokio::test]
async fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let dashboard = include_str!("../../../docs/grafana-dashboard.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    let queries = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = queries
        .filter_map(|target| target["expr"].as_str())
        .collect();
    assert!(queries.len() > 20);
    let text = TestNode::new(Mode::Public).await.text();
    let known = names(&text);
    let exists = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let family = ends.iter().find_map(|end| name.strip_suffix(end));
        known.contains(name) || family.is_some_and(|family| known.contains(family))
    };
    let alerts = include_str!("../../../docs/alerts.yml");
    for asked in queries.into_iter().chain(alerts.lines()) {
        for name in mika_names(asked) {
            assert!(exists(name), "{name} in {asked}");
        }
    }
}

/// Every alert links to its section of the runbook, and that section exists.
#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let runbook = include_str!("../../../docs/runbook.md");
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("### "));
    let headings: BTreeSet<&str> = headings.collect();
    let alerts = include_str!("../../../docs/alerts.yml").split("- alert: ");
    let mut number = 0;
    for alert in alerts.skip(1) {
        let name = alert.lines().next().unwrap();
        let anchor = format!("alert-{}", name.to_lowercase());
        let place = format!("runbook: docs/runbook.md#{anchor}\n");
        assert!(alert.contains(&place), "{name}");
        assert!(
            headings.contains(&*anchor),
            "docs/runbook.md has no {anchor}"
        );
        number += 1;
    }
    assert_eq!(
        number,
        headings
            .iter()
            .filter(|name| name.starts_with("alert-"))
            .count()
    );
}

fn mika_names(query: &str) -> impl Iterator<Item = &str> {
    let names = query.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    names.filter(|name| name.starts_with("mika_"))
}

/// The linter of Prometheus itself; `scripts/test` installs it.
#[tokio::test]
async fn prometheus_can_read_the_text_the_alerts_and_their_tests() {
    let mut place = TestNode::new(Mode::Public).await;
    place.announce("192.0.2.1", &query("-qB4650-abcdefghijkl", 1, 0, "started"));
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    promtool(&["check", "metrics"], &place.text());
    promtool(&["check", "rules", &format!("{docs}/alerts.yml")], "");
    promtool(&["test", "rules", &format!("{docs}/alerts.test.yml")], "");
}

fn promtool(arguments: &[&str], input: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut tool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool of Debian's package prometheus; scripts/test installs it");
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}
