//! Journals: one stream each, whose entries have the numbers of their batches as ids.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, ServerError, Value};

use super::commands::{Commands, Script};
use super::derived::{Derived, EntryText};
use super::link::RedisLink;
use super::session::RedisSession;
use super::{epoch, keys, marks, owner, reply};
use crate::cache::{CacheError, Generation, Mark};
use crate::change::sums::Credited;
use crate::change::{Batch, codec, packed};

/// Batches read at once: each may be some megabytes.
const READ_MAX: u32 = 4;

/// The most changes in a group of batches, which is written completely before the next; one batch may have more.
const GROUP_CHANGES: usize = 10_000;

/// The streams that this process writes to.
#[derive(Default)]
pub(super) struct Streams {
    /// The generation of the last write to each stream: if the stream is missing within it, it was deleted.
    written: Mutex<HashMap<String, Generation>>,
    /// The database that they belong to; none if unknown.
    database: Mutex<Option<String>>,
    /// All nodes read public peers in packed form.
    packs_guests: AtomicBool,
}

/// A call of [`keep`].
struct Keeping<'a> {
    link: &'a RedisLink,
    session: &'a RedisSession<'a>,
    streams: &'a Streams,
}

pub(super) async fn keep(
    link: &RedisLink,
    streams: &Streams,
    generation: Generation,
    batches: &[Arc<Batch>],
) -> Result<(), CacheError> {
    let session = link.session().await?;
    if session.generation() != generation {
        return Err(CacheError::Restarted(session.generation()));
    }
    let keeping = Keeping {
        link,
        session: &session,
        streams,
    };
    let mut rest = batches;
    let mut is_first = true;
    while !rest.is_empty() {
        let (group, later) = rest.split_at(group_len(rest));
        keeping.group(group, is_first).await?;
        is_first = false;
        rest = later;
    }
    Ok(())
}

fn group_len(batches: &[Arc<Batch>]) -> usize {
    let mut changes = 0;
    let fits = |batch: &&Arc<Batch>| {
        changes += batch.changes.len();
        changes <= GROUP_CHANGES
    };
    batches.iter().take_while(fits).count().max(1)
}

// === impl Streams ===

impl Streams {
    /// From now on, new streams belong to that database.
    pub(super) fn assign_to(&self, database: &str) {
        *self.database.lock() = Some(database.to_owned());
    }

    /// From now on, public peers are packed, or not.
    pub(super) fn pack_guests(&self, is_read_by_all: bool) {
        self.packs_guests.store(is_read_by_all, Ordering::Relaxed);
    }
}

// === impl Keeping ===

impl Keeping<'_> {
    /// Writes batches first, derived state second: if the connection breaks between, a retry writes both.
    ///
    /// Waits for each batch before the next: a server that is short of memory may refuse one and take the
    /// next, and would then never accept the first, whose id is lower.
    async fn group(&self, batches: &[Arc<Batch>], mut is_first: bool) -> Result<(), CacheError> {
        let mut derived = Derived::default();
        for batch in batches {
            let packs_guests = self.streams.packs_guests.load(Ordering::Relaxed);
            let changes = derived.add(batch, packs_guests);
            // If the stream is gone, this batch must not begin a new one: those before it have lower ids, and could
            // not be added any more.
            let reply = self.add(batch, &changes, is_first).await?;
            if is_first && reply == Value::Nil {
                self.begin_stream(batch, &changes).await?;
            }
            is_first = false;
            self.note_stream(batch);
        }
        match derived.write(self.session).await {
            Err(CacheError::Away(problem)) if self.session.is_incomplete() => {
                self.miss_part(problem).await
            }
            written => written,
        }
    }

    /// A part of the cluster is away. The batches are kept, and the other parts have what follows from them; all is written
    /// again once every part is back. Until then, no start may rely on the peers here.
    async fn miss_part(&self, problem: String) -> Result<(), CacheError> {
        if !self.link.is_cluster() {
            return Err(CacheError::Away(problem));
        }
        self.link.note_missed();
        match marks::set(self.link, Mark::Peers, None).await {
            // The mark is on a part that is away, too. Nobody can read it now, but it must not be valid once that part is
            // back: this process may have ended by then. Once is enough, or nodes would write everything again and again.
            Err(CacheError::Away(_)) if self.link.has_replaced_epoch() => Ok(()),
            Err(CacheError::Away(_)) => epoch::replace(self.link).await,
            set => set,
        }
    }

    /// Records that the stream exists.
    fn note_stream(&self, batch: &Batch) {
        let generation = self.session.generation();
        let mut streams = self.streams.written.lock();
        if streams.get(&batch.journal) != Some(&generation) {
            streams.insert(batch.journal.clone(), generation);
        }
    }

    /// Creates the stream if it is missing because it was never written to.
    async fn begin_stream(&self, batch: &Batch, changes: &EntryText) -> Result<(), CacheError> {
        let generation = self.session.generation();
        let written = self.streams.written.lock().get(&batch.journal).copied();
        let now = if written == Some(generation) {
            self.link.was_emptied(self.session)
        } else {
            epoch::compare(self.link, self.session).await?
        };
        if now != generation {
            return Err(CacheError::Restarted(now));
        }
        // An emptied server may belong to another database by now.
        let own = self.streams.database.lock().clone();
        let owner = owner::database(self.link).await?;
        if own.is_some() && owner.is_some() && own != owner {
            return Err(self.link.broken("it belongs to another database now"));
        }
        self.add(batch, changes, false).await.map(drop)
    }

    /// Adds a batch with these changes.
    async fn add(
        &self,
        batch: &Batch,
        changes: &EntryText,
        only_if_there: bool,
    ) -> Result<Value, CacheError> {
        let replies = self
            .session
            .run_tolerant(add(batch, changes, only_if_there), is_known)
            .await?;
        replies
            .into_iter()
            .next()
            .ok_or_else(|| self.link.unexpected("XADD"))
    }
}

