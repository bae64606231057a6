//! The marks: fields beside the epoch, each with the run of the server in which it was made.

use redis::cmd;

use super::link::RedisLink;
use super::{epoch, keys, reply};
use crate::cache::{CacheError, Generation, Mark};

fn field(mark: Mark) -> &'static str {
    match mark {
        Mark::Registry => "position",
        Mark::Peers => "peers",
    }
}

/// The text of a mark, if it was made in this run of the server: a restarted one may have lost what was
/// written before the mark.
pub(super) async fn get(link: &RedisLink, mark: Mark) -> Result<Option<String>, CacheError> {
    let session = link.session().await?;
    let ask = cmd("HGET").arg(keys::REGISTRY).arg(field(mark)).take();
    let Some(text) = reply::text(session.one(ask).await?) else {
        return Ok(None);
    };
    let run = epoch::run(link, &session).await?;
    let of_this_run = text.strip_suffix(&*run);
    Ok(of_this_run
        .and_then(|text| text.strip_suffix('@'))
        .map(str::to_owned))
}

/// Writes a mark, fenced: only to the server run that got everything before it, and only while it has all
/// of it.
pub(super) async fn set(
    link: &RedisLink,
    mark: Mark,
    text: Option<(Generation, &str)>,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    let forget = cmd("HDEL").arg(keys::REGISTRY).arg(field(mark)).take();
    let Some((generation, text)) = text else {
        return session.one(forget).await.map(drop);
    };
    let now = epoch::compare(link, &session).await?;
    if now != generation || session.generation() != generation {
        return Err(CacheError::Restarted(now));
    }
    if link.has_missed() {
        return Err(link.incomplete());
    }
    let run = epoch::run(link, &session).await?;
    let mut set = cmd("HSET");
    set.arg(keys::REGISTRY)
        .arg(field(mark))
        .arg(format!("{text}@{run}"));
    session.one(set).await?;
    // A batch that missed a part meanwhile may have removed the mark before it was written.
    if mark == Mark::Peers && link.has_missed() {
        session.one(forget).await?;
        return Err(link.incomplete());
    }
    Ok(())
}
