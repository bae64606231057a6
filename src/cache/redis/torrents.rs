//! Torrents: one hash each, and their ids in lists sorted by counters.

use redis::{Cmd, cmd};

use super::commands::{Commands, Fields, ListFields};
use super::link::RedisLink;
use super::rows::{TORRENT_FIELDS, torrent_counters};
use super::scan::RowScan;
use super::session::RedisSession;
use super::{keys, reply, rows, side_by_side};
use crate::base::ids::InfoHash;
use crate::cache::{CacheError, Write};
use crate::registry::{Permille, StoredTorrent};

/// Torrents that one job writes or removes.
const ROWS_MAX: usize = 500;

/// How many arguments the command that writes a torrent without counters usually has, and how many bytes
/// they take besides the name.
const ARGS: usize = 14;
const BYTES: usize = 180;

pub(super) async fn put(
    link: &RedisLink,
    torrents: &[StoredTorrent],
    write: Write,
) -> Result<(), CacheError> {
    let session = link.session().await?;
    side_by_side(torrents.chunks(ROWS_MAX), |chunk| {
        put_chunk(&session, chunk, write)
    })
    .await
}

async fn put_chunk(
    session: &RedisSession<'_>,
    torrents: &[StoredTorrent],
    write: Write,
) -> Result<(), CacheError> {
    let known = if write == Write::Fill {
        vec![None; torrents.len()]
    } else {
        let hashes: Vec<InfoHash> = torrents.iter().map(|row| row.torrent.info_hash).collect();
        ids(session, &hashes).await?
    };
    let is_split = session.link.is_cluster();
    let mut lists = keys::LISTS.map(|list| ListFields::new("ZADD", list, is_split));
    let mut commands = Commands::default();
    for (row, _) in torrents
        .iter()
        .zip(&known)
        .filter(|(_, known)| known.is_none())
    {
        let id = row.torrent.id.0.to_string();
        let counters = [row.seeders, row.leechers, row.torrent.snatches];
        for (list, number) in lists.iter_mut().zip(counters) {
            if number > 0 {
                list.add(&mut commands, &id, &[&number.to_string(), &id]);
            }
        }
    }
    for list in &mut lists {
        list.end(&mut commands);
    }
    // A torrent that has its fields is not new for a retry.
    commands.barrier();
    for (row, known) in torrents.iter().zip(&known) {
        write_fields(&mut commands, row, known.is_none());
    }
    session.run(commands).await.map(drop)
}

fn write_fields(commands: &mut Commands, row: &StoredTorrent, is_new: bool) {
    let torrent = &row.torrent;
    let key = keys::torrent(torrent.info_hash);
    let mut set = Cmd::with_capacity(ARGS, BYTES + row.name.len());
    set.arg("HSET").arg(&key);
    set.arg("info_hash").arg(torrent.info_hash.to_string());
    set.arg("torrent_id").arg(torrent.id.0);
    set.arg("name").arg(&row.name);
    set.arg("enabled").arg(u8::from(torrent.enabled));
    set.arg("multi_up").arg(factor(torrent.multi_up));
    set.arg("multi_dn").arg(factor(torrent.multi_down));
    let mut gone = Fields::new("HDEL", &key);
    match &torrent.reason {
        Some(reason) => drop(set.arg("reason").arg(reason)),
        None => gone.add(commands, &["reason"]),
    }
    match &torrent.info_hash_v2 {
        Some(hash) => drop(set.arg("info_hash_v2").arg(hash.to_string())),
        None => gone.add(commands, &["info_hash_v2"]),
    }
    if is_new {
        for (name, number) in torrent_counters(row) {
            set.arg(name).arg(number);
        }
    } else {
        gone.end(commands);
    }
    commands.push(set);
}

/// A multiplier as text: 2, 0.5. Almost all are whole, which has a fast path.
fn factor(multiplier: Permille) -> String {
    if multiplier.0.is_multiple_of(1000) {
        return (multiplier.0 / 1000).to_string();
    }
    multiplier.factor().to_string()
}

/// The ids of these torrents; none for missing ones.
async fn ids(
    session: &RedisSession<'_>,
    torrents: &[InfoHash],
) -> Result<Vec<Option<String>>, CacheError> {
    let ask = |hash: &InfoHash| -> Cmd {
        cmd("HGET")
            .arg(keys::torrent(*hash))
            .arg("torrent_id")
            .take()
    };
    let questions: Commands = torrents.iter().map(ask).collect();
    let answers = session.run(questions).await?;
    Ok(answers.into_iter().map(reply::text).collect())
}

pub(super) async fn remove(link: &RedisLink, torrents: &[InfoHash]) -> Result<(), CacheError> {
    let session = link.session().await?;
    let remove = |chunk| remove_chunk(&session, chunk);
    side_by_side(torrents.chunks(ROWS_MAX), remove).await
}

/// Removes the hash last: a retry finds the id in it.
async fn remove_chunk(session: &RedisSession<'_>, torrents: &[InfoHash]) -> Result<(), CacheError> {
    let known = ids(session, torrents).await?;
    let mut commands = Commands::default();
    for list in keys::LISTS {
        let mut remove = ListFields::new("ZREM", list, session.link.is_cluster());
        for id in known.iter().flatten() {
            remove.add(&mut commands, id, &[id]);
        }
        remove.end(&mut commands);
    }
    for hash in torrents {
        commands.push(cmd("UNLINK").arg(keys::swarm(*hash)).take());
    }
    commands.barrier();
    for hash in torrents {
        commands.push(cmd("UNLINK").arg(keys::torrent(*hash)).take());
    }
    session.run(commands).await.map(drop)
}

pub(super) const ROWS: RowScan<InfoHash, StoredTorrent> = RowScan {
    pattern: keys::ALL_TORRENTS,
    id: keys::torrent_of,
    read: |hash| {
        let mut read = cmd("HMGET");
        read.arg(keys::torrent(hash))
            .arg(&TORRENT_FIELDS[..])
            .take()
    },
    row: rows::torrent,
};
