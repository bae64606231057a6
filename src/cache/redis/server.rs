//! The server: its version, clock, settings, and permissions.

use redis::{Cmd, Value, cmd};

use super::commands::Commands;
use super::connection::Info;
use super::fault::is_denied;
use super::link::RedisLink;
use super::place::Place;
use super::reply;
use super::session::RedisSession;
use super::{cluster, keys, sentinel};
use crate::cache::{CacheError, CacheFinding};

/// The oldest supported server: it added `XTRIM MINID`.
const OLDEST: (u32, u32) = (6, 2);

/// A key that does not exist, to try permissions on.
const PROBE: &str = "t:check";

/// Keys that were evicted since the servers' start.
pub(super) async fn evicted(link: &RedisLink) -> Result<u64, CacheError> {
    let session = link.session().await?;
    let mut evicted = 0;
    for index in 0..session.view.servers.len() {
        let info = session.info(index, "stats").await?;
        evicted += info.number("evicted_keys").unwrap_or(0);
    }
    Ok(evicted)
}

/// The clock of a server that answers.
pub(super) async fn time(link: &RedisLink) -> Result<i64, CacheError> {
    let session = link.session().await?;
    let mut servers = session.view.servers.iter();
    let index = servers.position(|server| server.connection.is_some());
    let info = session.info(index.unwrap_or(0), "server").await?;
    let micros = info.number("server_time_usec");
    micros
        .and_then(|micros| i64::try_from(micros / 1_000_000).ok())
        .ok_or_else(|| link.unexpected("INFO"))
}

pub(super) async fn check(link: &RedisLink) -> Result<Vec<CacheFinding>, CacheError> {
    let session = link.session().await?;
    let mut all = Vec::new();
    for index in connected(&session) {
        let mut findings = Vec::new();
        let info = session.info(index, "server").await?;
        kind(&info, link.is_cluster(), &mut findings);
        let replication = session.info(index, "replication").await?;
        role(&replication, &mut findings);
        if link.is_cluster() {
            replicas(&replication, &mut findings);
        }
        safety(&session, index, &mut findings).await?;
        if let Some(policy) = session.setting(index, "appendfsync").await? {
            sync(&policy, &mut findings);
        }
        if let Some(events) = session.setting(index, "notify-keyspace-events").await? {
            keyspace_events(&events, &mut findings);
        }
        permissions(&session, index, &mut findings).await?;
        add(&session, index, findings, &mut all);
    }
    if link.is_cluster() {
        whole(&session, &mut all);
        coverage(&session, &mut all).await?;
    }
    if let Place::Sentinel(place) = &link.place {
        all.extend(sentinel::check(link, place).await);
    }
    Ok(all)
}

