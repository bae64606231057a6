//! An entry of a private swarm as bytes: a client with its account, or what a user who has no
//! client left did with the torrent.
//!
//! ```text
//! a client:  user 4 | flags 2 | peer id 20 | last announce 4
//!            | IPv4 endpoint 6 | IPv6 endpoint 18 | when each was seen, if not at the last announce, 4
//!            | ten widths of half a byte | the ten numbers, as many bytes as their widths say
//!            | what is rare: times of dips, debts to the journal, a history of its own
//! a history: user 4 | flags 2 | its numbers
//! ```
//!
//! Every number is kept whole: a width says how many bytes it needs, from none for 0 to 8. Times
//! are moments on the monotonic clock. One of a user's entries *carries* the user's history; as
//! long as that says the same as the account beside it, it takes no room.

use crate::addr::{Compact, Compact4, Compact6};
use crate::clock::Seconds;
use crate::ids::{PeerId, UserId};
use crate::swarm::classes::Role;
use crate::swarm::private::peer::{Peer, Seen};
use crate::swarm::records::{Account, History, Owed};

/// The longest entry, all that there is in it and all numbers at their largest.
pub(super) const LEN_MAX: usize = 186;

/// Room for it, and for writing a whole 8 bytes where the last number begins.
const ROOM: usize = LEN_MAX + 8;

// The length of an entry is kept in a byte.
const _: () = assert!(LEN_MAX <= u8::MAX as usize);

const FLAGS_AT: usize = 4;
const PEER_ID_AT: usize = 6;
const LAST_AT: usize = 26;
const ENDPOINTS_AT: usize = 30;

/// Not a client: a history only.
const IS_HISTORY: u16 = 1 << 0;
const HAS_V4: u16 = 1 << 1;
const HAS_V6: u16 = 1 << 2;
/// The endpoint was seen at another time than the last announce.
const SEEN_V4: u16 = 1 << 3;
const SEEN_V6: u16 = 1 << 4;
/// The base is of another time than the last announce.
const HAS_BASE_AT: u16 = 1 << 5;
const HAS_DIP_UP: u16 = 1 << 6;
const HAS_DIP_DOWN: u16 = 1 << 7;
const OWES: u16 = 1 << 8;
/// The user's history is here.
const CARRIES: u16 = 1 << 9;
/// It has numbers of its own, not those of the account.
const HAS_NUMBERS: u16 = 1 << 10;
const IS_HNR: u16 = 1 << 11;
const OWES_SNATCH: u16 = 1 << 12;
/// The time of the snatch is there: in 4 bytes, or in 8.
const HAS_SNATCH: u16 = 1 << 13;
const HAS_LONG_SNATCH: u16 = 1 << 14;

/// In place of a width: no number. For a base, none was reported; for bytes left, none are
/// known; for bytes counted, they are the same as the base.
const ABSENT: u64 = 15;

/// What is looked at in an entry before anything else: four bits of the user's hash, and its [class](Tag::class).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(pub u8);

/// An entry to be put into a page.
pub(super) struct Packed {
    bytes: [u8; ROOM],
    len: usize,
    pub tag: Tag,
}

/// An entry in its page.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    pub tag: Tag,
}

/// Writes an entry, or reads one, from the first byte to the last.
struct Cursor {
    bytes: [u8; ROOM],
    at: usize,
}

