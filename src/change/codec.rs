//! Changes as text: what the journal looks like in the cache and in the spill file.
//!
//! One change a line, fields separated by one blank, `-` for an absent one. People can read it
//! with the tools of those stores; docs/redis.md names the fields. A line begins with its kind
//! and the version of its format, so that a later Mika can read what an earlier one left.

use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use super::{
    Change, Credit, GuestChange, GuestRecord, PeerChange, PeerKey, PeerRecord, Report, Standing,
    SwarmCounts,
};
use crate::accounting::machines::MachineId;
use crate::accounting::sessions::{Point, Stretch};
use crate::base::ids::{InfoHash, PeerId, TorrentId, UserId};

/// Kinds of lines.
const PEER: &str = "peer2";
/// A peer without a report: of an earlier version, whose nodes decided on credit.
const OLD_PEER: &str = "peer1";
/// A snatch; more than one, with their number.
const SNATCH: &str = "snatch1";
const SNATCHES: &str = "snatch2";
const GUEST: &str = "guest1";

/// The version of the text of a private peer in its swarm.
const MEMBER: &str = "1";

/// A text that can't be decoded: written by another version, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not readable from field {field} on; was it written by a newer Mika?")]
pub struct Malformed {
    /// Its position in the line, counted from 1.
    field: usize,
}

/// Changes as text, a line each.
#[derive(Debug)]
pub struct Lines {
    pub text: String,
    /// Where records and standings of private peers are, in order.
    members: Vec<Range<usize>>,
}

/// Encodes changes.
pub fn encode(changes: &[Change]) -> String {
    Lines::of(changes.iter()).text
}

/// About how many bytes its line has, in most cases no more: growing the text would copy it.
fn length_of(change: &Change) -> usize {
    match change {
        Change::Peer(_) => 448,
        Change::Snatches { .. } => 64,
        Change::Guest(_) => 160,
    }
}

/// Decodes what [`encode`] wrote.
pub fn decode(text: &str) -> Result<Vec<Change>, Malformed> {
    text.lines().map(decode_line).collect()
}

/// Encodes a private peer for a field of its swarm. A script of `cache::redis::swarms` counts these fields.
pub fn encode_member(record: &PeerRecord, standing: &Standing) -> String {
    let mut line = Line::with_capacity(256);
    line.word(MEMBER).add(record).add(standing);
    line.text
}

/// The same from a part of a change's line, as [`Lines::members`] has it.
pub fn member_of(part: &str) -> String {
    [MEMBER, " ", part].concat()
}

/// Decodes what [`encode_member`] wrote.
pub fn decode_member(text: &str) -> Result<(PeerRecord, Standing), Malformed> {
    let mut fields = Fields::of(text);
    fields.expect(MEMBER)?;
    let member = (fields.take()?, fields.take()?);
    fields.end().map(|()| member)
}

/// Encodes a public peer for a field of its swarm.
pub fn encode_guest(record: &GuestRecord) -> String {
    let mut line = Line::with_capacity(96);
    line.word("1").add(record);
    line.text
}

/// Decodes what [`encode_guest`] wrote.
pub fn decode_guest(text: &str) -> Result<GuestRecord, Malformed> {
    let mut fields = Fields::of(text);
    fields.expect("1")?;
    let record = fields.take()?;
    fields.end().map(|()| record)
}

fn decode_line(line: &str) -> Result<Change, Malformed> {
    let mut fields = Fields::of(line);
    let change = match fields.word()? {
        PEER => {
            let mut change = fields.peer()?;
            change.report = Some(fields.take()?);
            Change::from(change)
        }
        OLD_PEER => Change::from(fields.peer()?),
        SNATCH => Change::Snatches {
            info_hash: fields.take()?,
            count: 1,
        },
        SNATCHES => Change::Snatches {
            info_hash: fields.take()?,
            count: fields.take()?,
        },
        GUEST => Change::from(fields.take::<GuestChange>()?),
        _ => return Err(fields.malformed()),
    };
    fields.end().map(|()| change)
}

