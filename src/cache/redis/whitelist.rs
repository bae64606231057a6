//! The whitelist.

use std::collections::HashSet;

use redis::cmd;

use super::commands::{Commands, Fields};
use super::link::RedisLink;
use super::{keys, reply};
use crate::cache::CacheError;
use crate::registry::ClientPrefix;

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