fn add(batch: &Batch, changes: &EntryText, only_if_there: bool) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(keys::journal(&batch.journal));
    if only_if_there {
        command.arg("NOMKSTREAM");
    }
    command
        .arg(format!("{}-0", batch.number))
        .arg("count")
        .arg(batch.changes.len())
        .arg("changes")
        .arg(&changes.lines.text);
    if !changes.guests.is_empty() {
        command.arg("guests").arg(&changes.guests);
    }
    command
}

/// Whether the stream has, or had, an entry of that number.
fn is_known(error: &ServerError) -> bool {
    error
        .details()
        .is_some_and(|detail| detail.contains("equal or smaller"))
}

pub(super) async fn add_totals(
    link: &RedisLink,
    generation: Generation,
    credited: &Credited,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    if session.generation() != generation {
        return Err(CacheError::Restarted(session.generation()));
    }
    let written = Derived::of_credited(credited).write(&session).await;
    match written {
        // A retry would add to the totals of the other parts again.
        Err(CacheError::Away(_)) if link.is_cluster() && session.is_incomplete() => Ok(()),
        written => written,
    }
}

pub(super) async fn trim(
    link: &RedisLink,
    journal: &str,
    number: Option<u64>,
) -> Result<(), CacheError> {
    let key = keys::journal(journal);
    let command = match number {
        Some(number) => {
            let mut trim = redis::cmd("XTRIM");
            trim.arg(key).arg("MINID").arg("=");
            trim.arg(number.saturating_add(1)).take()
        }
        None => redis::cmd("UNLINK").arg(key).take(),
    };
    link.session().await?.one(command).await.map(drop)
}

/// The id of the last entry that a stream ever had. The reply to `XINFO` also has its first and last entry, some
/// megabytes, which nodes that wait for each other's batches would read every second.
static LAST_ID: Script = Script::new(
    r"
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then
    if string.find(info.err, 'no such key', 1, true) then return '0-0' end
    return info
end
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
end
return false
",
);

pub(super) async fn last_kept(link: &RedisLink, node: &str) -> Result<u64, CacheError> {
    let mut commands = Commands::with_script(&LAST_ID);
    commands.push(LAST_ID.call(&keys::journal(node)));
    let replies = link.session().await?.run(commands).await?;
    let id = replies.into_iter().next().and_then(reply::text);
    id.and_then(|id| number_of(&id))
        .ok_or_else(|| link.unexpected("XINFO"))
}

/// The description of a stream by Redis; none if it does not exist.
pub(super) async fn stream_info(
    session: &RedisSession<'_>,
    key: &str,
) -> Result<Option<Vec<(String, Value)>>, CacheError> {
    let is_missing = |error: &ServerError| {
        error
            .details()
            .is_some_and(|detail| detail.contains("no such key"))
    };
    let mut command = redis::cmd("XINFO");
    command.arg("STREAM").arg(key);
    let replies = session.run_tolerant(command, is_missing).await?;
    Ok(replies.into_iter().next().and_then(reply::pairs))
}

fn number_of(id: &str) -> Option<u64> {
    id.strip_suffix("-0")?.parse().ok()
}

