//! The names of all keys, which are spelled out in no other file. docs/redis.md documents them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::slots::TAGS;
use crate::base::ids::{InfoHash, PeerId, UserId};

pub(super) const WHITELIST: &str = "t:whitelist";
pub(super) const REGISTRY: &str = "t:registry";
pub(super) const CONTROL: &str = "t:control";
pub(super) const NODES: &str = "t:nodes";
pub(super) const REPLAYED: &str = "t:replayed";

/// Sorted sets of torrent ids; the score is the counter. See [`list_parts`].
pub(super) const SEEDERS: &str = "t:i:seeders";
pub(super) const LEECHERS: &str = "t:i:leechers";
pub(super) const SNATCHES: &str = "t:i:snatches";
pub(super) const LISTS: [&str; 3] = [SEEDERS, LEECHERS, SNATCHES];

pub(super) const STATS_ANNOUNCES: &str = "t:stats:announces";
pub(super) const STATS_SCRAPES: &str = "t:stats:scrapes";
pub(super) const STATS_SEEDERS: &str = "t:stats:seeders";
pub(super) const STATS_LEECHERS: &str = "t:stats:leechers";

const PASSKEY: &str = "t:user:";
const USER: &str = "t:u:";
const TORRENT: &str = "t:t:";
const SWARM: &str = "t:p:";

/// Patterns of `SCAN`. After the prefix, users have digits; their sets have names.
pub(super) const ALL_USERS: &str = "t:u:[0-9]*";
pub(super) const ALL_TORRENTS: &str = "t:t:*";
/// Users and torrents, and the sets of users.
pub(super) const ALL_ROWS: &str = "t:[tu]:*";
pub(super) const ALL_SWARMS: &str = "t:p:*";
pub(super) const ALL_PASSKEYS: &str = "t:user:*";
pub(super) const ALL: &str = "t:*";

/// Keys of swarms in the first version of Mika, unused now.
const OLD: [&str; 2] = ["t:tpeers:", "t:ptimeout:"];

/// The kind of a key, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    User(UserId),
    UserSet(UserId),
    Torrent(InfoHash),
    Swarm(InfoHash),
    Passkey,
    /// From the first version of Mika.
    Old,
    /// Named like a torrent or swarm, but without an info hash as Mika writes it.
    Misnamed,
    Other,
}

/// Each user has these sets of torrents.
pub(super) const USER_SETS: [&str; 4] = [ACTIVE, INCOMPLETE, COMPLETE, HNR];
pub(super) const ACTIVE: &str = "active";
pub(super) const INCOMPLETE: &str = "incomplete";
pub(super) const COMPLETE: &str = "complete";
pub(super) const HNR: &str = "hnr";

/// The peer that a field of a swarm's hash stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerField {
    Member(UserId, PeerId),
    Guest(SocketAddr),
}

pub(super) fn journal(node: &str) -> String {
    format!("t:journal:{node}")
}

pub(super) fn lease(name: &str) -> String {
    format!("t:lease:{name}")
}

/// The epoch of the slot that the tag is of, in a cluster.
pub(super) fn epoch(tag: &str) -> String {
    format!("t:epoch:{{{tag}}}")
}

/// The keys of one of [`LISTS`]: in a cluster it is in parts, with the [`TAGS`] in their names, because all nodes write it.
pub(super) fn list_parts(list: &str, is_split: bool) -> Vec<String> {
    if !is_split {
        return vec![list.to_owned()];
    }
    TAGS.iter().map(|tag| format!("{list}:{{{tag}}}")).collect()
}

/// In which of so many parts a torrent is: its id modulo their number says.
pub(super) fn part_of(torrent: &str, parts: usize) -> usize {
    let id: usize = torrent.parse().unwrap_or(0);
    id.checked_rem(parts).unwrap_or(0)
}

/// The key of the list, or of the part, that a torrent is in.
pub(super) fn list(list: &str, torrent: &str, is_split: bool) -> String {
    let mut keys = list_parts(list, is_split);
    keys.swap_remove(part_of(torrent, keys.len()))
}

pub(super) fn passkey(passkey: &str) -> String {
    format!("{PASSKEY}{passkey}")
}

pub(super) fn user(id: UserId) -> String {
    format!("{USER}{}", id.0)
}

pub(super) fn user_set(set: &str, id: UserId) -> String {
    format!("{USER}{set}:{}", id.0)
}

pub(super) fn torrent(info_hash: InfoHash) -> String {
    format!("{TORRENT}{info_hash}")
}

/// The hash of a swarm's peers. `swarms::MemberWrites::add` writes members to it, `derived::write_guests` and
/// `swarms::put_chunk` write guests. `write_guests` removes those that left, `swarms::prune` and `upkeep::clean` old
/// peers, `swarms::remove_swarms` and `torrents::remove_chunk` the whole hash. `swarms::peers` and
/// `leftovers::find_peers` read it.
pub(super) fn swarm(info_hash: InfoHash) -> String {
    format!("{SWARM}{info_hash}")
}

pub(super) fn user_of(key: &str) -> Option<UserId> {
    key.strip_prefix(USER)?.parse().ok().map(UserId)
}

pub(super) fn torrent_of(key: &str) -> Option<InfoHash> {
    key.strip_prefix(TORRENT)?.parse().ok()
}

pub(super) fn swarm_of(key: &str) -> Option<InfoHash> {
    key.strip_prefix(SWARM)?.parse().ok()
}

