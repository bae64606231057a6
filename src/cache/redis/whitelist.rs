//! The whitelist, and how far the registry here follows storage.

use std::collections::HashSet;

use redis::cmd;

use super::commands::{Commands, Fields};
use super::link::Link;
use super::{keys, reply};
use crate::cache::{CacheError, Generation, Mirrored};
use crate::registry::Client;

/// What is new first, then what is gone: a client that stays is never missing.
pub(super) async fn put(link: &Link, clients: &[Client]) -> Result<(), CacheError> {
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
    let stay: HashSet<&str> = clients.iter().map(|it| it.prefix.as_str()).collect();
    for name in names.into_iter().filter_map(reply::bytes) {
        if std::str::from_utf8(&name).is_ok_and(|name| stay.contains(name)) {
            continue;
        }
        commands.push(cmd("HDEL").arg(keys::WHITELIST).arg(name).take());
    }
    session.run(commands).await.map(drop)
}

pub(super) async fn get(link: &Link) -> Result<Vec<Client>, CacheError> {
    let session = link.session().await?;
    let all = session.one(cmd("HGETALL").arg(keys::WHITELIST).take());
    let all = reply::pairs(all.await?).ok_or_else(|| link.unexpected("HGETALL"))?;
    let mut clients = Vec::with_capacity(all.len());
    for (prefix, name) in all {
        // An empty prefix would allow every client, so it is no prefix.
        if (1..=20).contains(&prefix.len()) {
            let name = reply::text(name).unwrap_or_default();
            clients.push(Client { prefix, name });
        } else {
            tracing::debug!(%prefix, "client in the cache passed over: not 1 to 20 characters");
        }
    }
    Ok(clients)
}

pub(super) async fn mirrored(link: &Link) -> Result<Option<Mirrored>, CacheError> {
    let ask = cmd("HGET").arg(keys::REGISTRY).arg("position").take();
    let position = link.session().await?.one(ask).await?;
    let position = reply::text(position).and_then(|text| text.parse().ok());
    Ok(position.map(|position| Mirrored { position }))
}

pub(super) async fn set_mirrored(
    link: &Link,
    generation: Generation,
    mirrored: Mirrored,
) -> Result<(), CacheError> {
    mark(link, generation, "position", mirrored.position).await
}

pub(super) async fn has_all_peers(link: &Link) -> Result<bool, CacheError> {
    let ask = cmd("HGET").arg(keys::REGISTRY).arg("peers").take();
    let mark = link.session().await?.one(ask).await?;
    Ok(reply::text(mark).as_deref() == Some("1"))
}

pub(super) async fn set_has_all_peers(
    link: &Link,
    generation: Generation,
) -> Result<(), CacheError> {
    mark(link, generation, "peers", 1).await
}

/// Writes a mark to the server that everything before it went to, and to no other.
async fn mark(
    link: &Link,
    generation: Generation,
    field: &str,
    value: u64,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    if session.generation() != generation {
        return Err(CacheError::Restarted(session.generation()));
    }
    let mut set = cmd("HSET");
    set.arg(keys::REGISTRY).arg(field).arg(value);
    session.one(set).await.map(drop)
}
