//! Epochs: random texts by which it is noticed that a server was emptied. There is one beside the marks, or several
//! keys in a cluster, at least one on each master.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use redis::{Value, cmd};
use sha1::{Digest as _, Sha1};

use super::commands::{Commands, Script};
use super::fault::is_denied;
use super::link::RedisLink;
use super::session::RedisSession;
use super::{keys, reply};
use crate::cache::{CacheError, Generation};

pub(super) const FIELD: &str = "epoch";

/// Attempts to begin epochs while generations keep changing.
const BEGIN_TRIES: u32 = 5;

/// Writes an epoch if there is none; returns the present one.
static BEGIN: Script = Script::new(
    r"
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], ARGV[1])
",
);

/// The epochs as they were read, by key; none if Mika's user may not read them.
type Epochs = Option<Vec<(String, Option<String>)>>;

/// Pings all servers, and compares their epochs. A part of a cluster may be away.
pub(super) async fn ping(link: &RedisLink) -> Result<Generation, CacheError> {
    let session = link.session().await?;
    let connected = session
        .view
        .servers
        .iter()
        .filter_map(|server| server.connection.as_ref());
    let pinged = connected.map(|connection| session.ping(connection));
    let (mut answered, mut problem) = (0, None);
    for pinged in join_all(pinged).await {
        match pinged {
            Ok(()) => answered += 1,
            Err(fault) => problem = Some(fault.error),
        }
    }
    if let Some(problem) = problem.filter(|_| answered == 0) {
        return Err(problem);
    }
    if answered == session.view.servers.len() && session.view.is_whole() {
        link.all_answered(&session);
    }
    // Without what was given up, and of the generation that may have begun.
    let session = link.session().await?;
    compare(link, &session).await
}

/// The generation of a session by the epochs that its servers have now.
pub(super) async fn compare(
    link: &RedisLink,
    session: &RedisSession<'_>,
) -> Result<Generation, CacheError> {
    Ok(match look(session).await? {
        Some(epochs) => link.saw_epochs(session, epochs),
        None => session.generation(),
    })
}

/// Begins an epoch on each server unless there is one.
pub(super) async fn begin(link: &RedisLink) -> Result<Generation, CacheError> {
    let mut session = link.session().await?;
    for _ in 0..BEGIN_TRIES {
        let Some(mut epochs) = look(&session).await? else {
            return Ok(session.generation());
        };
        for (key, epoch) in epochs.iter_mut().filter(|(_, epoch)| epoch.is_none()) {
            *epoch = reply::text(begin_one(link, &session, key, new_epoch()).await?);
        }
        let generation = link.saw_epochs(&session, epochs);
        if generation == session.generation() {
            return Ok(generation);
        }
        // The new generation may not have noted these epochs.
        session = link.session().await?;
    }
    Err(CacheError::Restarted(session.generation()))
}

/// Writes another epoch on one of the masters of a cluster that answer, so that the marks that were set until now are not
/// valid any more. Other processes take that master as emptied, and write everything again.
pub(super) async fn replace(link: &RedisLink) -> Result<(), CacheError> {
    let session = link.session().await?;
    let mut problem = link.incomplete();
    for key in reachable_keys(&session) {
        let new = new_epoch();
        let set = cmd("SET").arg(&key).arg(&new).take();
        match session.one(set).await {
            Ok(_) => {
                link.note_epoch(key, new);
                return Ok(());
            }
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn new_epoch() -> String {
    format!("{:032x}", fastrand::u128(..))
}

async fn begin_one(
    link: &RedisLink,
    session: &RedisSession<'_>,
    key: &str,
    new: String,
) -> Result<Value, CacheError> {
    if !link.is_cluster() {
        let mut begin = Commands::with_script(&BEGIN);
        begin.push(BEGIN.call(key).arg(FIELD).arg(new).take());
        let replies = session.run(begin).await?;
        return Ok(replies.into_iter().next().unwrap_or(Value::Nil));
    }
    let mut begin = Commands::from(cmd("SET").arg(key).arg(new).arg("NX").take());
    begin.push(cmd("GET").arg(key).take());
    let replies = session.run(begin).await?;
    Ok(replies.into_iter().nth(1).unwrap_or(Value::Nil))
}

/// Reads the epochs of the servers that are connected.
async fn look(session: &RedisSession<'_>) -> Result<Epochs, CacheError> {
    let found = reachable_keys(session);
    let ask = |key: &String| match session.view.slots {
        Some(_) => cmd("GET").arg(key).take(),
        None => cmd("HGET").arg(key).arg(FIELD).take(),
    };
    let questions: Commands = found.iter().map(ask).collect();
    // If the user may not read it, the first command that matters reports it.
    let replies = session.run_tolerant(questions, is_denied).await?;
    if replies
        .iter()
        .any(|reply| matches!(reply, Value::ServerError(_)))
    {
        return Ok(None);
    }
    Ok(Some(
        found
            .into_iter()
            .zip(replies.into_iter().map(reply::text))
            .collect(),
    ))
}

/// Those of the servers that are connected.
fn reachable_keys(session: &RedisSession<'_>) -> Vec<String> {
    let mut keys = epoch_keys(session);
    keys.retain(|key| {
        let index = session.view.server_of(key.as_bytes());
        let server = index.and_then(|index| session.view.servers.get(index));
        server.is_some_and(|server| server.connection.is_some())
    });
    keys
}

fn epoch_keys(session: &RedisSession<'_>) -> Vec<String> {
    if session.view.slots.is_none() {
        return vec![keys::REGISTRY.to_owned()];
    }
    session.view.epoch_keys.to_vec()
}

/// Identifies the state of all servers for marks: the runs of the servers, and in a cluster the epochs too, because the
/// marks are on one of its masters.
pub(super) async fn run(
    link: &RedisLink,
    session: &RedisSession<'_>,
) -> Result<Arc<str>, CacheError> {
    if session.view.slots.is_none() {
        return Ok(Arc::clone(&session.view.run));
    }
    let seen = look(session).await?.unwrap_or_default();
    let mut text = session.view.run.to_string();
    for key in epoch_keys(session) {
        let seen = seen.iter().find(|(known, _)| *known == key);
        let epoch = match seen {
            Some((_, epoch)) => epoch.clone(),
            // Of a master that is away.
            None => link.known_epoch(&key),
        };
        text.push(' ');
        text.push_str(&epoch.unwrap_or_default());
    }
    Ok(HEXLOWER.encode(&Sha1::digest(text)).into())
}
