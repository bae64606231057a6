//! An entry of a private swarm as bytes: a client with its account, or the history of a user without
//! clients.
//!
//! ```text
//! a client:  user 4 | flags 2 | peer id 20 | last announce 4
//!            | IPv4 endpoint 6 | IPv6 endpoint 18 | when each was seen, if not at the last announce, or given up, 4
//!            | ten widths of half a byte | the ten numbers, as many bytes as their widths say
//!            | where sessions began, if that is known: a byte of widths and the totals, unless both are 0 at the
//!            | same time; and their Unix times, 4 or 8
//!            | rarely: times of dips, several machines, debts to the journal, a history of its own
//! a history: user 4 | flags 2 | its numbers
//! ```
//!
//! Numbers take as many bytes as they need, from none for 0 up to 8; a width says how many. Times are
//! moments on the monotonic clock, except when sessions began and snatches were made: Unix times. One of a
//! user's entries *carries* the user's history, which takes no room while it equals the account beside it.

use std::ops::Range;

use crate::base::addr::{Compact, Compact4, Compact6};
use crate::base::clock::Seconds;
use crate::base::ids::{PeerId, UserId};
use crate::swarm::classes::Role;
use crate::swarm::private::peer::{PeerState, SeenEndpoint};
use crate::swarm::private::varint_buf::{ROOM, VarintBuf};
use crate::swarm::records::UserHistory;

/// The longest entry: with all parts, and all numbers at their largest.
pub(super) const LEN_MAX: usize = 246;

// The length of an entry is kept in a byte.
const _: () = assert!(LEN_MAX <= u8::MAX as usize);

const FLAGS_AT: usize = 4;
const PEER_ID_AT: usize = 6;
const LAST_AT: usize = 26;
const ENDPOINTS_AT: usize = 30;

// Flags; those from bit 10 to 14 belong to the history, see `varint_buf`.

/// Not a client: a history only.
const IS_HISTORY: u16 = 1 << 0;
const HAS_V4: u16 = 1 << 1;
const HAS_V6: u16 = 1 << 2;
/// A time is kept: when the endpoint was seen, if not at the last announce; or, where there is no endpoint, when
/// it was given up.
const SEEN_V4: u16 = 1 << 3;
const SEEN_V6: u16 = 1 << 4;
/// The base was set at another time than the last announce.
const HAS_BASE_AT: u16 = 1 << 5;
const HAS_DIP_UP: u16 = 1 << 6;
const HAS_DIP_DOWN: u16 = 1 << 7;
const OWES: u16 = 1 << 8;
/// The user's history is here.
const CARRIES: u16 = 1 << 9;
/// Several machines report under the peer id.
const HAS_MACHINES: u16 = 1 << 15;

/// The part of an entry that is scanned first: four bits of the user's hash, and its [class](Tag::class).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(pub u8);

/// An entry to put into a block.
pub(super) struct PackedEntry {
    bytes: [u8; ROOM],
    len: usize,
    pub tag: Tag,
}

/// An entry in its block.
#[derive(Clone, Copy)]
pub(super) struct EntryView<'a> {
    pub bytes: &'a [u8],
    pub tag: Tag,
}

// === impl Tag ===

impl Tag {
    /// Not in the swarm: tombstones and histories.
    pub const OUTSIDE: u8 = 12;

