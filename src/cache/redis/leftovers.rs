//! Entries that nothing uses, judged by their form alone.

use redis::{Cmd, Value, cmd};

use super::commands::Commands;
use super::fault::is_wrong_type;
use super::keys::{self, KeyKind};
use super::link::RedisLink;
use super::rows::{TORRENT_FIELDS, USER_FIELDS};
use super::scan::scan_any_keys;
use super::session::RedisSession;
use super::users::passkey_entry;
use super::{reply, rows, swarms};
use crate::base::ids::InfoHash;
use crate::cache::{CacheError, CacheLeftover, RowKey, Scan, SharedPeer};
use crate::registry::PLAUSIBLE_MAX;

/// Swarms read at once.
const SWARMS_MAX: usize = 200;

/// Indices of counters in [`USER_FIELDS`] and [`TORRENT_FIELDS`].
const USER_COUNTERS: std::ops::Range<usize> = 5..10;
const TORRENT_COUNTERS: std::ops::Range<usize> = 8..14;

pub(super) async fn find(
    link: &RedisLink,
    since: i64,
    cursor: u64,
) -> Result<Scan<CacheLeftover>, CacheError> {
    let session = link.session().await?;
    let (found, next) = scan_any_keys(link, &session, keys::ALL, cursor).await?;
    let mut leftovers = Vec::new();
    let (mut asked, mut questions, mut hashes) = (Vec::new(), Commands::default(), Vec::new());
    for key in found {
        match keys::kind_of(&key) {
            KeyKind::Old => leftovers.push(stray(key, "only the first version of Mika read it")),
            KeyKind::Misnamed => {
                leftovers.push(stray(key, "its name is not an info hash in lower case"));
            }
            KeyKind::Swarm(info_hash) => hashes.push(info_hash),
            KeyKind::Other => {}
            kind => {
                questions.push(probe_command(kind, &key));
                asked.push((kind, key));
            }
        }
    }
    let answers = session.run_tolerant(questions, is_wrong_type).await?;
    for ((kind, key), answer) in asked.into_iter().zip(answers) {
        assess(kind, key, answer, &mut leftovers);
    }
    for hashes in hashes.chunks(SWARMS_MAX) {
        find_peers(&session, hashes, since, &mut leftovers).await?;
    }
    Ok(Scan {
        rows: leftovers,
        bad: Vec::new(),
        next,
    })
}

fn stray(key: Vec<u8>, problem: &'static str) -> CacheLeftover {
    let text = String::from_utf8_lossy(&key);
    CacheLeftover::Key {
        shown: keys::shown(&text).to_owned(),
        key,
        problem,
    }
}

/// The command whose reply a key is judged by.
fn probe_command(kind: KeyKind, key: &[u8]) -> Cmd {
    match kind {
        KeyKind::User(_) => cmd("HMGET").arg(key).arg(&USER_FIELDS[..]).take(),
        KeyKind::Torrent(_) => cmd("HMGET").arg(key).arg(&TORRENT_FIELDS[..]).take(),
        KeyKind::UserSet(id) => cmd("HGET").arg(keys::user(id)).arg("passkey").take(),
        _ => cmd("GET").arg(key).take(),
    }
}

fn assess(kind: KeyKind, key: Vec<u8>, answer: Value, leftovers: &mut Vec<CacheLeftover>) {
    match kind {
        KeyKind::User(id) => {
            assess_row(
                RowKey::User(id),
                answer,
                &USER_FIELDS,
                USER_COUNTERS,
                leftovers,
            );
        }
        KeyKind::Torrent(hash) => {
            let row = RowKey::Torrent(hash);
            assess_row(row, answer, &TORRENT_FIELDS, TORRENT_COUNTERS, leftovers);
        }
        KeyKind::UserSet(_) if answer == Value::Nil => {
            leftovers.push(stray(key, "it belongs to a user who does not exist"));
        }
        KeyKind::Passkey if answer != Value::Nil => {
            let text = String::from_utf8_lossy(&key);
            if passkey_entry(&text, answer).is_none() {
                leftovers.push(stray(key, "it does not lead from a passkey to a user"));
            }
        }
        _ => {}
    }
}

fn assess_row(
    row: RowKey,
    answer: Value,
    fields: &[&str],
    counters: std::ops::Range<usize>,
    leftovers: &mut Vec<CacheLeftover>,
) {
    let values = reply::list(answer).unwrap_or_default();
    let invalid: Vec<CacheLeftover> = fields
        .iter()
        .zip(&values)
        .skip(counters.start)
        .take(counters.len())
        .filter(|(_, value)| is_invalid(value))
        .map(|(field, _)| CacheLeftover::Counter {
            row,
            field: (*field).to_owned(),
        })
        .collect();
    if is_usable(row, values) {
        leftovers.extend(invalid);
    } else {
        leftovers.push(CacheLeftover::Row(row));
    }
}

fn is_usable(row: RowKey, values: Vec<Value>) -> bool {
    match row {
        RowKey::User(id) => matches!(rows::user(id, values), Some(Ok(_))),
        RowKey::Torrent(hash) => matches!(rows::torrent(hash, values), Some(Ok(_))),
    }
}

/// Whether a counter is negative, impossibly large, or no whole number.
fn is_invalid(value: &Value) -> bool {
    if *value == Value::Nil {
        return false;
    }
    let number = reply::text(value.clone()).and_then(|text| text.parse::<u64>().ok());
    number.is_none_or(|number| number > PLAUSIBLE_MAX)
}

async fn find_peers(
    session: &RedisSession<'_>,
    hashes: &[InfoHash],
    since: i64,
    leftovers: &mut Vec<CacheLeftover>,
) -> Result<(), CacheError> {
    let read = |hash: &InfoHash| cmd("HGETALL").arg(keys::swarm(*hash)).take();
    let questions: Commands = hashes.iter().map(read).collect();
    let answers = session.run_tolerant(questions, is_wrong_type).await?;
    for (&torrent, answer) in hashes.iter().zip(answers) {
        let Some(values) = reply::list(answer) else {
            let key = keys::swarm(torrent).into_bytes();
            leftovers.push(stray(key, "it is not a hash"));
            continue;
        };
        let mut values = values.into_iter();
        let mut fields = Vec::new();
        while let (Some(field), Some(value)) = (values.next(), values.next()) {
            let Some(field) = reply::bytes(field) else {
                continue;
            };
            let last_seen = last_seen(&field, value);
            if last_seen.is_none_or(|at| at < since) {
                fields.push(field);
            }
        }
        if !fields.is_empty() {
            leftovers.push(CacheLeftover::Peers { torrent, fields });
        }
    }
    Ok(())
}

/// When a peer last announced (Unix time); none if its entry can't be read.
fn last_seen(field: &[u8], value: Value) -> Option<i64> {
    let field = std::str::from_utf8(field).ok()?;
    Some(match swarms::peer(field, &reply::text(value)?)? {
        SharedPeer::Member(member) => member.record.last_announce,
        SharedPeer::Guest { record, .. } => record.last_announce,
    })
}
