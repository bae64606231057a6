//! The state derived from batches: the keys of swarms, counters and users' sets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::{Cmd, ServerError, Value, cmd};

use super::commands::{Commands, Fields, ListFields};
use super::session::RedisSession;
use super::swarms::{MemberKey, MemberText, MemberWrites};
use super::{keys, reply};
use crate::base::hash::RandomState;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::cache::{CacheError, Membership};
use crate::change::codec::{self, Lines};
use crate::change::sums::{Credited, Sum};
use crate::change::{Batch, Change, PeerChange, SwarmCounts, packed};

/// The largest number that Redis counts to.
const COUNT_MAX: u64 = i64::MAX.cast_unsigned();

type Map<K, V> = HashMap<K, V, RandomState>;

/// The outcome of some batches: the last state of all they touched, and sums.
#[derive(Default)]
pub(super) struct Derived {
    /// Private peers by field.
    members: Map<InfoHash, Map<String, MemberText>>,
    /// Public peers by field; none to remove it.
    guests: Map<InfoHash, Map<String, Option<String>>>,
    torrents: Map<InfoHash, TorrentTally>,
    users: Map<UserId, Sum>,
    /// With the peer whose record they are from.
    sets: Map<(UserId, TorrentId), (MemberKey, Membership)>,
}

#[derive(Default)]
struct TorrentTally {
    counts: Option<SwarmCounts>,
    sum: Sum,
}

/// The changes of a batch, as its entry in the journal has them.
pub(super) struct EntryText {
    pub lines: Arc<Lines>,
    /// Public peers that are not among the lines.
    pub guests: Vec<u8>,
}

impl Derived {
    /// Only the present counters of swarms.
    pub(super) fn of_counts(counts: &[(InfoHash, SwarmCounts)]) -> Self {
        let mut derived = Self::default();
        for (info_hash, counts) in counts {
            let torrent = derived.torrents.entry(*info_hash).or_default();
            torrent.counts = Some(*counts);
        }
        derived
    }

    /// Only what storage credited.
    pub(super) fn of_credited(credited: &Credited) -> Self {
        let mut derived = Self::default();
        for (info_hash, sum) in &credited.torrents {
            derived.torrents.entry(*info_hash).or_default().sum = *sum;
        }
        derived.users.extend(&credited.users);
        derived
    }

    /// Adds the changes of a later batch; returns them as its entry has them, public peers packed if all nodes read that.
    pub(super) fn add(&mut self, batch: &Batch, packs_guests: bool) -> EntryText {
        let changes = &batch.changes;
        let guests = if packs_guests {
            packed::pack(changes)
        } else {
            Vec::new()
        };
        let lines = if guests.is_empty() {
            batch.lines()
        } else {
            let others = changes.iter().filter(|change| change.guest().is_none());
            Arc::new(Lines::of(others))
        };
        let peers = changes.iter().filter_map(Change::peer);
        debug_assert_eq!(peers.clone().count(), lines.members().count());
        for (change, part) in peers.zip(lines.members()) {
            self.add_peer(change, codec::member_of(part));
        }
        // Snatches are left out: storage decides the credit.
        for guest in changes.iter().filter_map(Change::guest) {
            let record = &guest.record;
            let text = record.active.then(|| codec::encode_guest(record));
            let swarm = self.guests.entry(guest.info_hash).or_default();
            swarm.insert(keys::guest_field(guest.address), text);
        }
        EntryText { lines, guests }
    }

    /// `text` is what the hash of its swarm has of it.
    fn add_peer(&mut self, change: &PeerChange, text: String) {
        let PeerChange {
            key,
            record,
            standing,
            ..
        } = change;
        let field = keys::member_field(key.user, &key.peer_id);
        let swarm = self.members.entry(change.info_hash).or_default();
        swarm.insert(field, MemberText::new(text, record));

        let membership = Membership::of(key.user, key.torrent, record, standing);
        let peer = (change.info_hash, key.user, key.peer_id);
        self.sets
            .insert((key.user, key.torrent), (peer, membership));

        let torrent = self.torrents.entry(change.info_hash).or_default();
        torrent.counts = Some(change.counts);
    }

    /// Writes the keys. Private peers with newer records are left alone, and so are the sets of their users.
    pub(super) async fn write(self, session: &RedisSession<'_>) -> Result<(), CacheError> {
        let mut guests = Commands::default();
        write_guests(&mut guests, self.guests);
        let mut members = MemberWrites::default();
        for (info_hash, peers) in &self.members {
            members.add(*info_hash, peers.iter());
        }
        // Without a row in the registry, no counters are written: a hash with counters only would be half
        // a row.
        // All are finished, even if one fails: in a cluster, other masters may take what one of them can't.
        let (guests, skipped, torrents, users) = tokio::join!(
            session.run(guests),
            members.run(session),
            registered(session, self.torrents, |hash| {
                let mut ask = cmd("HGET");
                ask.arg(keys::torrent(*hash)).arg("torrent_id").take()
            }),
            registered(session, self.users, |id| {
                cmd("HEXISTS").arg(keys::user(*id)).arg("passkey").take()
            })
        );
        let (_, skipped, torrents, users) = (guests?, skipped?, torrents?, users?);
        let sets = self.sets.values();
        let of_written = sets.filter(|(peer, _)| !skipped.contains(peer));
        let mut commands = Commands::default();
        write_sets(&mut commands, of_written.map(|(_, membership)| membership));
        write_torrents(&mut commands, &torrents, session.link.is_cluster());
        for (id, _, user) in &users {
            write_user(&mut commands, *id, user);
        }
        session.run_unordered(commands, is_full).await
    }
}

