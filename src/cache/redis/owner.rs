//! The database that the keys belong to: a field beside the marks, lost with them when the server is emptied.

use redis::cmd;

use super::commands::{Commands, Script};
use super::link::RedisLink;
use super::{keys, reply};
use crate::cache::CacheError;

const FIELD: &str = "database";

/// Writes the field if it is missing or has the former value; returns the value that it has after that.
static SET: Script = Script::new(
    r"
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or owner == ARGV[3] then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    return ARGV[2]
end
return owner
",
);

pub(super) async fn database(link: &RedisLink) -> Result<Option<String>, CacheError> {
    let ask = cmd("HGET").arg(keys::REGISTRY).arg(FIELD).take();
    Ok(reply::text(link.session().await?.one(ask).await?))
}

pub(super) async fn set_database(
    link: &RedisLink,
    database: &str,
    former: Option<&str>,
) -> Result<String, CacheError> {
    let session = link.session().await?;
    let mut commands = Commands::with_script(&SET);
    let mut set = SET.call(keys::REGISTRY);
    // No database has an empty identity, so an empty one never matches.
    set.arg(FIELD).arg(database).arg(former.unwrap_or_default());
    commands.push(set);
    let replies = session.run(commands).await?;
    let owner = replies.into_iter().next().and_then(reply::text);
    owner.ok_or_else(|| link.unexpected("EVALSHA"))
}
