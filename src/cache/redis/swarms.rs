//! The peers of torrents: a hash a torrent, a field a peer.

use redis::{Cmd, Value, cmd};

use super::commands::{Commands, Fields};
use super::link::{Link, Session};
use super::scan::scan_keys;
use super::{keys, reply, side_by_side};
use crate::cache::{CacheError, Scan, SharedPeer};
use crate::change::{Member, codec};
use crate::ids::{InfoHash, PeerId, UserId};

/// Torrents whose peers are read or removed by one pipeline.
const READ_MAX: usize = 500;
/// Torrents whose peers are written by one job.
const WRITE_MAX: usize = 500;

/// Peers that one call of the script writes at most: the server does nothing else meanwhile.
const SCRIPT_MAX: usize = 500;

/// A member that was written: swarm, user, and client.
type Written = (InfoHash, UserId, PeerId);

/// Writes members unless the hash has newer records of them: a node may give it what it knew a
/// moment ago while another has told more. The pattern is the text of a member up to its last
/// announce (see `change::codec`); what is not of that form is replaced. Returns the fields it wrote.
const PUT_UNLESS_NEWER: &str = r"
local put = {}
local pattern = '^1' .. string.rep(' %S+', 13) .. ' (%d+) %S+ (%-?%d+) '
for i = 1, #ARGV, 4 do
    local old = redis.call('HGET', KEYS[1], ARGV[i])
    local announces, last
    if old then announces, last = string.match(old, pattern) end
    local more, later = 1, 0
    if announces then
        more = tonumber(ARGV[i + 2]) - tonumber(announces)
        later = tonumber(ARGV[i + 3]) - tonumber(last)
    end
    if more > 0 or later > 5 or (more == 0 and later >= 0) then
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
        put[#put + 1] = ARGV[i]
    end
end
return put
";

pub(super) async fn peers(
    link: &Link,
    torrents: &[InfoHash],
) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError> {
    let session = link.session().await?;
    let found = parking_lot::Mutex::new(Vec::with_capacity(torrents.len()));
    side_by_side(torrents.chunks(READ_MAX), |chunk| {
        let (session, found) = (&session, &found);
        async move {
            let read = |hash: &InfoHash| cmd("HGETALL").arg(keys::swarm(*hash)).take();
            let commands: Commands = chunk.iter().map(read).collect();
            let replies = session.run(commands).await?;
            let mut swarms = Vec::with_capacity(chunk.len());
            for (hash, reply) in chunk.iter().zip(replies) {
                let fields = reply::pairs(reply).ok_or_else(|| link.unexpected("HGETALL"))?;
                if !fields.is_empty() {
                    swarms.push((*hash, usable(*hash, fields)));
                }
            }
            found.lock().extend(swarms);
            Ok(())
        }
    })
    .await?;
    Ok(found.into_inner())
}

fn usable(info_hash: InfoHash, fields: Vec<(String, Value)>) -> Vec<SharedPeer> {
    let total = fields.len();
    let peers: Vec<SharedPeer> = fields
        .into_iter()
        .filter_map(|(field, value)| peer(&field, &reply::text(value)?))
        .collect();
    if peers.len() < total {
        let damaged = total - peers.len();
        tracing::debug!(%info_hash, damaged, "peers in the cache that can't be read are passed over");
    }
    peers
}

pub(super) fn peer(field: &str, text: &str) -> Option<SharedPeer> {
    match keys::peer_of(field)? {
        keys::PeerField::Member(user, peer_id) => {
            let (record, standing) = codec::decode_member(text).ok()?;
            Some(SharedPeer::Member(Member {
                user,
                peer_id,
                record,
                standing,
            }))
        }
        keys::PeerField::Guest(address) => Some(SharedPeer::Guest {
            address,
            record: codec::decode_guest(text).ok()?,
        }),
    }
}

pub(super) async fn put_peers(
    link: &Link,
    swarms: &[(InfoHash, Vec<SharedPeer>)],
) -> Result<Vec<Written>, CacheError> {
    let session = link.session().await?;
    let load = cmd("SCRIPT").arg("LOAD").arg(PUT_UNLESS_NEWER).take();
    let script = reply::text(session.one(load).await?);
    let script = script.ok_or_else(|| link.unexpected("SCRIPT"))?;
    let written = parking_lot::Mutex::new(Vec::new());
    side_by_side(swarms.chunks(WRITE_MAX), |chunk| {
        let (session, script, written) = (&session, &script, &written);
        async move {
            let found = put_chunk(session, script, chunk).await?;
            written.lock().extend(found);
            Ok(())
        }
    })
    .await?;
    Ok(written.into_inner())
}

async fn put_chunk(
    session: &Session<'_>,
    script: &str,
    swarms: &[(InfoHash, Vec<SharedPeer>)],
) -> Result<Vec<Written>, CacheError> {
    let mut commands = Commands::default();
    // The swarm that each command is for.
    let mut of = Vec::new();
    for (info_hash, peers) in swarms {
        let key = keys::swarm(*info_hash);
        for peers in peers.chunks(SCRIPT_MAX) {
            put_swarm(&mut commands, script, &key, peers);
            of.resize(commands.len(), *info_hash);
        }
    }
    let replies = session.run(commands).await?;
    let mut written = Vec::new();
    for (info_hash, reply) in of.into_iter().zip(replies) {
        // A number is the answer to `HSET`, of guests.
        let fields = reply::list(reply).unwrap_or_default();
        for field in fields.into_iter().filter_map(reply::text) {
            if let Some(keys::PeerField::Member(user, peer_id)) = keys::peer_of(&field) {
                written.push((info_hash, user, peer_id));
            }
        }
    }
    Ok(written)
}

fn put_swarm(commands: &mut Commands, script: &str, key: &str, peers: &[SharedPeer]) {
    let mut set = Fields::new("HSET", key);
    let mut put = cmd("EVALSHA");
    put.arg(script).arg(1).arg(key);
    let mut has_members = false;
    for peer in peers {
        match peer {
            SharedPeer::Member(member) => {
                put.arg(keys::member_field(member.user, &member.peer_id))
                    .arg(codec::encode_member(&member.record, &member.standing))
                    .arg(member.record.announces)
                    .arg(member.record.last_announce);
                has_members = true;
            }
            SharedPeer::Guest { address, record } => {
                let (field, text) = (keys::guest_field(*address), codec::encode_guest(record));
                set.add(commands, &[&field, &text]);
            }
        }
    }
    set.end(commands);
    if has_members {
        commands.push(put);
    }
}

pub(super) async fn swarms(link: &Link, cursor: u64) -> Result<Scan<InfoHash>, CacheError> {
    let session = link.session().await?;
    let (found, next) = scan_keys(link, &session, keys::ALL_SWARMS, cursor).await?;
    Ok(Scan {
        rows: found.iter().filter_map(|key| keys::swarm_of(key)).collect(),
        bad: Vec::new(),
        next,
    })
}

/// One portion of a scan, without the peers whose last announce is too long ago.
pub(super) async fn prune(
    link: &Link,
    cursor: u64,
    members_before: i64,
    guests_before: i64,
) -> Result<Option<u64>, CacheError> {
    let scan = swarms(link, cursor).await?;
    let mut commands = Commands::default();
    for (info_hash, peers) in peers(link, &scan.rows).await? {
        let key = keys::swarm(info_hash);
        let mut remove = Fields::new("HDEL", &key);
        for peer in peers {
            let old = match peer {
                SharedPeer::Member(it) if it.record.last_announce < members_before => {
                    keys::member_field(it.user, &it.peer_id)
                }
                SharedPeer::Guest { address, record } if record.last_announce < guests_before => {
                    keys::guest_field(address)
                }
                _ => continue,
            };
            remove.add(&mut commands, &[&old]);
        }
        remove.end(&mut commands);
    }
    link.session().await?.run(commands).await?;
    Ok(scan.next)
}

pub(super) async fn remove_swarms(link: &Link, torrents: &[InfoHash]) -> Result<(), CacheError> {
    let remove = |hash: &InfoHash| -> Cmd { cmd("UNLINK").arg(keys::swarm(*hash)).take() };
    let session = link.session().await?;
    side_by_side(torrents.chunks(READ_MAX), |chunk| {
        let session = &session;
        async move {
            let commands: Commands = chunk.iter().map(remove).collect();
            session.run(commands).await.map(drop)
        }
    })
    .await
}