    fn new(user: UserId, role: Option<Role>, v4: bool, v6: bool) -> Self {
        let reach = match (v4, v6) {
            (true, false) => 0,
            (true, true) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        let class = role.map_or(Self::OUTSIDE, |role| Self::first_class(role) + reach);
        Self(Self::hash(user) | class)
    }

    /// The classes of that role.
    pub fn classes(role: Role) -> Range<u8> {
        let first = Self::first_class(role);
        first..first + 4
    }

    fn first_class(role: Role) -> u8 {
        match role {
            Role::Leecher => 0,
            Role::Paused => 4,
            Role::Seeder => 8,
        }
    }

    fn hash(user: UserId) -> u8 {
        (user.0.wrapping_mul(0x9e37_79b9) >> 24) as u8 & 0xf0
    }

    pub fn may_be(self, user: UserId) -> bool {
        self.0 & 0xf0 == Self::hash(user)
    }

    /// Four classes for each role, by the families in which a peer has a port: IPv4, both, IPv6, none. So
    /// the peers of a role that one family can reach are contiguous.
    pub fn class(self) -> u8 {
        self.0 & 0x0f
    }

    /// Whether it has a port in IPv4, and in IPv6; none if it has one in neither.
    pub fn families(self) -> Option<(bool, bool)> {
        match self.class() % 4 {
            0 => Some((true, false)),
            1 => Some((true, true)),
            2 => Some((false, true)),
            _ => None,
        }
    }

    pub fn role(self) -> Option<Role> {
        match self.class() / 4 {
            0 => Some(Role::Leecher),
            1 => Some(Role::Paused),
            2 => Some(Role::Seeder),
            _ => None,
        }
    }
}

// === impl PackedEntry ===

impl PackedEntry {
    /// A client, and the history of its user if this entry is to carry it.
    pub fn client(peer: &PeerState, history: Option<&UserHistory>) -> Self {
        let account = &peer.account;
        let last = account.last_announce;
        let mut flags = 0;
        let mut out = VarintBuf::new(ENDPOINTS_AT);
        if let Some(v4) = &peer.v4 {
            flags |= HAS_V4;
            out.put(v4.endpoint.0);
        }
        if let Some(v6) = &peer.v6 {
            flags |= HAS_V6;
            out.put(v6.endpoint.0);
        }
        let is_gone = peer.role.is_none();
        let moment = |seen: Option<Seconds>, left: Option<Seconds>| {
            // A tombstone left with its last announce, unless another time is kept.
            let left = left.filter(|&at| !is_gone || at != last);
            seen.filter(|&at| at != last).or(left)
        };
        let at_v4 = moment(peer.v4.as_ref().map(|seen| seen.at), peer.left_v4);
        let at_v6 = moment(peer.v6.as_ref().map(|seen| seen.at), peer.left_v6);
        flags |= out.put_some(at_v4, SEEN_V4);
        flags |= out.put_some(at_v6, SEEN_V6);
        out.put_account(account);
        flags |= out.put_unless(last, Some(account.base_at), HAS_BASE_AT);
        flags |= out.put_some(account.dip_up, HAS_DIP_UP);
        flags |= out.put_some(account.dip_down, HAS_DIP_DOWN);
        if let Some(machines) = &account.machines {
            flags |= HAS_MACHINES;
            out.put_machines(machines);
        }
        if let Some(owed) = &peer.owed {
            flags |= OWES;
            out.put_owed(owed);
        }
        if let Some(history) = history {
            let is_same =
                (history.downloaded, history.seed_time) == (account.downloaded, account.seed_time);
            flags |= CARRIES | out.put_history(history, is_same);
        }
        let end = std::mem::replace(&mut out.at, 0);
        out.put(peer.user.0.to_le_bytes());
        out.put(flags.to_le_bytes());
        out.put(peer.peer_id.0);
        out.put(last.0.to_le_bytes());
        let (v4, v6) = peer.endpoints();
        let has_port = (
            v4.is_some_and(|v4| v4.port() != 0),
            v6.is_some_and(|v6| v6.port() != 0),
        );
        Self {
            bytes: out.bytes,
            len: end,
            tag: Tag::new(peer.user, peer.role(), has_port.0, has_port.1),
        }
    }