/// A counter that would overflow, or is no number, is left alone: storage has the right one.
fn is_full(error: &ServerError) -> bool {
    error.details().is_some_and(|detail| {
        detail.contains("would overflow") || detail.contains("is not an integer")
    })
}

/// The items whose row exists, with the reply to its command.
async fn registered<K, V>(
    session: &RedisSession<'_>,
    rows: Map<K, V>,
    ask: impl Fn(&K) -> Cmd,
) -> Result<Vec<(K, Value, V)>, CacheError> {
    let questions: Commands = rows.keys().map(ask).collect();
    let answers = session.run(questions).await?;
    let known = |((key, row), answer): ((K, V), Value)| {
        let is_there = !matches!(answer, Value::Nil | Value::Int(0));
        is_there.then_some((key, answer, row))
    };
    Ok(rows.into_iter().zip(answers).filter_map(known).collect())
}

fn write_guests(commands: &mut Commands, swarms: Map<InfoHash, Map<String, Option<String>>>) {
    for (info_hash, peers) in swarms {
        let key = keys::swarm(info_hash);
        let (mut set, mut remove) = (Fields::new("HSET", &key), Fields::new("HDEL", &key));
        for (field, text) in peers {
            match text {
                Some(text) => set.add(commands, &[&field, &text]),
                None => remove.add(commands, &[&field]),
            }
        }
        set.end(commands);
        remove.end(commands);
    }
}

/// Writes users' sets alone.
pub(super) async fn put_memberships(
    session: &RedisSession<'_>,
    memberships: &[Membership],
) -> Result<(), CacheError> {
    let mut commands = Commands::default();
    write_sets(&mut commands, memberships.iter());
    session.run(commands).await.map(drop)
}

fn write_sets<'a>(commands: &mut Commands, memberships: impl Iterator<Item = &'a Membership>) {
    // Grouped by user, so that one command writes all torrents of a set.
    let mut by_user: BTreeMap<UserId, Vec<&Membership>> = BTreeMap::new();
    for membership in memberships {
        by_user.entry(membership.user).or_default().push(membership);
    }
    for (user, memberships) in by_user {
        for set in keys::USER_SETS {
            let key = keys::user_set(set, user);
            let (mut add, mut remove) = (Fields::new("SADD", &key), Fields::new("SREM", &key));
            for membership in &memberships {
                let id = membership.torrent.0.to_string();
                match is_in(membership, set) {
                    Some(true) => add.add(commands, &[&id]),
                    Some(false) => remove.add(commands, &[&id]),
                    None => {}
                }
            }
            add.end(commands);
            remove.end(commands);
        }
    }
}

/// Whether a torrent belongs in one of [`keys::USER_SETS`]; none leaves the set unchanged.
fn is_in(membership: &Membership, set: &str) -> Option<bool> {
    match set {
        keys::ACTIVE => membership.active,
        keys::INCOMPLETE => membership.incomplete,
        keys::COMPLETE => membership.complete,
        keys::HNR => membership.hnr,
        _ => None,
    }
}

fn write_torrents(
    commands: &mut Commands,
    torrents: &[(InfoHash, Value, TorrentTally)],
    is_split: bool,
) {
    let mut seeders = ListFields::new("ZADD", keys::SEEDERS, is_split);
    let mut leechers = ListFields::new("ZADD", keys::LEECHERS, is_split);
    for (info_hash, id, torrent) in torrents {
        let key = keys::torrent(*info_hash);
        let id = reply::text(id.clone()).unwrap_or_default();
        if let Some(counts) = torrent.counts {
            let mut set = cmd("HSET");
            set.arg(&key).arg("seeders").arg(counts.seeders);
            commands.push(set.arg("leechers").arg(counts.leechers).take());
            seeders.add(commands, &id, &[&counts.seeders.to_string(), &id]);
            leechers.add(commands, &id, &[&counts.leechers.to_string(), &id]);
        }
        let sum = &torrent.sum;
        count(commands, &key, "uploaded", sum.raw_up);
        count(commands, &key, "downloaded", sum.raw_down);
        count(commands, &key, "announces", sum.announces);
        count(commands, &key, "snatches", sum.snatches);
        if sum.snatches > 0 {
            let mut add = cmd("ZINCRBY");
            add.arg(keys::list(keys::SNATCHES, &id, is_split));
            add.arg(sum.snatches).arg(id);
            commands.push(add);
        }
    }
    seeders.end(commands);
    leechers.end(commands);
}

fn count(commands: &mut Commands, key: &str, field: &str, number: u64) {
    if number > 0 {
        let mut add = cmd("HINCRBY");
        let number = number.min(COUNT_MAX);
        commands.push(add.arg(key).arg(field).arg(number).take());
    }
}

fn write_user(commands: &mut Commands, id: UserId, sum: &Sum) {
    let key = keys::user(id);
    count(commands, &key, "uploaded", sum.up);
    count(commands, &key, "downloaded", sum.down);
    count(commands, &key, "snatches", sum.snatches);
    count(commands, &key, "announces", sum.announces);
    count(commands, &key, "seed_time", sum.seed_time);
}