/// Widths of numbers, half a byte each, the first one lowest.
struct Widths(u64);

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
        let class = match role {
            Some(Role::Leecher) => reach,
            Some(Role::Paused) => 4 + reach,
            Some(Role::Seeder) => 8 + reach,
            None => Self::OUTSIDE,
        };
        Self(Self::hash(user) | class)
    }

    fn hash(user: UserId) -> u8 {
        (user.0.wrapping_mul(0x9e37_79b9) >> 24) as u8 & 0xf0
    }

    pub fn may_be(self, user: UserId) -> bool {
        self.0 & 0xf0 == Self::hash(user)
    }

    /// Four classes a role, by the families in which a peer has a port: IPv4, both, IPv6,
    /// none. So the peers of a role that one family can reach lie side by side.
    pub fn class(self) -> u8 {
        self.0 & 0x0f
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

// === impl Packed ===

impl Packed {
    /// A client, and the history of its user if this entry is to carry it.
    pub fn client(peer: &Peer, history: Option<&History>) -> Self {
        let account = &peer.account;
        let last = account.last_announce;
        let mut flags = 0;
        let mut out = Cursor::new(ENDPOINTS_AT);
        if let Some(v4) = &peer.v4 {
            flags |= HAS_V4;
            out.put(v4.endpoint.0);
        }
        if let Some(v6) = &peer.v6 {
            flags |= HAS_V6;
            out.put(v6.endpoint.0);
        }
        let seen_v4 = peer.v4.as_ref().map(|it| it.at);
        let seen_v6 = peer.v6.as_ref().map(|it| it.at);
        flags |= out.put_unless(last, seen_v4, SEEN_V4);
        flags |= out.put_unless(last, seen_v6, SEEN_V6);
        out.put_account(account);
        flags |= out.put_unless(last, Some(account.base_at), HAS_BASE_AT);
        flags |= out.put_some(account.dip_up, HAS_DIP_UP);
        flags |= out.put_some(account.dip_down, HAS_DIP_DOWN);
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
            v4.is_some_and(|it| it.port() != 0),
            v6.is_some_and(|it| it.port() != 0),
        );
        Self {
            bytes: out.bytes,
            len: end,
            tag: Tag::new(peer.user, peer.role(), has_port.0, has_port.1),
        }
    }

    /// The history of a user who has no client here.
    pub fn history(history: &History) -> Self {
        let mut out = Cursor::new(PEER_ID_AT);
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

impl From<View<'_>> for Packed {
    fn from(view: View<'_>) -> Self {
        let mut bytes = [0; ROOM];
        bytes[..view.bytes.len()].copy_from_slice(view.bytes);
        Self {
            bytes,
            len: view.bytes.len(),
            tag: view.tag,
        }
    }
}

// === impl View ===

impl View<'_> {
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

    pub fn v4(&self) -> Option<Seen<Compact4>> {
        if !self.has(HAS_V4) {
            return None;
        }
        let seen_at = ENDPOINTS_AT + 6 + if self.has(HAS_V6) { 18 } else { 0 };
        Some(Seen {
            endpoint: Compact4(self.array_at(ENDPOINTS_AT)),
            at: self.seen(SEEN_V4, seen_at),
        })
    }

    pub fn v6(&self) -> Option<Seen<Compact6>> {
        if !self.has(HAS_V6) {
            return None;
        }
        let at = ENDPOINTS_AT + if self.has(HAS_V4) { 6 } else { 0 };
        let seen_at = at + 18 + if self.has(SEEN_V4) { 4 } else { 0 };
        Some(Seen {
            endpoint: Compact6(self.array_at(at)),
            at: self.seen(SEEN_V6, seen_at),
        })
    }

    /// Whether a client announced last before `moment`, in any of its families.
    pub fn is_any_seen_before(&self, moment: Seconds) -> bool {
        // An endpoint is never seen after the last announce; most were seen at it.
        self.last_announce() < moment
            || (self.has(SEEN_V4) && self.v4().is_some_and(|it| it.at < moment))
            || (self.has(SEEN_V6) && self.v6().is_some_and(|it| it.at < moment))
    }

    /// Reads the whole entry: the client, unless it is a history only, and the history if it carries one.
    pub fn unpack(&self) -> (Option<Peer>, Option<History>) {
        let user = self.user();
        let flags = self.flags();
        let has = |flag| flags & flag != 0;
        let mut bytes = [0; ROOM];
        bytes[..self.bytes.len()].copy_from_slice(self.bytes);
        if has(IS_HISTORY) {
            let mut input = Cursor {
                bytes,
                at: PEER_ID_AT,
            };
            return (None, Some(input.history(user, flags, (0, 0))));
        }
        let (v4, v6) = (self.v4(), self.v6());
        let ends = [(HAS_V4, 6), (HAS_V6, 18), (SEEN_V4, 4), (SEEN_V6, 4)];
        let ends = ends.map(|(flag, len)| if has(flag) { len } else { 0 });
        let mut input = Cursor {
            bytes,
            at: ENDPOINTS_AT + ends.iter().sum::<usize>(),
        };
        let last = self.last_announce();
        let mut account = input.account(last);
        if has(HAS_BASE_AT) {
            account.base_at = input.moment();
        }
        account.dip_up = has(HAS_DIP_UP).then(|| input.moment());
        account.dip_down = has(HAS_DIP_DOWN).then(|| input.moment());
        let owed = has(OWES).then(|| input.owed());
        let counted = (account.downloaded, account.seed_time);
        let history = has(CARRIES).then(|| input.history(user, flags, counted));
        let peer = Peer {
            user,
            peer_id: self.peer_id(),
            account,
            owed,
            role: self.tag.role(),
            v4,
            v6,
        };
        (Some(peer), history)
    }

    fn flags(&self) -> u16 {
        u16::from_le_bytes(self.array_at(FLAGS_AT))
    }

    fn has(&self, flag: u16) -> bool {
        self.flags() & flag != 0
    }

    fn seen(&self, flag: u16, at: usize) -> Seconds {
        if self.has(flag) {
            Seconds(self.u32_at(at))
        } else {
            self.last_announce()
        }
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

// === impl Cursor: writing ===

impl Cursor {
    fn new(at: usize) -> Self {
        Self {
            bytes: [0; ROOM],
            at,
        }
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    /// Writes a moment, and returns the flag for it, if there is one and it is not `usual`.
    fn put_unless(&mut self, usual: Seconds, moment: Option<Seconds>, flag: u16) -> u16 {
        self.put_some(moment.filter(|&it| it != usual), flag)
    }

    fn put_some(&mut self, moment: Option<Seconds>, flag: u16) -> u16 {
        let Some(moment) = moment else { return 0 };
        self.put(moment.0.to_le_bytes());
        flag
    }

    /// Writes the lower bytes of a number, as many as it needs; returns how many.
    fn put_number(&mut self, number: u64) -> u64 {
        let width = u64::from(71 - (number | 1).leading_zeros()) / 8 * u64::from(number != 0);
        self.bytes[self.at..self.at + 8].copy_from_slice(&number.to_le_bytes());
        self.at += width as usize;
        width
    }

    fn put_number_unless(&mut self, is_absent: bool, number: u64) -> u64 {
        if is_absent {
            return ABSENT;
        }
        self.put_number(number)
    }

    fn put_account(&mut self, account: &Account) {
        let widths_at = self.at;
        self.at += 5;
        let (base_up, base_down) = (account.base_up, account.base_down);
        let age = account
            .last_announce
            .0
            .wrapping_sub(account.first_announce.0);
        let widths = Widths::of([
            self.put_number_unless(base_up == Account::UNREPORTED, base_up),
            self.put_number_unless(base_down == Account::UNREPORTED, base_down),
            self.put_number_unless(account.uploaded == base_up, account.uploaded),
            self.put_number_unless(account.downloaded == base_down, account.downloaded),
            self.put_number_unless(account.left.is_none(), account.left.unwrap_or(0)),
            self.put_number(account.speed_up.into()),
            self.put_number(account.speed_down.into()),
            self.put_number(account.seed_time.into()),
            self.put_number(account.announces.into()),
            self.put_number(age.into()),
        ]);
        let [a, b, c, d, e, ..] = widths.0.to_le_bytes();
        self.bytes[widths_at..widths_at + 5].copy_from_slice(&[a, b, c, d, e]);
    }

    fn put_owed(&mut self, owed: &Owed) {
        let widths_at = self.at;
        self.at += 2;
        let widths = Widths::of([
            self.put_number(owed.uploaded),
            self.put_number(owed.downloaded),
            self.put_number(owed.seed_time.into()),
            self.put_number(owed.announces.into()),
        ]);
        let [a, b, ..] = widths.0.to_le_bytes();
        self.bytes[widths_at..widths_at + 2].copy_from_slice(&[a, b]);
    }

    /// Returns the flags. The numbers are left out where the account beside it says the same.
    fn put_history(&mut self, history: &History, is_same: bool) -> u16 {
        let mut flags = 0;
        if history.hnr {
            flags |= IS_HNR;
        }
        if history.owes_snatch {
            flags |= OWES_SNATCH;
        }
        if let Some(completed_at) = history.completed_at {
            flags |= HAS_SNATCH;
            if let Ok(short) = u32::try_from(completed_at) {
                self.put(short.to_le_bytes());
            } else {
                flags |= HAS_LONG_SNATCH;
                self.put(completed_at.to_le_bytes());
            }
        }
        if !is_same {
            flags |= HAS_NUMBERS;
            let widths_at = self.at;
            self.at += 1;
            let widths = Widths::of([
                self.put_number(history.downloaded),
                self.put_number(history.seed_time.into()),
            ]);
            self.bytes[widths_at] = widths.0 as u8;
        }
        flags
    }
}

// === impl Cursor: reading ===

impl Cursor {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        array
    }

    fn moment(&mut self) -> Seconds {
        Seconds(u32::from_le_bytes(self.take()))
    }

    /// The number of that width, or `usual`.
    fn number_or(&mut self, width: u64, usual: u64) -> u64 {
        if width == ABSENT {
            return usual;
        }
        let mut array = [0; 8];
        array.copy_from_slice(&self.bytes[self.at..self.at + 8]);
        self.at += width as usize;
        let unused = 64 - 8 * width as u32;
        u64::from_le_bytes(array) & u64::MAX.checked_shr(unused).unwrap_or(0)
    }

    fn number(&mut self, width: u64) -> u64 {
        self.number_or(width, 0)
    }

    fn account(&mut self, last: Seconds) -> Account {
        let [a, b, c, d, e] = self.take();
        let mut widths = Widths(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]));
        let base_up = self.number_or(widths.next(), Account::UNREPORTED);
        let base_down = self.number_or(widths.next(), Account::UNREPORTED);
        let uploaded = self.number_or(widths.next(), base_up);
        let downloaded = self.number_or(widths.next(), base_down);
        let left_width = widths.next();
        let left = (left_width != ABSENT).then(|| self.number(left_width));
        Account {
            base_up,
            base_down,
            base_at: last,
            dip_up: None,
            dip_down: None,
            uploaded,
            downloaded,
            left,
            speed_up: self.number(widths.next()) as u32,
            speed_down: self.number(widths.next()) as u32,
            seed_time: self.number(widths.next()) as u32,
            announces: self.number(widths.next()) as u32,
            first_announce: Seconds(last.0.wrapping_sub(self.number(widths.next()) as u32)),
            last_announce: last,
        }
    }

    fn owed(&mut self) -> Owed {
        let [a, b] = self.take();
        let mut widths = Widths(u64::from_le_bytes([a, b, 0, 0, 0, 0, 0, 0]));
        Owed {
            uploaded: self.number(widths.next()),
            downloaded: self.number(widths.next()),
            seed_time: self.number(widths.next()) as u32,
            announces: self.number(widths.next()) as u32,
        }
    }

    /// `counted` are the bytes downloaded and the seconds of seeding of the account beside it.
    fn history(&mut self, user: UserId, flags: u16, counted: (u64, u32)) -> History {
        let has = |flag| flags & flag != 0;
        let completed_at = has(HAS_SNATCH).then(|| {
            if has(HAS_LONG_SNATCH) {
                i64::from_le_bytes(self.take())
            } else {
                u32::from_le_bytes(self.take()).into()
            }
        });
        let (downloaded, seed_time) = if has(HAS_NUMBERS) {
            let [byte] = self.take();
            let mut widths = Widths(byte.into());
            let downloaded = self.number(widths.next());
            (downloaded, self.number(widths.next()) as u32)
        } else {
            counted
        };
        History {
            user,
            hnr: has(IS_HNR),
            owes_snatch: has(OWES_SNATCH),
            seed_time,
            downloaded,
            completed_at,
        }
    }
}

// === impl Widths ===

impl Widths {
    fn of<const N: usize>(widths: [u64; N]) -> Self {
        let add = |all, &width: &u64| all << 4 | width;
        Self(widths.iter().rev().fold(0, add))
    }

    fn next(&mut self) -> u64 {
        let width = self.0 & 15;
        self.0 >>= 4;
        width
    }
}