/// The line being written.
struct Line {
    text: String,
}

/// The fields of a line, from left to right.
struct Fields<'a> {
    /// None behind the last one.
    rest: Option<&'a str>,
    read: usize,
}

/// A value that is one field of a line, or several in a row.
trait Encoded: Sized {
    fn write(&self, line: &mut Line);
    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed>;
}

/// Structs that are written field by field, in this order. A pair with a `+` is written as one.
macro_rules! in_order {
    ($($type:ident { $($field:ident $(+ $other:ident)?),* })*) => {$(
        impl Encoded for $type {
            fn write(&self, line: &mut Line) {
                line$(.add(&(self.$field $(, self.$other)?)))*;
            }

            #[allow(unused_parens)] // around one field, which is no pair
            fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
                $(let ($field $(, $other)?) = fields.take()?;)*
                Ok(Self { $($field $(, $other)?),* })
            }
        }
    )*};
}

in_order! {
    PeerRecord {
        base_up + start_up, base_down + start_down, dip_up, dip_down, base_at, uploaded, downloaded,
        left, v4 + v4_at, v6 + v6_at, speed_up, speed_down, seed_time, announces, first_announce,
        last_announce, active, paused
    }
    Standing { completed_at, hnr }
    Credit { up, down, raw_up, raw_down, seed_time, announces, snatched }
    SwarmCounts { seeders, leechers }
    Report {
        at, seeding_since, announces, completed, left, multi_up, multi_down, machine, up, down
    }
    Stretch { from, to, started }
    Point { total, at }
    GuestChange { info_hash, address, record }
    GuestRecord { peer_id, key, seeder, paused, counted, last_announce, active }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Encoded for $type {
            fn write(&self, line: &mut Line) {
                // Most have one digit: not worth a call.
                match u8::try_from(*self) {
                    Ok(digit @ 0..10) => {
                        let bytes = [b'0' + digit, b' '];
                        line.text.extend(bytes.map(char::from));
                    }
                    _ => line.digits(*self).end(),
                }
            }

            fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
                fields.parsed()
            }
        }
    )*};
}

numbers!(u32, u64, i64);

// === impl Lines ===

impl Lines {
    pub fn of<'a>(changes: impl Iterator<Item = &'a Change> + Clone) -> Self {
        let mut line = Line::with_capacity(changes.clone().map(length_of).sum());
        let mut members = Vec::new();
        for change in changes {
            match change {
                Change::Peer(change) => {
                    members.push(line.peer(change));
                    &mut line
                }
                Change::Snatches {
                    info_hash,
                    count: 1,
                } => line.word(SNATCH).add(info_hash),
                Change::Snatches { info_hash, count } => {
                    line.word(SNATCHES).add(info_hash).add(count)
                }
                Change::Guest(guest) => line.word(GUEST).add(&**guest),
            };
            line.text.pop();
            line.text.push('\n');
        }
        let text = line.text;
        Self { text, members }
    }

    /// For each private peer in order, the part of its line that [`encode_member`] writes after the version: who needs both
    /// does not pay twice.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|part| &self.text[part.clone()])
    }
}

// === impl Line ===