pub(super) async fn kept(
    link: &RedisLink,
    node: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<Batch>, CacheError> {
    let session = link.session().await?;
    let mut batches: Vec<Batch> = Vec::new();
    loop {
        let last = batches.last().map_or(after, |batch| batch.number);
        let missing = limit.saturating_sub(u32::try_from(batches.len()).unwrap_or(u32::MAX));
        let Some(first) = last.checked_add(1).filter(|_| missing > 0) else {
            return Ok(batches);
        };
        let mut command = redis::cmd("XRANGE");
        command
            .arg(keys::journal(node))
            .arg(first)
            .arg("+")
            .arg("COUNT")
            .arg(missing.min(READ_MAX));
        let entries = reply::list(session.one(command).await?);
        let entries = entries.ok_or_else(|| link.unexpected("XRANGE"))?;
        if entries.is_empty() {
            return Ok(batches);
        }
        for entry in entries {
            batches.push(batch(link, node, entry)?);
        }
    }
}

pub(super) async fn follow(
    link: &RedisLink,
    node: &str,
    after: u64,
    limit: u32,
    wait: Duration,
) -> Result<Vec<Batch>, CacheError> {
    let key = keys::journal(node);
    let id = format!("{after}-0");
    let command = read_blocking(&key, &id, limit.clamp(1, READ_MAX), wait);
    let session = link.session().await?;
    let value = session.blocking(command, wait).await?.unwrap_or(Value::Nil);
    let entries = entries_of(value).ok_or_else(|| link.unexpected("XREAD"))?;
    entries
        .into_iter()
        .map(|entry| batch(link, node, entry))
        .collect()
}

pub(super) fn read_blocking(key: &str, after: &str, limit: u32, wait: Duration) -> Cmd {
    let mut command = redis::cmd("XREAD");
    // 0 would wait without a limit.
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
    command
        .arg("COUNT")
        .arg(limit)
        .arg("BLOCK")
        .arg(millis)
        .arg("STREAMS")
        .arg(key)
        .arg(after);
    command
}

/// The entries in the reply to a read of one stream; empty after a timeout.
pub(super) fn entries_of(value: Value) -> Option<Vec<Value>> {
    if value == Value::Nil {
        return Some(Vec::new());
    }
    let stream = reply::list(value)?.into_iter().next()?;
    reply::list(stream)?
        .into_iter()
        .nth(1)
        .and_then(reply::list)
}

/// The id and the fields of an entry.
pub(super) fn entry_parts(entry: Value) -> Option<(String, Vec<(String, Value)>)> {
    let mut parts = reply::list(entry)?.into_iter();
    let id = reply::text(parts.next()?)?;
    Some((id, reply::pairs(parts.next()?)?))
}

fn batch(link: &RedisLink, node: &str, entry: Value) -> Result<Batch, CacheError> {
    let (id, fields) = entry_parts(entry).ok_or_else(|| link.unexpected("XRANGE"))?;
    let key = keys::journal(node);
    let damaged = |problem: &str| {
        link.broken(&format!(
            "entry {id} of {key} is no batch of Mika's: {problem}; a newer Mika may be able to read it, \
             and XDEL {key} {id} discards it with its credit"
        ))
    };
    let number = number_of(&id).ok_or_else(|| damaged("its id does not end in -0"))?;
    let (mut lines, mut guests) = (None, Vec::new());
    for (name, value) in fields {
        match &*name {
            "changes" => lines = reply::text(value),
            "guests" => guests = reply::bytes(value).unwrap_or_default(),
            _ => {}
        }
    }
    let lines = lines.ok_or_else(|| damaged("it has no field \"changes\""))?;
    let mut changes = codec::decode(&lines).map_err(|error| damaged(&error.to_string()))?;
    changes.extend(packed::unpack(&guests).map_err(|error| damaged(&error.to_string()))?);
    Ok(Batch::new(node.into(), number, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_at_least_one_batch() {
        let batch = |len| {
            let info_hash = crate::base::ids::InfoHash([1; 20]);
            Arc::new(Batch::new(
                "a".into(),
                1,
                vec![
                    crate::change::Change::Snatches {
                        info_hash,
                        count: 1
                    };
                    len
                ],
            ))
        };
        assert_eq!(group_len(&[batch(GROUP_CHANGES + 1), batch(1)]), 1);
        assert_eq!(group_len(&[batch(1), batch(2), batch(GROUP_CHANGES)]), 2);
        assert_eq!(group_len(&[batch(1), batch(2)]), 2);
    }

    #[test]
    fn only_whole_numbers_are_numbers() {
        assert_eq!(number_of("7-0"), Some(7));
        assert_eq!(number_of("7-1"), None);
        assert_eq!(number_of("7"), None);
    }
}
