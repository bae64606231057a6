//! The marks: fields beside the epoch, each with the run of the server in which it was made.

use redis::{Cmd, Value, cmd};

use super::commands::{Commands, Script};
use super::link::RedisLink;
use super::session::RedisSession;
use super::{epoch, keys, reply};
use crate::cache::{CacheError, Generation, Mark};

/// Sets a field if the server still has the epoch, or still has none; returns whether it did.
static SET: Script = Script::new(
    r"
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
return 1
",
);

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
    let text = format!("{text}@{run}");
    if link.is_cluster() {
        // The text has the epochs: a mark that comes after one of them has changed is not valid.
        session.one(set_field(mark, &text)).await?;
    } else if !set_in_generation(link, &session, mark, &text).await? {
        return Err(CacheError::Restarted(epoch::compare(link, &session).await?));
    }
    // A batch that missed a part meanwhile may have removed the mark before it was written.
    if mark == Mark::Peers && link.has_missed() {
        session.one(forget).await?;
        return Err(link.incomplete());
    }
    Ok(())
}

fn set_field(mark: Mark, text: &str) -> Cmd {
    let mut set = cmd("HSET");
    set.arg(keys::REGISTRY).arg(field(mark)).arg(text);
    set
}

/// Sets a mark on a single server, unless the server was emptied meanwhile; returns whether it did.
async fn set_in_generation(
    link: &RedisLink,
    session: &RedisSession<'_>,
    mark: Mark,
    text: &str,
) -> Result<bool, CacheError> {
    let Some(epoch) = link.epoch_in(session.generation(), keys::REGISTRY) else {
        return Ok(false);
    };
    let mut call = SET.call(keys::REGISTRY);
    call.arg(epoch::FIELD).arg(epoch).arg(field(mark)).arg(text);
    let mut commands = Commands::with_script(&SET);
    commands.push(call);
    let replies = session.run(commands).await?;
    Ok(replies.first() == Some(&Value::Int(1)))
}