impl Line {
    fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
        }
    }

    fn word(&mut self, word: &str) -> &mut Self {
        self.text.push_str(word);
        self.text.push(' ');
        self
    }

    fn add(&mut self, value: &impl Encoded) -> &mut Self {
        value.write(self);
        self
    }

    /// A part of a field.
    fn digits(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.text.push_str(itoa::Buffer::new().format(number));
        self
    }

    /// A part of a field.
    fn mark(&mut self, mark: char) -> &mut Self {
        self.text.push(mark);
        self
    }

    /// Ends a field that was written in parts.
    fn end(&mut self) {
        self.text.push(' ');
    }

    fn hex(&mut self, bytes: &[u8]) {
        HEXLOWER.encode_append(bytes, &mut self.text);
        self.end();
    }

    /// Returns where its record and standing are.
    fn peer(&mut self, change: &PeerChange) -> Range<usize> {
        self.word(change.report.map_or(OLD_PEER, |_| PEER))
            .add(&change.info_hash)
            .add(&change.key);
        let start = self.text.len();
        self.add(&change.record).add(&change.standing);
        let member = start..self.text.len();
        self.add(&change.credit).add(&change.counts);
        if let Some(report) = &change.report {
            self.add(report);
        }
        member
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn of(line: &'a str) -> Self {
        Self {
            rest: Some(line.trim_end_matches(' ')),
            read: 0,
        }
    }

    /// The next field, and what is behind it. Most have a few bytes, for which a plain loop is the fastest search.
    fn split(&self) -> Option<(&'a str, Option<&'a str>)> {
        let rest = self.rest?;
        Some(match rest.bytes().position(|byte| byte == b' ') {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        })
    }

    fn malformed(&self) -> Malformed {
        Malformed { field: self.read }
    }

    fn word(&mut self) -> Result<&'a str, Malformed> {
        self.read += 1;
        let (word, rest) = self.split().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(word)
    }

    fn expect(&mut self, word: &str) -> Result<(), Malformed> {
        if self.word()? == word {
            return Ok(());
        }
        Err(self.malformed())
    }

    fn end(mut self) -> Result<(), Malformed> {
        self.read += 1;
        match self.rest {
            None => Ok(()),
            Some(_) => Err(self.malformed()),
        }
    }

    fn parsed<T: FromStr>(&mut self) -> Result<T, Malformed> {
        self.word()?.parse().map_err(|_| self.malformed())
    }

    fn take<T: Encoded>(&mut self) -> Result<T, Malformed> {
        T::read(self)
    }

    /// A peer, of which the report is still to be read.
    fn peer(&mut self) -> Result<PeerChange, Malformed> {
        Ok(PeerChange {
            info_hash: self.take()?,
            key: self.take()?,
            record: self.take()?,
            standing: self.take()?,
            credit: self.take()?,
            counts: self.take()?,
            report: None,
        })
    }
}

// === impl Encoded ===

impl Encoded for bool {
    fn write(&self, line: &mut Line) {
        line.word(if *self { "1" } else { "0" });
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        match fields.word()? {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(fields.malformed()),
        }
    }
}

