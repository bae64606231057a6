//! Servers that may lose confirmed writes.

use mika::storage::{Finding, Severity};

use super::{Fixture, open};
use crate::harness::standby::Pair;

fn the_only_one(findings: &[Finding], severity: Severity, what: &str) {
    assert!(findings.len() == 1, "{findings:#?}");
    assert!(findings[0].problem.contains(what), "{findings:#?}");
    assert_eq!(findings[0].severity, severity);
}

#[tokio::test]
async fn settings_that_lose_confirmed_writes_are_noted() {
    let it = Fixture::empty(&[]).await;
    assert_eq!(it.storage.durability().await.unwrap(), []);
    let cases = [
        ("fsync", Severity::Problem, "the server's host"),
        ("full_page_writes", Severity::Problem, "the server's host"),
        ("synchronous_commit", Severity::Note, "about a second"),
    ];
    for (name, severity, loss) in cases {
        let it = Fixture::empty(&[&format!("{name}=off")]).await;
        let found = it.storage.durability().await.unwrap();
        the_only_one(&found, severity, &format!("{name} is off: a crash of "));
        assert!(found[0].problem.contains(loss), "{found:#?}");
        assert!(found[0].hint.contains(&format!("SET {name} = on")));
        the_only_one(&it.storage.check().await.unwrap(), severity, name);
    }
}

#[tokio::test]
async fn a_replica_that_lags_is_noted_unless_the_server_waits_for_it() {
    let pair = Pair::start(false);
    let storage = open(&pair.database("mika"));
    storage.migrate().await.unwrap();
    the_only_one(
        &storage.durability().await.unwrap(),
        Severity::Note,
        "1 standby follows asynchronously",
    );

    let pair = Pair::start(true);
    let url = pair.database("mika");
    let storage = open(&url);
    storage.migrate().await.unwrap();
    assert_eq!(storage.durability().await.unwrap(), []);
    // Whose sessions do not wait for it has one that lags.
    pair.sql("mika", "ALTER ROLE mika SET synchronous_commit = local");
    the_only_one(
        &open(&url).durability().await.unwrap(),
        Severity::Note,
        "1 standby follows asynchronously",
    );
}
