//! The feed of notices: a stream that every node reads.

use std::time::Duration;

use redis::{Value, cmd};

use super::commands::Commands;
use super::journal::{entries_of, entry_parts, read_blocking, stream_info};
use super::link::RedisLink;
use super::session::RedisSession;
use super::{keys, reply};
use crate::base::ids::UserId;
use crate::cache::{CacheError, ControlPosition, Notice};

/// Entries that the stream keeps: a node that is further behind loads everything again.
const KEPT: u64 = 100_000;

/// Entries read at once.
const READ_MAX: u32 = 1000;

/// Returned in place of notices that may have been trimmed.
const EVERYTHING: [Notice; 2] = [Notice::Registry, Notice::Peers];

/// The id of a stream's entry: milliseconds and sequence number.
type EntryId = (u64, u64);

/// What the stream holds.
struct Extent {
    first: Option<EntryId>,
    last: EntryId,
    len: u64,
}

pub(super) async fn publish(link: &RedisLink, notices: &[Notice]) -> Result<(), CacheError> {
    let commands: Commands = notices
        .iter()
        .map(|notice| {
            let (kind, id) = written(notice);
            let mut add = cmd("XADD");
            add.arg(keys::CONTROL).arg("MAXLEN").arg("~").arg(KEPT);
            add.arg("*").arg("kind").arg(kind).arg("id").arg(id);
            add
        })
        .collect();
    link.session().await?.run(commands).await.map(drop)
}

pub(super) async fn read(
    link: &RedisLink,
    after: Option<&ControlPosition>,
    wait: Duration,
) -> Result<(Vec<Notice>, ControlPosition), CacheError> {
    let session = link.session().await?;
    let extent = extent(link, &session).await?;
    let at = |entry| ControlPosition {
        run: session.run_id().to_owned(),
        entry,
    };
    let Some(after) = after else {
        return Ok((Vec::new(), at(extent.last)));
    };
    if after.run != session.run_id() || extent.has_lost(after.entry) {
        return Ok((EVERYTHING.to_vec(), at(extent.last)));
    }
    let id = format!("{}-{}", after.entry.0, after.entry.1);
    let command = read_blocking(keys::CONTROL, &id, READ_MAX, wait);
    let Some(value) = session.blocking(command, wait).await? else {
        return Ok((EVERYTHING.to_vec(), after.clone()));
    };
    let entries = entries_of(value).ok_or_else(|| link.unexpected("XREAD"))?;
    let (mut notices, mut last) = (Vec::with_capacity(entries.len()), after.entry);
    for entry in entries {
        let (id, fields) = entry_parts(entry).ok_or_else(|| link.unexpected("XREAD"))?;
        last = entry_id(&id).ok_or_else(|| link.unexpected("XREAD"))?;
        if let Some(notice) = notice(&fields) {
            notices.push(notice);
        } else {
            let kind = field(&fields, "kind").unwrap_or_default();
            link.troubles.unknown_notice(&id, &kind);
        }
    }
    Ok((notices, at(last)))
}

async fn extent(link: &RedisLink, session: &RedisSession<'_>) -> Result<Extent, CacheError> {
    let mut extent = Extent {
        first: None,
        last: (0, 0),
        len: 0,
    };
    let Some(info) = stream_info(session, keys::CONTROL).await? else {
        return Ok(extent);
    };
    for (name, value) in info {
        match name.as_str() {
            "last-generated-id" => {
                let id = reply::text(value).and_then(|id| entry_id(&id));
                extent.last = id.ok_or_else(|| link.unexpected("XINFO"))?;
            }
            "first-entry" => {
                extent.first = entry_parts(value).and_then(|(id, _)| entry_id(&id));
            }
            "length" => {
                extent.len = reply::integer(&value).map_or(0, |len| len.max(0).cast_unsigned());
            }
            _ => {}
        }
    }
    Ok(extent)
}

fn entry_id(text: &str) -> Option<EntryId> {
    let (millis, number) = text.split_once('-')?;
    Some((millis.parse().ok()?, number.parse().ok()?))
}

fn written(notice: &Notice) -> (&'static str, String) {
    match notice {
        Notice::User(id) => ("user", id.0.to_string()),
        Notice::Torrent(info_hash) => ("torrent", info_hash.to_string()),
        Notice::Whitelist => ("whitelist", String::new()),
        Notice::Registry => ("registry", String::new()),
        Notice::Peers => ("peers", String::new()),
        Notice::PeersBy(journal) => ("peers", journal.clone()),
        Notice::SnatchesWiped => ("snatches_wiped", String::new()),
        Notice::Node => ("node", String::new()),
    }
}

fn field(fields: &[(String, Value)], name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(field, _)| field == name)?;
    reply::text(value.clone())
}

/// The entry may have been written by hand: the id may be missing where none is needed.
fn notice(fields: &[(String, Value)]) -> Option<Notice> {
    let field = |name| field(fields, name);
    match field("kind")?.as_str() {
        "user" => Some(Notice::User(UserId(field("id")?.parse().ok()?))),
        "torrent" => Some(Notice::Torrent(field("id")?.parse().ok()?)),
        "whitelist" => Some(Notice::Whitelist),
        "registry" => Some(Notice::Registry),
        "peers" => {
            let journal = field("id").filter(|journal| !journal.is_empty());
            Some(journal.map_or(Notice::Peers, Notice::PeersBy))
        }
        "snatches_wiped" => Some(Notice::SnatchesWiped),
        "node" => Some(Notice::Node),
        _ => None,
    }
}

// === impl Extent ===

impl Extent {
    /// Whether entries after `id` may have been trimmed, or the stream is a new one.
    fn has_lost(&self, id: EntryId) -> bool {
        let is_behind = self.len >= KEPT && self.first.is_some_and(|first| first > id);
        self.last < id || is_behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_cut_or_replaced_is_noticed() {
        let extent = |first, last, len| Extent {
            first: Some((first, 0)),
            last: (last, 0),
            len,
        };
        assert!(!extent(5, 9, 3).has_lost((9, 0)));
        assert!(!extent(5, 9, 3).has_lost((0, 0)), "younger, and whole");
        assert!(extent(5, 9, 3).has_lost((10, 0)), "another stream");
        assert!(extent(5, 9, KEPT).has_lost((4, 7)));
        assert!(!extent(5, 9, KEPT).has_lost((5, 0)));
    }
}