pub(super) fn passkey_of(key: &str) -> Option<&str> {
    key.strip_prefix(PASSKEY)
}

pub(super) fn kind_of(key: &[u8]) -> KeyKind {
    if OLD.iter().any(|prefix| key.starts_with(prefix.as_bytes())) {
        return KeyKind::Old;
    }
    let Ok(key) = std::str::from_utf8(key) else {
        return KeyKind::Other;
    };
    if let Some(id) = user_of(key) {
        return KeyKind::User(id);
    }
    if passkey_of(key).is_some() {
        return KeyKind::Passkey;
    }
    let is_set = |set: &str| user_set_of(set, key).map(KeyKind::UserSet);
    if let Some(kind) = USER_SETS.into_iter().find_map(is_set) {
        return kind;
    }
    // An info hash in another form, such as upper case, is a key that is never read.
    match (torrent_of(key), swarm_of(key)) {
        (Some(hash), _) if torrent(hash) == key => KeyKind::Torrent(hash),
        (_, Some(hash)) if swarm(hash) == key => KeyKind::Swarm(hash),
        _ if key.starts_with(TORRENT) || key.starts_with(SWARM) => KeyKind::Misnamed,
        _ => KeyKind::Other,
    }
}

fn user_set_of(set: &str, key: &str) -> Option<UserId> {
    let id = key.strip_prefix(USER)?.strip_prefix(set)?;
    id.strip_prefix(':')?.parse().ok().map(UserId)
}

/// A key for logs and errors, without a passkey.
pub(super) fn shown(key: &str) -> &str {
    if key.starts_with(PASSKEY) {
        return "t:user:***";
    }
    key
}

pub(super) fn member_field(user: UserId, peer_id: &PeerId) -> String {
    let mut field = String::with_capacity(51);
    // Writing to a string can't fail.
    let _ = write!(field, "{}:", user.0);
    peer_id.append_hex(&mut field);
    field
}

pub(super) fn guest_field(address: SocketAddr) -> String {
    address.to_string()
}

/// Parses what [`member_field`] or [`guest_field`] wrote.
pub(super) fn peer_of(field: &str) -> Option<PeerField> {
    let member = field
        .split_once(':')
        .and_then(|(user, peer_id)| Some((user.parse().ok()?, PeerId::from_hex(peer_id)?)));
    match member {
        Some((user, peer_id)) => Some(PeerField::Member(UserId(user), peer_id)),
        None => field.parse().ok().map(PeerField::Guest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_fields_are_read_as_they_were_written() {
        let (id, hash) = (UserId(7), InfoHash([0xab; 20]));
        assert_eq!(user_of(&user(id)), Some(id));
        assert_eq!(user_of(&user_set(ACTIVE, id)), None);
        assert_eq!(torrent_of(&torrent(hash)), Some(hash));
        assert_eq!(swarm_of(&swarm(hash)), Some(hash));
        assert_eq!(swarm_of(&torrent(hash)), None);

        let peer_id = PeerId(*b"-TR3000-\0\xff 123456789");
        let field = member_field(id, &peer_id);
        assert_eq!(field, "7:2d5452333030302d00ff20313233343536373839");
        assert_eq!(peer_of(&field), Some(PeerField::Member(id, peer_id)));
        for address in ["10.0.0.1:6881", "[2001:db8::1]:6881"] {
            let address = address.parse().unwrap();
            assert_eq!(
                peer_of(&guest_field(address)),
                Some(PeerField::Guest(address))
            );
        }
        for damaged in ["", "7", "7:ab", "x:y", "10.0.0.1"] {
            assert_eq!(peer_of(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_name() {
        let (id, hash) = (UserId(7), InfoHash([0xab; 20]));
        for (key, kind) in [
            (user(id), KeyKind::User(id)),
            (user_set(HNR, id), KeyKind::UserSet(id)),
            (torrent(hash), KeyKind::Torrent(hash)),
            (
                torrent(hash).to_uppercase().replace("T:", "t:"),
                KeyKind::Misnamed,
            ),
            (swarm(hash), KeyKind::Swarm(hash)),
            ("t:p:x".into(), KeyKind::Misnamed),
            (passkey("passkey-1"), KeyKind::Passkey),
            (format!("t:tpeers:{hash}"), KeyKind::Old),
            ("t:u:others:7".into(), KeyKind::Other),
            (CONTROL.into(), KeyKind::Other),
        ] {
            assert_eq!(kind_of(key.as_bytes()), kind, "{key}");
        }
        assert_eq!(kind_of(b"t:ptimeout:00:\xff\xfe"), KeyKind::Old);
        assert_eq!(kind_of(b"t:\xff"), KeyKind::Other);
    }

    #[test]
    fn lists_are_split_in_a_cluster() {
        assert_eq!(list(SEEDERS, "17", false), "t:i:seeders");
        assert_eq!(list(SEEDERS, "17", true), "t:i:seeders:{3}");
        assert_eq!(list(SNATCHES, "16", true), "t:i:snatches:{10}");
        let parts: std::collections::HashSet<String> = (0..100)
            .map(|id| list(SEEDERS, &id.to_string(), true))
            .collect();
        assert_eq!(parts.len(), TAGS.len());
    }

    #[test]
    fn a_passkey_is_never_shown() {
        assert_eq!(shown(&passkey("passkey-1")), "t:user:***");
        assert_eq!(shown("t:u:1"), "t:u:1");
    }
}
