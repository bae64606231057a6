//! The peers of torrents: one hash per torrent, one field per peer, whose text `change::codec` writes. What a batch
//! changes of them is in `derived`.

use std::collections::HashSet;

use redis::{Cmd, Value, cmd};

use super::commands::{Commands, Fields, Script};
use super::link::RedisLink;
use super::scan::scan_keys;
use super::session::RedisSession;
use super::{keys, reply, side_by_side};
use crate::base::ids::{InfoHash, PeerId, UserId};
use crate::cache::{CacheError, SharedPeer};
use crate::change::{Member, PeerRecord, RecordAge, Standing, codec};

/// Torrents whose peers one pipeline reads or removes.
const READ_MAX: usize = 500;
/// Torrents whose peers one job writes.
const WRITE_MAX: usize = 500;

/// Maximum of peers that one call of the script writes: the server is blocked meanwhile.
const SCRIPT_MAX: usize = 500;

/// A member of a swarm: swarm, user, and client.
pub(super) type MemberKey = (InfoHash, UserId, PeerId);

/// Writes members unless the hash has newer records of them, by the rule of
/// [`RecordAge`](crate::change::RecordAge): a batch may come late, and a node may upload what it knew while
/// another has written more. The pattern is the text of a member up to whether it is active (see
/// `change::codec`); malformed members are replaced. Returns the fields that it left alone.
static PUT_UNLESS_NEWER: Script = Script::new(
    r"
local skipped = {}
local pattern = '^1' .. string.rep(' .-', 13) .. ' (%d+) (%-?%d+) (%-?%d+) (%d) '
for i = 1, #ARGV, 6 do
    local is_newer, announces, first, last, active = true
    local old = redis.call('HGET', KEYS[1], ARGV[i])
    if old then announces, first, last, active = string.match(old, pattern) end
    if announces and ARGV[i + 3] - last <= 5 then
        local more, later = ARGV[i + 2] - announces, ARGV[i + 4] - last
        local is_as_new = later >= 0
        if ARGV[i + 5] ~= active then is_as_new = active == '1' end
        is_newer = first - ARGV[i + 4] <= 5 and
            (more > 0 or later > 5 or (more == 0 and is_as_new))
    end
    if is_newer then
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    else
        skipped[#skipped + 1] = ARGV[i]
    end
end
return skipped
",
);

/// A member of a swarm's hash.
pub(super) struct MemberText {
    text: String,
    age: RecordAge,
}

/// Members to be written unless newer ones exist: commands for one connection.
#[derive(Default)]
pub(super) struct MemberWrites {
    commands: Option<Commands>,
    /// The swarm of each command.
    swarms: Vec<InfoHash>,
}

// === impl MemberText ===

impl MemberText {
    pub(super) fn of(record: &PeerRecord, standing: &Standing) -> Self {
        Self::new(codec::encode_member(record, standing), record)
    }

    /// The same, of which the text is known.
    pub(super) fn new(text: String, record: &PeerRecord) -> Self {
        Self {
            text,
            age: record.age(),
        }
    }
}

// === impl MemberWrites ===

impl MemberWrites {
    /// Adds members of one swarm, by their fields.
    pub(super) fn add<'a>(
        &mut self,
        info_hash: InfoHash,
        members: impl Iterator<Item = (&'a String, &'a MemberText)>,
    ) {
        let key = keys::swarm(info_hash);
        let mut members = members.peekable();
        while members.peek().is_some() {
            let mut put = PUT_UNLESS_NEWER.call(&key);
            for (field, MemberText { text, age }) in members.by_ref().take(SCRIPT_MAX) {
                put.arg(field).arg(text).arg(age.announces);
                put.arg(age.first_announce).arg(age.last_announce);
                put.arg(u8::from(age.active));
            }
            let commands = &mut self.commands;
            let commands = commands.get_or_insert_with(|| Commands::with_script(&PUT_UNLESS_NEWER));
            commands.push(put);
            self.swarms.push(info_hash);
        }
    }

    /// Sends them; returns the members that were left alone, because Redis has newer records.
    pub(super) async fn run(
        self,
        session: &RedisSession<'_>,
    ) -> Result<HashSet<MemberKey>, CacheError> {
        let replies = session.run(self.commands.unwrap_or_default()).await?;
        let mut skipped = HashSet::new();
        for (info_hash, reply) in self.swarms.into_iter().zip(replies) {
            let fields = reply::list(reply).unwrap_or_default();
            for field in fields.into_iter().filter_map(reply::text) {
                if let Some(keys::PeerField::Member(user, peer_id)) = keys::peer_of(&field) {
                    skipped.insert((info_hash, user, peer_id));
                }
            }
        }
        Ok(skipped)
    }
}