impl<T: Encoded> Encoded for Option<T> {
    fn write(&self, line: &mut Line) {
        match self {
            Some(value) => value.write(line),
            None => _ = line.word("-"),
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        match fields.split() {
            Some(("-", rest)) => {
                fields.read += 1;
                fields.rest = rest;
                Ok(None)
            }
            _ => fields.take().map(Some),
        }
    }
}

impl Encoded for InfoHash {
    fn write(&self, line: &mut Line) {
        line.hex(&self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        fields.parsed()
    }
}

impl Encoded for PeerId {
    fn write(&self, line: &mut Line) {
        line.hex(&self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Self::from_hex(fields.word()?).ok_or_else(|| fields.malformed())
    }
}

impl Encoded for SocketAddr {
    fn write(&self, line: &mut Line) {
        match self {
            Self::V4(address) => address.push_to(line),
            Self::V6(address) => address.push_to(line),
        }
        line.end();
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        fields.parsed()
    }
}

impl Encoded for PeerKey {
    fn write(&self, line: &mut Line) {
        line.add(&self.user.0)
            .add(&self.torrent.0)
            .add(&self.peer_id);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            user: UserId(fields.take()?),
            torrent: TorrentId(fields.take()?),
            peer_id: fields.take()?,
        })
    }
}

/// A machine as one number: the family above the hash.
impl Encoded for MachineId {
    fn write(&self, line: &mut Line) {
        line.add(&(u64::from(self.is_v6) << 32 | u64::from(self.hash)));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let number: u64 = fields.take()?;
        Ok(Self {
            is_v6: number >> 32 != 0,
            hash: number as u32,
        })
    }
}

/// A base, and if known `^` and `@` with the total and the time at which its session began.
impl Encoded for (u64, Option<Point>) {
    fn write(&self, line: &mut Line) {
        let (base, start) = *self;
        line.digits(base);
        if let Some(Point { total, at }) = start {
            line.mark('^').digits(total).mark('@').digits(at);
        }
        line.end();
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let word = fields.word()?;
        let number = |word: &str| word.parse().ok();
        let found = match word.split_once('^') {
            None => number(word).map(|base| (base, None)),
            Some((base, start)) => start.split_once('@').and_then(|(total, at)| {
                let total = number(total)?;
                let at = at.parse().ok()?;
                Some((number(base)?, Some(Point { total, at })))
            }),
        };
        found.ok_or_else(|| fields.malformed())
    }
}

/// An address that is a part of a field.
trait AddressText: FromStr {
    fn push_to(&self, line: &mut Line);
}

impl AddressText for SocketAddrV4 {
    fn push_to(&self, line: &mut Line) {
        // The formatter takes several times as long.
        let [a, b, c, d] = self.ip().octets();
        line.digits(a).mark('.').digits(b).mark('.');
        line.digits(c).mark('.').digits(d);
        line.mark(':').digits(self.port());
    }
}

impl AddressText for SocketAddrV6 {
    fn push_to(&self, line: &mut Line) {
        // Writing to a string can't fail.
        let _ = write!(line.text, "{self}");
    }
}

/// An endpoint, and `@` with the time at which it was last seen or given up, if that is written.
impl<A: AddressText> Encoded for (Option<A>, Option<i64>) {
    fn write(&self, line: &mut Line) {
        let (address, at) = self;
        match address {
            Some(address) => address.push_to(line),
            None => _ = line.mark('-'),
        }
        if let Some(at) = at {
            line.mark('@').digits(*at);
        }
        line.end();
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let word = fields.word()?;
        let (address, at) = match word.split_once('@') {
            Some((address, at)) => (address, Some(at)),
            None => (word, None),
        };
        let at = at.map(str::parse).transpose();
        let address = (address != "-").then(|| address.parse()).transpose();
        match (address, at) {
            (Ok(address), Ok(at)) => Ok((address, at)),
            _ => Err(fields.malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

    use super::*;

    fn key() -> PeerKey {
        PeerKey {
            user: UserId(7),
            torrent: TorrentId(u32::MAX),
            peer_id: PeerId(*b"-TR3000-\0\xff 123456789"),
        }
    }

    fn record() -> PeerRecord {
        PeerRecord {
            base_up: u64::MAX,
            base_down: 2,
            start_up: Some(Point { total: 1, at: -6 }),
            start_down: None,
            dip_up: Some(-3),
            dip_down: None,
            base_at: 4,
            uploaded: 5,
            downloaded: 6,
            left: None,
            v4: Some(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 6881)),
            v6: Some(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 65535, 0, 0)),
            v4_at: None,
            v6_at: Some(-5),
            speed_up: 7,
            speed_down: 8,
            seed_time: 9,
            announces: 10,
            first_announce: 11,
            last_announce: 12,
            active: true,
            paused: false,
        }
    }

    fn guest() -> GuestRecord {
        GuestRecord {
            peer_id: key().peer_id,
            key: Some(17),
            seeder: true,
            paused: false,
            counted: true,
            last_announce: 18,
            active: false,
        }
    }

    fn changes() -> Vec<Change> {
        let info_hash = InfoHash([0xab; 20]);
        vec![
            Change::from(PeerChange {
                key: key(),
                info_hash,
                record: record(),
                credit: Credit {
                    up: 13,
                    down: 14,
                    raw_up: 15,
                    raw_down: 16,
                    seed_time: 17,
                    announces: 18,
                    snatched: true,
                },
                standing: Standing {
                    completed_at: Some(19),
                    hnr: true,
                },
                counts: SwarmCounts {
                    seeders: 20,
                    leechers: 21,
                },
                report: Some(Report {
                    up: Some(Stretch {
                        from: Point { total: 22, at: -23 },
                        to: Point { total: 24, at: 25 },
                        started: true,
                    }),
                    down: None,
                    machine: Some(MachineId {
                        is_v6: true,
                        hash: 3,
                    }),
                    at: 26,
                    seeding_since: Some(27),
                    announces: 28,
                    completed: true,
                    left: false,
                    multi_up: 1000,
                    multi_down: 0,
                }),
            }),
            Change::Snatches {
                info_hash,
                count: 1,
            },
            Change::Snatches {
                info_hash,
                count: u32::MAX,
            },
            Change::from(GuestChange {
                info_hash,
                address: "[2001:db8::1]:6881".parse().unwrap(),
                record: guest(),
            }),
        ]
    }

    /// What is in somebody's cache must stay readable: a new format gets a new number.
    const GOLDEN: &str = "\
peer2 abababababababababababababababababababab 7 4294967295 2d5452333030302d00ff20313233343536373839 \
18446744073709551615^1@-6 2 -3 - 4 5 6 - 10.0.0.1:6881 [::1]:65535@-5 7 8 9 10 11 12 1 0 19 1 \
13 14 15 16 17 18 1 20 21 26 27 28 1 0 1000 0 4294967299 22 -23 24 25 1 -
snatch1 abababababababababababababababababababab
snatch2 abababababababababababababababababababab 4294967295
guest1 abababababababababababababababababababab [2001:db8::1]:6881 \
2d5452333030302d00ff20313233343536373839 17 1 0 1 18 0
";

    #[test]
    fn changes_are_written_as_ever_and_read_again() {
        assert_eq!(encode(&changes()), GOLDEN);
        assert_eq!(decode(GOLDEN), Ok(changes()));
        let mut unnamed = changes();
        if let Some(Change::Peer(change)) = unnamed.first_mut() {
            change.record.start_up = None;
        }
        assert_eq!(decode(&GOLDEN.replace("^1@-6", "")), Ok(unnamed));
    }

    #[test]
    fn peers_without_a_report_are_read_as_ever() {
        let mut old = changes().remove(0);
        if let Change::Peer(change) = &mut old {
            change.report = None;
        }
        let text = encode(std::slice::from_ref(&old));
        assert!(
            text.starts_with("peer1 ") && text.ends_with(" 20 21\n"),
            "{text}"
        );
        assert_eq!(decode(&text), Ok(vec![old]));
    }

    #[test]
    fn the_line_of_a_peer_has_its_text_as_a_member() {
        let lines = Lines::of(changes().iter());
        assert_eq!(lines.text, GOLDEN);
        let members: Vec<String> = lines.members().map(member_of).collect();
        let Some(Change::Peer(change)) = changes().into_iter().next() else {
            panic!("the first is a peer")
        };
        let member = encode_member(&change.record, &change.standing);
        assert_eq!(members, [member]);
    }

    #[test]
    fn members_and_guests_are_read_again() {
        let standing = Standing::default();
        let text = encode_member(&record(), &standing);
        assert_eq!(decode_member(&text), Ok((record(), standing)));
        assert_eq!(decode_guest(&encode_guest(&guest())), Ok(guest()));
    }

    #[test]
    fn what_is_damaged_is_refused_and_says_where() {
        let line = GOLDEN.lines().next().unwrap();
        for (text, field) in [
            ("", 1),
            ("peer3 ab", 1),
            ("snatch1 abab", 2),
            ("snatch1 abababababababababababababababababababab 1", 3),
            ("snatch2 abababababababababababababababababababab", 3),
            (
                "snatch2 abababababababababababababababababababab 4294967296",
                3,
            ),
            (&line[..line.len() - 2], 48),
        ] {
            assert_eq!(decode_line(text), Err(Malformed { field }), "{text}");
        }
        assert!(decode_member("1 2 3").is_err());
        assert!(decode_guest("").is_err());
    }
}
