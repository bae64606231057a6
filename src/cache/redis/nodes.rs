//! What nodes share about themselves: heartbeats, how far ended journals were replayed, leases, and common
//! counters.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::commands::Commands;
use super::link::RedisLink;
use super::{epoch, keys, reply};
use crate::cache::{CacheError, NodeStats, Replayed};

pub(super) async fn beat(link: &RedisLink, node: &str, sign: &str) -> Result<(), CacheError> {
    let set = cmd("HSET").arg(keys::NODES).arg(node).arg(sign).take();
    link.session().await?.one(set).await?;
    epoch::begin(link).await.map(drop)
}

pub(super) async fn nodes(link: &RedisLink) -> Result<Vec<(String, String)>, CacheError> {
    let all = cmd("HGETALL").arg(keys::NODES).take();
    let all = reply::pairs(link.session().await?.one(all).await?);
    let all = all.ok_or_else(|| link.unexpected("HGETALL"))?;
    let node = |(name, sign)| (name, reply::text(sign).unwrap_or_default());
    Ok(all.into_iter().map(node).collect())
}

pub(super) async fn leave(link: &RedisLink, node: &str) -> Result<(), CacheError> {
    let remove = |key| cmd("HDEL").arg(key).arg(node).take();
    let mut commands = Commands::from(remove(keys::REPLAYED));
    // What is off the list is not removed by anybody else.
    commands.barrier();
    commands.push(remove(keys::NODES));
    link.session().await?.run(commands).await.map(drop)
}

pub(super) async fn replayed(link: &RedisLink) -> Result<Vec<(String, Replayed)>, CacheError> {
    let all = cmd("HGETALL").arg(keys::REPLAYED).take();
    let all = reply::pairs(link.session().await?.one(all).await?);
    let all = all.ok_or_else(|| link.unexpected("HGETALL"))?;
    let replayed = |(journal, note)| Some((journal, replayed_of(&reply::text(note)?)?));
    Ok(all.into_iter().filter_map(replayed).collect())
}

pub(super) async fn set_replayed(
    link: &RedisLink,
    journal: &str,
    replayed: Replayed,
) -> Result<(), CacheError> {
    let note = format!("{} {}", replayed.number, replayed.at);
    let set = cmd("HSET")
        .arg(keys::REPLAYED)
        .arg(journal)
        .arg(note)
        .take();
    link.session().await?.one(set).await.map(drop)
}

/// None if it is no note of Mika's: all of that journal is read again then.
fn replayed_of(note: &str) -> Option<Replayed> {
    let (number, at) = note.split_once(' ')?;
    Some(Replayed {
        number: number.parse().ok()?,
        at: at.parse().ok()?,
    })
}

/// Renews the lease before reading its holder: if it is ours when read, it was ours when renewed, because no
/// other node sets it to ours. Renewing another node's lease is harmless.
pub(super) async fn lease(
    link: &RedisLink,
    name: &str,
    holder: &str,
    time: Duration,
) -> Result<bool, CacheError> {
    let key = keys::lease(name);
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let session = link.session().await?;
    // Whether a command on the lease changed it, and whether it is ours after that.
    let then_read = async |change: Cmd| {
        let mut commands = Commands::from(change);
        commands.push(cmd("GET").arg(&key).take());
        let mut replies = session.run(commands).await?.into_iter();
        let has_changed = replies.next().is_some_and(|reply| reply != Value::Nil);
        let owner = replies.next().and_then(reply::text);
        Ok::<_, CacheError>((has_changed, owner.as_deref() == Some(holder)))
    };
    let mut take = cmd("SET");
    take.arg(&key).arg(holder).arg("NX").arg("PX").arg(millis);
    let (is_new, is_ours) = then_read(take).await?;
    if is_new || !is_ours {
        return Ok(is_new);
    }
    let (_, is_ours) = then_read(cmd("PEXPIRE").arg(&key).arg(millis).take()).await?;
    Ok(is_ours)
}

pub(super) async fn add_stats(link: &RedisLink, stats: NodeStats) -> Result<(), CacheError> {
    let command = |name, key, number: u64| cmd(name).arg(key).arg(number).take();
    let commands: Commands = [
        command("INCRBY", keys::STATS_ANNOUNCES, stats.announces),
        command("INCRBY", keys::STATS_SCRAPES, stats.scrapes),
        command("SET", keys::STATS_SEEDERS, stats.seeders),
        command("SET", keys::STATS_LEECHERS, stats.leechers),
    ]
    .into_iter()
    .collect();
    link.session().await?.run(commands).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_a_number_and_a_time() {
        let known = Replayed { number: 7, at: -5 };
        assert_eq!(replayed_of("7 -5"), Some(known));
        for note in ["", "7", "7 ", "x 5", "-7 5", "7 5 5"] {
            assert_eq!(replayed_of(note), None, "{note:?}");
        }
    }
}
