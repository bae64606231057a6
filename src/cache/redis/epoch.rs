//! The epoch: a random text beside the marks. If it is missing, the server was emptied.

use redis::{Value, cmd};

use super::fault::is_denied;
use super::link::{RedisLink, RedisSession};
use super::{keys, reply};
use crate::cache::{CacheError, Generation};

const FIELD: &str = "epoch";

/// Writes an epoch if there is none; returns the present one.
const BEGIN: &str = r"
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], ARGV[1])
";

/// The result of reading the epoch.
enum Seen {
    Epoch(Option<String>),
    /// Mika's user may not read it.
    Denied,
}

/// Pings the server, and compares its epoch.
pub(super) async fn ping(link: &RedisLink) -> Result<Generation, CacheError> {
    let session = link.session().await?;
    session.one(cmd("PING")).await?;
    compare(link, &session).await
}

/// The generation of a session by the epoch that its server has now.
pub(super) async fn compare(
    link: &RedisLink,
    session: &RedisSession<'_>,
) -> Result<Generation, CacheError> {
    Ok(match look(session).await? {
        Seen::Epoch(epoch) => link.saw_epoch(session, epoch),
        Seen::Denied => session.generation(),
    })
}

/// Begins an epoch unless there is one.
pub(super) async fn begin(link: &RedisLink) -> Result<Generation, CacheError> {
    let session = link.session().await?;
    let epoch = match look(&session).await? {
        Seen::Denied => return Ok(session.generation()),
        Seen::Epoch(Some(epoch)) => Some(epoch),
        Seen::Epoch(None) => {
            let load = cmd("SCRIPT").arg("LOAD").arg(BEGIN).take();
            let script = reply::text(session.one(load).await?);
            let script = script.ok_or_else(|| link.unexpected("SCRIPT"))?;
            let mut begin = cmd("EVALSHA");
            begin.arg(script).arg(1).arg(keys::REGISTRY).arg(FIELD);
            begin.arg(format!("{:032x}", fastrand::u128(..)));
            reply::text(session.one(begin).await?)
        }
    };
    Ok(link.saw_epoch(&session, epoch))
}

async fn look(session: &RedisSession<'_>) -> Result<Seen, CacheError> {
    let ask = cmd("HGET").arg(keys::REGISTRY).arg(FIELD).take();
    // If the user may not read it, the first command that matters reports it.
    let replies = session.run_tolerant(ask, is_denied).await?;
    Ok(match replies.into_iter().next() {
        Some(Value::ServerError(_)) => Seen::Denied,
        reply => Seen::Epoch(reply.and_then(reply::text)),
    })
}