pub(super) async fn peers(
    link: &RedisLink,
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
    link: &RedisLink,
    swarms: &[(InfoHash, Vec<SharedPeer>)],
) -> Result<Vec<MemberKey>, CacheError> {
    let session = link.session().await?;
    let written = parking_lot::Mutex::new(Vec::new());
    side_by_side(swarms.chunks(WRITE_MAX), |chunk| {
        let (session, written) = (&session, &written);
        async move {
            let found = put_chunk(session, chunk).await?;
            written.lock().extend(found);
            Ok(())
        }
    })
    .await?;
    Ok(written.into_inner())
}

async fn put_chunk(
    session: &RedisSession<'_>,
    swarms: &[(InfoHash, Vec<SharedPeer>)],
) -> Result<Vec<MemberKey>, CacheError> {
    let mut guests = Commands::default();
    let mut members = MemberWrites::default();
    let mut given = Vec::new();
    for (info_hash, peers) in swarms {
        let key = keys::swarm(*info_hash);
        let mut set = Fields::new("HSET", &key);
        let mut texts = Vec::new();
        for peer in peers {
            match peer {
                SharedPeer::Member(member) => {
                    given.push((*info_hash, member.user, member.peer_id));
                    let field = keys::member_field(member.user, &member.peer_id);
                    texts.push((field, MemberText::of(&member.record, &member.standing)));
                }
                SharedPeer::Guest { address, record } => {
                    let (field, text) = (keys::guest_field(*address), codec::encode_guest(record));
                    set.add(&mut guests, &[&field, &text]);
                }
            }
        }
        set.end(&mut guests);
        members.add(*info_hash, texts.iter().map(|(field, text)| (field, text)));
    }
    session.run(guests).await?;
    let skipped = members.run(session).await?;
    given.retain(|member| !skipped.contains(member));
    Ok(given)
}

/// Torrents that have peers, and the next cursor.
pub(super) async fn scan(
    link: &RedisLink,
    cursor: u64,
) -> Result<(Vec<InfoHash>, Option<u64>), CacheError> {
    let session = link.session().await?;
    let (found, next) = scan_keys(link, &session, keys::ALL_SWARMS, cursor).await?;
    let hashes = found.iter().filter_map(|key| keys::swarm_of(key));
    Ok((hashes.collect(), next))
}

/// Prunes one page of a scan: removes peers whose last announce is too long ago.
pub(super) async fn prune(
    link: &RedisLink,
    cursor: u64,
    members_before: i64,
    guests_before: i64,
) -> Result<Option<u64>, CacheError> {
    let (torrents, next) = scan(link, cursor).await?;
    let mut commands = Commands::default();
    for (info_hash, peers) in peers(link, &torrents).await? {
        let key = keys::swarm(info_hash);
        let mut remove = Fields::new("HDEL", &key);
        for peer in peers {
            let old = match peer {
                SharedPeer::Member(member) if member.record.last_announce < members_before => {
                    keys::member_field(member.user, &member.peer_id)
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
    Ok(next)
}

pub(super) async fn remove(link: &RedisLink, torrents: &[InfoHash]) -> Result<(), CacheError> {
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
