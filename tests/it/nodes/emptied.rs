//! A Redis that forgot everything while nodes run, as `FLUSHDB` makes it: what was in it comes back
//! without an announce.

use std::time::Duration;

use mika::base::ids::InfoHash;
use serde_json::json;

use super::pair::Client;
use crate::harness::load::info_hash;
use crate::harness::poll;
use crate::harness::redis::{AOF, Redis};
use crate::harness::site::Site;

/// How long until all is there again. It takes about two seconds.
const RESTORED: Duration = Duration::from_secs(20);

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(30);

/// What a web application reads, but `t:stats:*`.
fn shown(redis: &Redis) -> String {
    let script = "local all = {} \
        for _, key in ipairs(redis.call('KEYS', 't:*')) do \
            local kind, value = redis.call('TYPE', key).ok, nil \
            if key == 't:registry' or key == 't:nodes' then kind = 'other' end \
            if kind == 'hash' then value = {} local fields = redis.call('HGETALL', key) \
                for i = 1, #fields, 2 do \
                    local text = fields[i + 1] \
                    if string.sub(key, 1, 4) == 't:p:' then text = '' end \
                    value[#value + 1] = fields[i] .. '=' .. text end \
            elseif kind == 'set' then value = redis.call('SMEMBERS', key) \
            elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') \
            elseif string.sub(key, 1, 7) == 't:user:' then value = {redis.call('GET', key)} end \
            if value then if kind ~= 'zset' then table.sort(value) end \
                all[#all + 1] = key .. ': ' .. table.concat(value, ' ') end \
        end table.sort(all) return table.concat(all, '\\n')";
    redis.cli(&["EVAL", script, "0"])
}

fn members(redis: &Redis, set: &str, user: u32) -> String {
    redis.cli(&["SORT", &format!("t:u:{set}:{user}")])
}

/// A site whose hit and run begins with the first byte.
fn prepare() -> Site {
    let config = json!({ "node": "a", "tracker": { "hnr_min_bytes": 1 } });
    Site::prepare(3, &AOF, &config)
}

/// Users 1 to 3 with something in each set.
fn announce(site: &Site, node: std::net::SocketAddr) {
    let leecher = Client {
        left: 100,
        ..Client::new(0, 2)
    };
    leecher.accepted(node, "started");
    // It completes, stays a moment, and runs.
    let mut runner = Client {
        left: 100,
        ..Client::new(1, 2)
    };
    runner.accepted(node, "started");
    runner.downloaded = 100;
    runner.left = 0;
    runner.uploaded = 77;
    runner.accepted(node, "completed");
    runner.accepted(node, "stopped");
    Client::new(2, 1).accepted(node, "started");
    poll(CREDITED, "storage has all of it", || {
        let sql = "SELECT (SELECT COUNT(*) FROM peers), SUM(uploaded), SUM(snatches) FROM users";
        site.database.row::<3>(sql) == [3, 77, 1]
    });
    poll(CREDITED, "the cache has all of it", || {
        members(&site.redis, "hnr", 2) == "3" && members(&site.redis, "active", 3) == "2"
    });
}

#[test]
fn an_emptied_cache_is_refilled_without_an_announce() {
    let mut site = prepare();
    let mut b = site.another(&json!({ "node": "b", "tracker": { "hnr_min_bytes": 1 } }));
    site.mika.run();
    b.run();
    announce(&site, site.mika.http());
    let before = shown(&site.redis);
    for key in [
        "t:u:active:1: 3",
        "t:u:incomplete:1: 3",
        "t:u:complete:2: 3",
        "t:u:hnr:2: 3",
        "t:u:active:3: 2",
        "t:i:snatches: 3 1",
        "uploaded=77",
    ] {
        assert!(before.contains(key), "{key}: {before}");
    }
    // Storage has the batches, and the node holds them for some seconds: they must not count again.
    for flush in ["FLUSHALL", "FLUSHDB"] {
        site.redis.cli(&[flush]);
        let mut after = String::new();
        let is_alike = crate::harness::site::settles(RESTORED, || {
            after = shown(&site.redis);
            after == before
        });
        assert!(is_alike, "{flush}:\n{before}\n\n{after}");
        poll(RESTORED, "counters are there", || {
            site.redis
                .cli(&["EXISTS", "t:stats:announces", "t:stats:seeders"])
                == "2"
        });
    }
    // Both nodes go on, each with the next batch.
    for (mika, user, uploaded) in [(&site.mika, 0, 5), (&b, 2, 7)] {
        let mut client = Client::new(user, 3);
        client.accepted(mika.http(), "started");
        client.uploaded = uploaded;
        client.accepted(mika.http(), "stopped");
    }
    let hash = InfoHash(info_hash(3));
    poll(CREDITED, "both are counted", || {
        let sql = "SELECT uploaded FROM torrents WHERE id = 4";
        site.database.row::<1>(sql) == [12]
            && site
                .redis
                .cli(&["HGET", &format!("t:t:{hash}"), "uploaded"])
                == "12"
    });
}

#[test]
fn a_batch_that_comes_right_after_the_flush_is_counted_once() {
    let mut site = prepare();
    site.mika.run();
    let node = site.mika.http();
    announce(&site, node);
    let mut client = Client::new(0, 3);
    client.accepted(node, "started");
    for round in 1..=3 {
        site.redis.cli(&["FLUSHALL"]);
        client.uploaded = round * 1000;
        client.accepted(node, "");
        let expected = client.uploaded.to_string();
        poll(RESTORED, "the cache counts what storage has", || {
            let sql = "SELECT uploaded FROM users WHERE id = 1";
            let stored = site.database.row::<1>(sql)[0].to_string();
            stored == expected && site.redis.cli(&["HGET", "t:u:1", "uploaded"]) == expected
        });
    }
}

#[test]
fn a_warmup_writes_the_sets_of_users() {
    let mut site = prepare();
    site.mika.run();
    announce(&site, site.mika.http());
    assert_eq!(site.mika.stop(), 0);
    let sets = |redis: &Redis| {
        let all = shown(redis);
        let of_sets = |line: &&str| line.starts_with("t:u:") && !line.contains("passkey");
        let found: Vec<String> = all.lines().filter(of_sets).map(Into::into).collect();
        found
    };
    let before = sets(&site.redis);
    assert!(before.iter().any(|it| it == "t:u:hnr:2: 3"), "{before:?}");
    site.redis.cli(&["FLUSHALL"]);
    site.mika.managed(&["warmup"]);
    assert_eq!(sets(&site.redis), before);
    // A deleted key, and one with too much in it.
    site.redis.cli(&["DEL", "t:u:hnr:2"]);
    site.redis.cli(&["SADD", "t:u:hnr:1", "3"]);
    site.mika.managed(&["warmup"]);
    assert_eq!(sets(&site.redis), before);
}

#[test]
fn running_nodes_correct_the_sets_of_a_warmup() {
    let mut site = prepare();
    site.mika.run();
    let node = site.mika.http();
    announce(&site, node);
    // What storage has of a peer is older than what the node knows.
    site.database
        .sql("UPDATE peers SET active = 0 WHERE user_id = 3; UPDATE history SET hnr = 1 WHERE user_id = 3");
    site.mika.managed(&["warmup"]);
    poll(RESTORED, "the node has put it right", || {
        members(&site.redis, "active", 3) == "2" && members(&site.redis, "hnr", 3).is_empty()
    });
}
