//! `mika-manage nodes`: what each node says of itself, also one of an earlier or a later version, and what is left
//! of one that is gone.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::pair::{Client, Pair};
use crate::harness::{Mika, poll};

/// How long a heartbeat may need to report a peer, and storage to have a batch.
const REPORTED: Duration = Duration::from_secs(40);

fn nodes(mika: &Mika) -> Vec<Value> {
    let listed = mika.managed(&["--json", "nodes"]);
    serde_json::from_str(&listed).expect("JSON")
}

fn of<'a>(nodes: &'a [Value], name: &str) -> Option<&'a Value> {
    nodes.iter().find(|node| node["node"] == name)
}

fn state(mika: &Mika, name: &str) -> Option<String> {
    let nodes = nodes(mika);
    let state = of(&nodes, name)?["state"].as_str();
    state.map(str::to_owned)
}

#[test]
fn each_node_is_listed_with_what_it_reports() {
    let Pair { mut site, mut b } = Pair::start(2);
    Client::new(0, 1).accepted(site.mika.http(), "started");
    poll(REPORTED, "both nodes have the peer", || {
        let nodes = nodes(&site.mika);
        ["a", "b"].iter().all(|name| {
            let node = of(&nodes, name).expect("a node");
            assert_eq!(node["state"], "running", "{node}");
            assert_eq!(node["version"], env!("CARGO_PKG_VERSION"), "{node}");
            assert!(node["uptime"].as_u64() < Some(120), "{node}");
            assert!(
                node["clock"].as_i64().is_some_and(|clock| clock.abs() <= 2),
                "{node}"
            );
            (&node["peers"], &node["lag"], &node["backlog"]) == (&1.into(), &0.into(), &0.into())
        })
    });
    let table = site.mika.managed(&["nodes"]);
    assert!(table.starts_with("NODE"), "{table}");
    assert_eq!(table.matches(" running ").count(), 2, "{table}");

    b.signal(Signal::STOP);
    let listed = nodes(&site.mika);
    let paused = of(&listed, "b").expect("a node");
    assert_eq!(paused["state"], "silent", "{paused}");
    // Nodes are watched for four seconds; heartbeats have whole seconds.
    let silent_for = paused["silent_for"].as_u64();
    assert!(
        silent_for.is_some_and(|it| (3..40).contains(&it)),
        "{paused}"
    );
    let table = site.mika.managed(&["nodes"]);
    assert!(table.contains(" silent for "), "{table}");
    let refused = site.mika.manage(&["nodes", "forget", "b"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("it may be paused"), "{text}");
    b.signal(Signal::CONT);
    poll(REPORTED, "it goes on", || {
        state(&site.mika, "b").as_deref() == Some("running")
    });
    let refused = site.mika.manage(&["nodes", "forget", "b"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("node b runs"), "{text}");

    assert_eq!(b.stop(), 0);
    assert_eq!(state(&site.mika, "b").as_deref(), Some("stopped"));
    poll(
        REPORTED,
        "it is forgotten once its batches are not kept any more",
        || site.mika.manage(&["nodes", "forget", "b"]).status.success(),
    );
    assert_eq!(state(&site.mika, "b"), None);
    assert_eq!(site.mika.stop(), 0);
}

/// Two versions side by side: a node of each goes on, and both are listed.
#[test]
fn heartbeats_of_other_versions_disturb_nobody() {
    let Pair { mut site, mut b } = Pair::start(2);
    for (journal, sign) in [
        (
            "earlier#1.00000000",
            "elsewhere boot pid:[1] 5 1 1800000000",
        ),
        (
            "later#1.00000000",
            "elsewhere boot pid:[1] 6 1 1800000000 version=9.0 mood=good peers=7 cells=3,4",
        ),
    ] {
        site.redis.cli(&["HSET", "t:nodes", journal, sign]);
    }
    let listed = nodes(&site.mika);
    let earlier = of(&listed, "earlier").expect("a node");
    assert_eq!(
        (&earlier["host"], &earlier["version"]),
        (&"elsewhere".into(), &Value::Null)
    );
    let later = of(&listed, "later").expect("a node");
    assert_eq!(
        (&later["state"], &later["version"]),
        (&"silent".into(), &"9.0".into())
    );

    // What one node takes is still handed out by the other.
    Client::new(0, 1).accepted(site.mika.http(), "started");
    let leecher = Client {
        left: 10,
        ..Client::new(1, 1)
    };
    poll(REPORTED, "the other node has the peer", || {
        let reply = leecher.accepted(b.http(), "");
        reply.bytes("peers").is_some_and(|peers| !peers.is_empty())
    });
    assert_eq!(b.stop(), 0);
    assert_eq!(site.mika.stop(), 0);
}
