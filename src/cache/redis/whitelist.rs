//! The whitelist, and the marks: how far the registry here follows storage.

use std::collections::HashSet;

use redis::cmd;

use super::commands::{Commands, Fields};
use super::link::RedisLink;
use super::{epoch, keys, reply};
use crate::cache::{CacheError, Generation, Mirrored};
use crate::registry::ClientPrefix;

/// The version of the registry's keys: a cache filled by another version is filled again. Version 2: the
/// sets of users are restored from storage.
const LAYOUT: &str = "2";

/// Adds new clients first, then removes others: a client that stays is never missing.
pub(super) async fn put(link: &RedisLink, clients: &[ClientPrefix]) -> Result<(), CacheError> {
    let session = link.session().await?;
    let names = session
        .one(cmd("HKEYS").arg(keys::WHITELIST).take())
        .await?;
    let names = reply::list(names).ok_or_else(|| link.unexpected("HKEYS"))?;
    let mut commands = Commands::default();
    let mut set = Fields::new("HSET", keys::WHITELIST);
    for client in clients {
        set.add(&mut commands, &[&client.prefix, &client.name]);
    }
    set.end(&mut commands);
    let stay: HashSet<&str> = clients
        .iter()
        .map(|client| client.prefix.as_str())
        .collect();
    for name in names.into_iter().filter_map(reply::bytes) {
        if std::str::from_utf8(&name).is_ok_and(|name| stay.contains(name)) {
            continue;
        }
        commands.push(cmd("HDEL").arg(keys::WHITELIST).arg(name).take());
    }
    session.run(commands).await.map(drop)
}

pub(super) async fn get(link: &RedisLink) -> Result<Vec<ClientPrefix>, CacheError> {
    let session = link.session().await?;
    let all = session.one(cmd("HGETALL").arg(keys::WHITELIST).take());
    let all = reply::pairs(all.await?).ok_or_else(|| link.unexpected("HGETALL"))?;
    let mut clients = Vec::with_capacity(all.len());
    for (prefix, name) in all {
        // An empty prefix would allow every client, so it is no prefix.
        if (1..=20).contains(&prefix.len()) {
            let name = reply::text(name).unwrap_or_default();
            clients.push(ClientPrefix { prefix, name });
        } else {
            tracing::debug!(%prefix, "skipped a client prefix in the cache: not 1 to 20 bytes");
        }
    }
    Ok(clients)
}

pub(super) async fn mirrored(link: &RedisLink) -> Result<Option<Mirrored>, CacheError> {
    let mark = marked(link, "position").await?;
    Ok(mark.as_deref().and_then(mirrored_of))
}

/// What [`set_mirrored`] wrote; none if it was written by a version with other keys.
fn mirrored_of(mark: &str) -> Option<Mirrored> {
    let parts: Vec<&str> = mark.split('/').collect();
    let [position, LAYOUT, evicted, storage] = parts[..] else {
        return None;
    };
    Some(Mirrored {
        position: position.parse().ok()?,
        evicted: evicted.parse().ok()?,
        storage: storage.to_owned(),
    })
}

pub(super) async fn set_mirrored(
    link: &RedisLink,
    generation: Generation,
    mirrored: Mirrored,
) -> Result<(), CacheError> {
    let Mirrored {
        position,
        storage,
        evicted,
    } = mirrored;
    let value = format!("{position}/{LAYOUT}/{evicted}/{storage}");
    mark(link, generation, "position", &value).await
}

pub(super) async fn forget_mirrored(link: &RedisLink) -> Result<(), CacheError> {
    forget(link, "position").await
}

pub(super) async fn forget_peers(link: &RedisLink) -> Result<(), CacheError> {
    forget(link, "peers").await
}

async fn forget(link: &RedisLink, field: &str) -> Result<(), CacheError> {
    let forget = cmd("HDEL").arg(keys::REGISTRY).arg(field).take();
    link.session().await?.one(forget).await.map(drop)
}

pub(super) async fn has_all_peers(link: &RedisLink) -> Result<bool, CacheError> {
    Ok(marked(link, "peers").await?.as_deref() == Some("all"))
}

pub(super) async fn set_has_all_peers(
    link: &RedisLink,
    generation: Generation,
) -> Result<(), CacheError> {
    mark(link, generation, "peers", "all").await
}

/// The value of a mark, if it was made in this run of the server: a restarted one may have lost what was
/// written before the mark.
async fn marked(link: &RedisLink, field: &str) -> Result<Option<String>, CacheError> {
    let session = link.session().await?;
    let ask = cmd("HGET").arg(keys::REGISTRY).arg(field).take();
    let Some(mark) = reply::text(session.one(ask).await?) else {
        return Ok(None);
    };
    let of_this_run = mark.strip_suffix(session.run_id());
    Ok(of_this_run
        .and_then(|value| value.strip_suffix('@'))
        .map(str::to_owned))
}

/// Writes a mark, fenced: only to the server run that got everything before it, and only while it has all
/// of it.
async fn mark(
    link: &RedisLink,
    generation: Generation,
    field: &str,
    value: &str,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    let now = epoch::compare(link, &session).await?;
    if now != generation || session.generation() != generation {
        return Err(CacheError::Restarted(now));
    }
    let mut set = cmd("HSET");
    set.arg(keys::REGISTRY)
        .arg(field)
        .arg(format!("{value}@{}", session.run_id()));
    session.one(set).await.map(drop)
}