/// Whether all servers log writes to their disks.
pub(super) async fn is_persistent(link: &RedisLink) -> Result<bool, CacheError> {
    let session = link.session().await?;
    for index in 0..session.view.servers.len() {
        if !session.info(index, "persistence").await?.has_log() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks whether servers evict keys when they are full, whether their data survives a crash, and whether all of a
/// cluster is there.
pub(super) async fn inspect(link: &RedisLink) -> Result<Vec<CacheFinding>, CacheError> {
    let session = link.session().await?;
    let mut all = Vec::new();
    for index in connected(&session) {
        let mut findings = Vec::new();
        safety(&session, index, &mut findings).await?;
        add(&session, index, findings, &mut all);
    }
    if link.is_cluster() {
        whole(&session, &mut all);
    }
    Ok(all)
}

/// The indices of the servers that are connected.
fn connected(session: &RedisSession<'_>) -> impl Iterator<Item = usize> {
    let servers = session.view.servers.iter().enumerate();
    servers.filter_map(|(index, server)| server.connection.as_ref().map(|_| index))
}

/// Adds what was found on one server; of several, the problem names it.
fn add(
    session: &RedisSession<'_>,
    index: usize,
    findings: Vec<CacheFinding>,
    all: &mut Vec<CacheFinding>,
) {
    let server = session.view.servers.get(index);
    let address = server.and_then(|server| server.address.as_ref());
    all.extend(findings.into_iter().map(|finding| CacheFinding {
        problem: match address {
            Some(address) => format!("{address}: {}", finding.problem),
            None => finding.problem,
        },
        ..finding
    }));
}

async fn safety(
    session: &RedisSession<'_>,
    index: usize,
    findings: &mut Vec<CacheFinding>,
) -> Result<(), CacheError> {
    memory(&session.info(index, "memory").await?, findings);
    persistence(&session.info(index, "persistence").await?, findings);
    Ok(())
}

/// Whether every master is there, and every slot is served.
fn whole(session: &RedisSession<'_>, findings: &mut Vec<CacheFinding>) {
    if let Some(problem) = session.view.problem() {
        findings.push(CacheFinding::problem(
            format!("a part of the cluster is away: {problem}"),
            "start that server, or promote a replica of it with CLUSTER FAILOVER; redis-cli --cluster check shows what is \
             missing",
        ));
    }
}

/// Settings that decide what a cluster does when a part of it is away. Those of one master stand for all.
async fn coverage(
    session: &RedisSession<'_>,
    findings: &mut Vec<CacheFinding>,
) -> Result<(), CacheError> {
    let Some(index) = connected(session).next() else {
        return Ok(());
    };
    let full = session
        .setting(index, "cluster-require-full-coverage")
        .await?;
    if full.as_deref() == Some("yes") {
        findings.push(CacheFinding::note(
            "cluster-require-full-coverage is yes: while one master is away, the whole cluster takes no commands".into(),
            "set it to no on all servers, so that the other masters go on",
        ));
    }
    Ok(())
}

/// Whether a master of a cluster has a replica that could take over.
fn replicas(info: &Info, findings: &mut Vec<CacheFinding>) {
    if info.number("connected_slaves") == Some(0) {
        findings.push(CacheFinding::note(
            "this master has no replica: while it is away, so are its slots".into(),
            "add a replica with redis-cli --cluster add-node --cluster-slave",
        ));
    }
}

fn kind(info: &Info, is_cluster: bool, findings: &mut Vec<CacheFinding>) {
    // Valkey has its own names, unless it is to look like Redis.
    let mode = info.text("redis_mode").or_else(|| info.text("server_mode"));
    if mode == Some("cluster") && !is_cluster {
        findings.push(CacheFinding::problem(
            "the server is part of a Redis Cluster".into(),
            "write cache.url as redis+cluster://HOST:PORT,HOST:PORT",
        ));
    }
    // Valkey also reports the version of Redis that it is compatible with. Its first release was 7.2.
    if info.text("valkey_version").is_some() || info.text("server_name") == Some("valkey") {
        return;
    }
    let version = info.text("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if numbers < OLDEST {
        findings.push(CacheFinding::problem(
            format!("Redis {version} is too old"),
            "install Redis 6.2 or newer, or Valkey",
        ));
    }
}

fn role(info: &Info, findings: &mut Vec<CacheFinding>) {
    if info.text("role") == Some("slave") {
        findings.push(CacheFinding::problem(
            "the server is a replica, which takes no writes".into(),
            "name the primary in cache.url",
        ));
    }
}

fn memory(info: &Info, findings: &mut Vec<CacheFinding>) {
    let policy = info.text("maxmemory_policy").unwrap_or("noeviction");
    // Of Mika's keys, only leases expire, and they may be evicted.
    if policy.starts_with("allkeys") {
        findings.push(CacheFinding::problem(
            format!(
                "maxmemory-policy is {policy}: a full server throws away users, peers and credit"
            ),
            "set maxmemory-policy noeviction in redis.conf and with CONFIG SET",
        ));
    }
}

fn persistence(info: &Info, findings: &mut Vec<CacheFinding>) {
    if !info.has_log() {
        findings.push(CacheFinding::note(
            "appendonly is off: each node writes a batch to its spill file before it answers, and after a \
             restart Redis is filled again from storage and the nodes"
                .into(),
            "set appendonly yes and appendfsync everysec in redis.conf to spare that",
        ));
    }
    for (field, what) in [
        ("aof_last_write_status", "append to its AOF file"),
        ("aof_last_bgrewrite_status", "rewrite its AOF file"),
        ("rdb_last_bgsave_status", "save its snapshot"),
    ] {
        if info.text(field) == Some("err") {
            findings.push(CacheFinding::problem(
                format!("Redis could not {what}, and may refuse writes"),
                "look at Redis' log, and at the free space on its disk",
            ));
        }
    }
}

/// How often the AOF is synced. What a crash of the machine loses is sent again by the nodes.
fn sync(policy: &str, findings: &mut Vec<CacheFinding>) {
    if policy == "no" {
        findings.push(CacheFinding::note(
            "appendfsync is no: a crash of the machine loses up to half a minute of writes, for good if a node \
             dies with it"
                .into(),
            "set appendfsync everysec in redis.conf and with CONFIG SET",
        ));
    }
}

fn keyspace_events(events: &str, findings: &mut Vec<CacheFinding>) {
    if !events.is_empty() {
        findings.push(CacheFinding::note(
            format!("notify-keyspace-events is {events:?}: each write of Mika's costs Redis more"),
            "set notify-keyspace-events \"\" unless another program needs it",
        ));
    }
}

/// Tries each command in a form without effect: the server checks permissions first.
async fn permissions(
    session: &RedisSession<'_>,
    index: usize,
    findings: &mut Vec<CacheFinding>,
) -> Result<(), CacheError> {
    let mut probes = probes();
    if session.link.is_cluster() {
        probes.extend(cluster::probes());
    }
    // A set command can only be tried on a key with a hash.
    let registry = cmd("HEXISTS").arg(keys::REGISTRY).arg("position").take();
    if session.run_at(index, registry.into(), |_| true).await? == [Value::Int(1)] {
        let add = cmd("SADD").arg(keys::REGISTRY).arg("x").take();
        probes.push(("sadd", add));
    }
    let (names, commands): (Vec<&str>, Vec<Cmd>) = probes.into_iter().unzip();
    let commands: Commands = commands.into_iter().collect();
    let replies = session.run_at(index, commands, |_| true).await?;
    let is_refused = |reply: &Value| matches!(reply, Value::ServerError(it) if is_denied(it));
    let missing: Vec<String> = names
        .into_iter()
        .zip(&replies)
        .filter(|(_, reply)| is_refused(reply))
        .map(|(name, _)| format!("+{name}"))
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        findings.push(CacheFinding::problem(
            format!("Mika's user of Redis lacks permissions on t:*: {missing}"),
            "grant them with ACL SETUSER, as docs/redis.md says",
        ));
    }
    Ok(())
}

/// Commands without effect, because the key is missing or an argument is invalid.
fn probes() -> Vec<(&'static str, Cmd)> {
    const PROBES: &[(&str, &[&str])] = &[
        ("scan", &["SCAN", "0", "COUNT", "1"]),
        ("get", &["GET", PROBE]),
        ("set", &["SET", PROBE, "x", "XX"]),
        ("incrby", &["INCRBY", PROBE, "x"]),
        ("pexpire", &["PEXPIRE", PROBE, "1"]),
        ("unlink", &["UNLINK", PROBE]),
        ("hget", &["HGET", PROBE, "x"]),
        ("hset", &["HSET", PROBE, "x", "x", "x"]),
        ("hdel", &["HDEL", PROBE, "x"]),
        ("hexists", &["HEXISTS", PROBE, "x"]),
        ("hincrby", &["HINCRBY", PROBE, "x", "x"]),
        ("hmget", &["HMGET", PROBE, "x"]),
        ("hgetall", &["HGETALL", PROBE]),
        ("hkeys", &["HKEYS", PROBE]),
        ("srem", &["SREM", PROBE, "x"]),
        ("zadd", &["ZADD", PROBE, "x", "x"]),
        ("zincrby", &["ZINCRBY", PROBE, "x", "x"]),
        ("zrem", &["ZREM", PROBE, "x"]),
        ("xadd", &["XADD", PROBE, "NOMKSTREAM", "*", "x", "x"]),
        ("xtrim", &["XTRIM", PROBE, "MINID", "=", "1"]),
        ("xrange", &["XRANGE", PROBE, "-", "+", "COUNT", "1"]),
        ("xread", &["XREAD", "COUNT", "1", "STREAMS", PROBE, "0"]),
        ("xinfo|stream", &["XINFO", "STREAM", PROBE]),
        (
            "evalsha",
            &[
                "EVALSHA",
                "0000000000000000000000000000000000000000",
                "1",
                PROBE,
            ],
        ),
        ("script|load", &["SCRIPT", "LOAD", "return 1"]),
    ];
    let command = |words: &[&str]| {
        let mut command = Cmd::new();
        command.arg(words);
        command
    };
    let probe = |(name, words): &(&'static str, &[&str])| (*name, command(words));
    PROBES.iter().map(probe).collect()
}

// === impl RedisSession ===

impl RedisSession<'_> {
    async fn info(&self, index: usize, section: &str) -> Result<Info, CacheError> {
        let answer = self.one_at(index, cmd("INFO").arg(section).take()).await?;
        Ok(Info::of(reply::text(answer).unwrap_or_default()))
    }

    /// One setting; none if Mika's user may not read it.
    async fn setting(&self, index: usize, name: &str) -> Result<Option<String>, CacheError> {
        let get = cmd("CONFIG").arg("GET").arg(name).take();
        let replies = self.run_at(index, get.into(), |_| true).await?;
        let pairs = replies.into_iter().next().and_then(reply::pairs);
        let value = pairs.and_then(|pairs| pairs.into_iter().next());
        Ok(value.and_then(|(_, value)| reply::text(value)))
    }
}

// === impl Info ===

impl Info {
    fn has_log(&self) -> bool {
        self.text("aof_enabled") == Some("1")
    }
}

// === impl CacheFinding ===

impl CacheFinding {
    pub(super) fn problem(problem: String, hint: &str) -> Self {
        Self {
            problem,
            hint: hint.into(),
            is_note: false,
        }
    }

    pub(super) fn note(problem: String, hint: &str) -> Self {
        Self {
            is_note: true,
            ..Self::problem(problem, hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(judge: fn(&Info, &mut Vec<CacheFinding>), info: &str) -> Vec<CacheFinding> {
        let mut findings = Vec::new();
        judge(&Info::of(info), &mut findings);
        findings
    }

    #[test]
    fn a_policy_that_evicts_mikas_keys_is_a_problem() {
        for (policy, is_fine) in [
            ("noeviction", true),
            ("volatile-lru", true),
            ("allkeys-lru", false),
            ("allkeys-random", false),
        ] {
            let found = problems(
                memory,
                &format!("maxmemory:0\r\nmaxmemory_policy:{policy}\r\n"),
            );
            assert_eq!(found.is_empty(), is_fine, "{policy}");
            assert!(
                found
                    .iter()
                    .all(|finding| !finding.is_note && finding.hint.contains("noeviction"))
            );
        }
    }

    #[test]
    fn old_servers_and_unexpected_clusters_are_problems() {
        for (version, is_fine) in [
            ("6.0.16", false),
            ("6.2.0", true),
            ("7.2.4", true),
            ("", false),
        ] {
            let info = format!("redis_version:{version}\r\nredis_mode:standalone\r\n");
            let found = problems(|info, found| kind(info, false, found), &info);
            assert_eq!(found.is_empty(), is_fine, "{version}");
        }
        let info = "redis_version:7.0.0\r\nredis_mode:cluster\r\n";
        assert_eq!(
            problems(|info, found| kind(info, false, found), info).len(),
            1
        );
        assert_eq!(
            problems(|info, found| kind(info, true, found), info).len(),
            0
        );
        let info = "server_name:valkey\r\nserver_mode:cluster\r\nvalkey_version:9.1.2\r\n";
        assert_eq!(
            problems(|info, found| kind(info, false, found), info).len(),
            1
        );
        let info = "server_name:valkey\r\nvalkey_version:9.1.2\r\nredis_version:x\r\n";
        assert_eq!(
            problems(|info, found| kind(info, false, found), info).len(),
            0
        );
        assert_eq!(problems(role, "role:slave\r\n").len(), 1);
        assert_eq!(problems(role, "role:master\r\n").len(), 0);
    }

    #[test]
    fn a_log_that_nobody_syncs_is_a_note() {
        for (policy, count) in [("always", 0), ("everysec", 0), ("no", 1)] {
            let mut findings = Vec::new();
            sync(policy, &mut findings);
            assert_eq!(findings.len(), count, "{policy}");
            assert!(findings.iter().all(|finding| finding.is_note));
        }
    }

    #[test]
    fn no_persistence_is_a_note_and_a_failed_write_a_problem() {
        let found = problems(persistence, "aof_enabled:0\r\naof_last_write_status:ok\r\n");
        assert!(matches!(&found[..], [one] if one.is_note), "{found:?}");
        let found = problems(
            persistence,
            "aof_enabled:1\r\naof_last_write_status:err\r\n",
        );
        assert!(matches!(&found[..], [one] if !one.is_note), "{found:?}");
    }
}
