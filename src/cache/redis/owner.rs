//! The database that the keys belong to: a field beside the marks, lost with them when the server is emptied.

use redis::cmd;

use super::link::RedisLink;
use super::{keys, reply};
use crate::cache::CacheError;

const FIELD: &str = "database";

/// Writes the field if it is missing or has the former value; returns the value that it has after that.
const SET: &str = r"
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or owner == ARGV[3] then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    return ARGV[2]
end
return owner
";

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
    let load = cmd("SCRIPT").arg("LOAD").arg(SET).take();
    let script = reply::text(session.one(load).await?);
    let script = script.ok_or_else(|| link.unexpected("SCRIPT"))?;
    let mut set = cmd("EVALSHA");
    set.arg(script).arg(1).arg(keys::REGISTRY).arg(FIELD);
    // No database has an empty identity, so an empty one never matches.
    set.arg(database).arg(former.unwrap_or_default());
    let owner = reply::text(session.one(set).await?);
    owner.ok_or_else(|| link.unexpected("EVALSHA"))
}