    /// The history of a user without clients in this swarm.
    pub fn history(history: &UserHistory) -> Self {
        let mut out = VarintBuf::new(PEER_ID_AT);
        let flags = IS_HISTORY | CARRIES | out.put_history(history, false);
        let end = std::mem::replace(&mut out.at, 0);
        out.put(history.user.0.to_le_bytes());
        out.put(flags.to_le_bytes());
        Self {
            bytes: out.bytes,
            len: end,
            tag: Tag::new(history.user, None, false, false),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<EntryView<'_>> for PackedEntry {
    fn from(view: EntryView<'_>) -> Self {
        let mut bytes = [0; ROOM];
        bytes[..view.bytes.len()].copy_from_slice(view.bytes);
        Self {
            bytes,
            len: view.bytes.len(),
            tag: view.tag,
        }
    }
}

// === impl EntryView ===

impl EntryView<'_> {
    pub fn user(&self) -> UserId {
        UserId(self.u32_at(0))
    }

    pub fn is_client(&self) -> bool {
        !self.has(IS_HISTORY)
    }

    pub fn is(&self, user: UserId, peer_id: &PeerId) -> bool {
        self.user() == user && self.is_client() && self.bytes[PEER_ID_AT..LAST_AT] == peer_id.0
    }

    pub fn peer_id(&self) -> PeerId {
        PeerId(self.array_at(PEER_ID_AT))
    }

    pub fn carries_history(&self) -> bool {
        self.has(CARRIES)
    }

    pub fn owes(&self) -> bool {
        self.has(OWES)
    }

    /// When a client last announced.
    pub fn last_announce(&self) -> Seconds {
        Seconds(self.u32_at(LAST_AT))
    }

    pub fn v4(&self) -> Option<SeenEndpoint<Compact4>> {
        self.has(HAS_V4).then(|| SeenEndpoint {
            endpoint: Compact4(self.array_at(ENDPOINTS_AT)),
            at: self.moment_v4().unwrap_or(self.last_announce()),
        })
    }

    pub fn v6(&self) -> Option<SeenEndpoint<Compact6>> {
        if !self.has(HAS_V6) {
            return None;
        }
        let at = ENDPOINTS_AT + self.len_of(HAS_V4);
        Some(SeenEndpoint {
            endpoint: Compact6(self.array_at(at)),
            at: self.moment_v6().unwrap_or(self.last_announce()),
        })
    }

    /// Whether a client is there by IPv4, and by IPv6.
    pub fn families(&self) -> (bool, bool) {
        (self.has(HAS_V4), self.has(HAS_V6))
    }

    /// Whether a client was last seen before `moment` in any of its families.
    pub fn is_any_seen_before(&self, moment: Seconds) -> bool {
        // An endpoint is never seen after the last announce; most were seen at it.
        self.last_announce() < moment
            || (self.has(SEEN_V4) && self.v4().is_some_and(|seen| seen.at < moment))
            || (self.has(SEEN_V6) && self.v6().is_some_and(|seen| seen.at < moment))
    }

    /// Reads the whole entry: the client, unless it is a history only, and the history if it carries one.
    pub fn unpack(&self) -> (Option<PeerState>, Option<UserHistory>) {
        let user = self.user();
        let flags = self.flags();
        let has = |flag| flags & flag != 0;
        let mut bytes = [0; ROOM];
        bytes[..self.bytes.len()].copy_from_slice(self.bytes);
        if has(IS_HISTORY) {
            let mut input = VarintBuf {
                bytes,
                at: PEER_ID_AT,
            };
            return (None, Some(input.history(user, flags, (0, 0))));
        }
        let (v4, v6) = (self.v4(), self.v6());
        let parts = [HAS_V4, HAS_V6, SEEN_V4, SEEN_V6].map(|flag| self.len_of(flag));
        let mut input = VarintBuf {
            bytes,
            at: ENDPOINTS_AT + parts.iter().sum::<usize>(),
        };
        let last = self.last_announce();
        let mut account = input.account(last);
        if has(HAS_BASE_AT) {
            account.base_at = input.moment();
        }
        account.dip_up = has(HAS_DIP_UP).then(|| input.moment());
        account.dip_down = has(HAS_DIP_DOWN).then(|| input.moment());
        account.machines = has(HAS_MACHINES).then(|| input.machines());
        let owed = has(OWES).then(|| input.owed());
        let counted = (account.downloaded, account.seed_time);
        let history = has(CARRIES).then(|| input.history(user, flags, counted));
        let peer = PeerState {
            user,
            peer_id: self.peer_id(),
            account,
            owed,
            role: self.tag.role(),
            v4,
            v6,
            left_v4: self.left(HAS_V4, self.moment_v4()),
            left_v6: self.left(HAS_V6, self.moment_v6()),
        };
        (Some(peer), history)
    }

    /// When the endpoint that `flag` stands for was given up; none while the entry has it.
    fn left(&self, flag: u16, moment: Option<Seconds>) -> Option<Seconds> {
        if self.has(flag) {
            return None;
        }
        let is_gone = self.tag.role().is_none();
        moment.or(is_gone.then(|| self.last_announce()))
    }

    /// When the IPv4 endpoint was seen or given up, if that is kept.
    fn moment_v4(&self) -> Option<Seconds> {
        let at = ENDPOINTS_AT + self.len_of(HAS_V4) + self.len_of(HAS_V6);
        self.has(SEEN_V4).then(|| Seconds(self.u32_at(at)))
    }

    fn moment_v6(&self) -> Option<Seconds> {
        let at = ENDPOINTS_AT + self.len_of(HAS_V4) + self.len_of(HAS_V6) + self.len_of(SEEN_V4);
        self.has(SEEN_V6).then(|| Seconds(self.u32_at(at)))
    }

    /// The length of the part that a flag stands for.
    fn len_of(&self, flag: u16) -> usize {
        match flag {
            _ if !self.has(flag) => 0,
            HAS_V4 => 6,
            HAS_V6 => 18,
            _ => 4,
        }
    }

    fn flags(&self) -> u16 {
        u16::from_le_bytes(self.array_at(FLAGS_AT))
    }

    fn has(&self, flag: u16) -> bool {
        self.flags() & flag != 0
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array_at(at))
    }

    fn array_at<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }
}
