//! Bulk operations of `mika-manage`: setting totals to 0, and removing leftovers.

use redis::{Cmd, Value, cmd};

use super::commands::{Commands, ListFields};
use super::link::RedisLink;
use super::scan::scan_keys;
use super::session::RedisSession;
use super::{keys, reply};
use crate::cache::{CacheError, CacheLeftover, RowKey, Wiped};
use crate::registry::Wipe;

/// The most fields in one `HDEL`.
const FIELDS_MAX: usize = 500;

pub(super) async fn wipe(link: &RedisLink, what: Wipe, cursor: u64) -> Result<Wiped, CacheError> {
    let session = link.session().await?;
    let (pattern, id_field) = match what {
        Wipe::Users => (keys::ALL_USERS, "user_id"),
        Wipe::Torrents => (keys::ALL_TORRENTS, "torrent_id"),
    };
    let (found, next) = scan_keys(link, &session, pattern, cursor).await?;
    // A row that was removed meanwhile must not come back as zeros only.
    let ask = |key: &String| -> Cmd { cmd("HGET").arg(key).arg(id_field).take() };
    let ids = session.run(found.iter().map(ask).collect::<Commands>());
    let rows: Vec<(String, Value)> = found
        .into_iter()
        .zip(ids.await?)
        .filter(|(_, id)| *id != Value::Nil)
        .collect();
    let wiped = rows.len() as u64;
    write_zeros(&session, what, rows).await?;
    Ok(Wiped { rows: wiped, next })
}

async fn write_zeros(
    session: &RedisSession<'_>,
    what: Wipe,
    rows: Vec<(String, Value)>,
) -> Result<(), CacheError> {
    let fields: &[&str] = match what {
        Wipe::Users => &[
            "uploaded",
            "downloaded",
            "snatches",
            "announces",
            "seed_time",
        ],
        Wipe::Torrents => &["uploaded", "downloaded", "snatches", "announces"],
    };
    let mut commands = Commands::default();
    let mut snatches = ListFields::new("ZREM", keys::SNATCHES, session.link.is_cluster());
    for (key, id) in rows {
        let mut set = cmd("HSET");
        set.arg(key);
        for field in fields {
            set.arg(field).arg(0);
        }
        commands.push(set);
        if what == Wipe::Torrents {
            let id = reply::text(id).unwrap_or_default();
            snatches.add(&mut commands, &id, &[&id]);
        }
    }
    snatches.end(&mut commands);
    session.run(commands).await.map(drop)
}

pub(super) async fn clean(link: &RedisLink, leftovers: &[CacheLeftover]) -> Result<(), CacheError> {
    let mut commands = Commands::default();
    for leftover in leftovers {
        match leftover {
            CacheLeftover::Key { key, .. } => commands.push(cmd("UNLINK").arg(key).take()),
            CacheLeftover::Row(row) => commands.push(cmd("UNLINK").arg(key_of(*row)).take()),
            CacheLeftover::Counter { row, field } => {
                let mut set = cmd("HSET");
                commands.push(set.arg(key_of(*row)).arg(field).arg(0).take());
            }
            CacheLeftover::Peers { torrent, fields } => {
                for fields in fields.chunks(FIELDS_MAX) {
                    let mut remove = cmd("HDEL");
                    commands.push(remove.arg(keys::swarm(*torrent)).arg(fields).take());
                }
            }
        }
    }
    link.session().await?.run(commands).await.map(drop)
}

fn key_of(row: RowKey) -> String {
    match row {
        RowKey::User(id) => keys::user(id),
        RowKey::Torrent(info_hash) => keys::torrent(info_hash),
    }
}
