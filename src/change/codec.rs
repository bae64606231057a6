//! Changes as text: what the journal looks like in the cache and in the spill file.
//!
//! One change a line, fields separated by one blank, `-` for an absent one. People can read it
//! with the tools of those stores; docs/redis.md names the fields. A line begins with its kind
//! and the version of its format, so that a later Mika can read what an earlier one left.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
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
const SNATCH: &str = "snatch1";
const GUEST: &str = "guest1";

/// A text that can't be decoded: written by another version, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not readable from field {field} on; was it written by a newer Mika?")]
pub struct Malformed {
    /// Its position in the line, counted from 1.
    field: usize,
}

/// Encodes changes, a line each.
pub fn encode(changes: &[Change]) -> String {
    let mut line = Line {
        text: String::with_capacity(changes.len() * 256),
    };
    for change in changes {
        match change {
            Change::Peer(change) => line.peer(change),
            Change::Snatch { info_hash } => {
                line.word(SNATCH).add(info_hash);
            }
            Change::Guest(guest) => {
                line.word(GUEST).add(guest.info_hash).add(guest.address);
                line.guest(&guest.record);
            }
        }
        line.end();
    }
    line.text
}

/// Decodes what [`encode`] wrote.
pub fn decode(text: &str) -> Result<Vec<Change>, Malformed> {
    text.lines().map(decode_line).collect()
}

/// Encodes a private peer for a field of its swarm. A script of `cache::redis::swarms` counts these fields.
pub fn encode_member(record: &PeerRecord, standing: &Standing) -> String {
    let mut line = Line {
        text: String::with_capacity(160),
    };
    line.word("1").record(record).standing(standing);
    line.text
}

/// Decodes what [`encode_member`] wrote.
pub fn decode_member(text: &str) -> Result<(PeerRecord, Standing), Malformed> {
    let mut fields = Fields::of(text);
    fields.expect("1")?;
    let member = (fields.record()?, fields.standing()?);
    fields.end().map(|()| member)
}

/// Encodes a public peer for a field of its swarm.
pub fn encode_guest(record: &GuestRecord) -> String {
    let mut line = Line {
        text: String::with_capacity(96),
    };
    line.word("1").guest(record);
    line.text
}

/// Decodes what [`encode_guest`] wrote.
pub fn decode_guest(text: &str) -> Result<GuestRecord, Malformed> {
    let mut fields = Fields::of(text);
    fields.expect("1")?;
    let record = fields.guest()?;
    fields.end().map(|()| record)
}

fn decode_line(line: &str) -> Result<Change, Malformed> {
    let mut fields = Fields::of(line);
    let change = match fields.word()? {
        PEER => {
            let mut change = fields.peer()?;
            change.report = Some(fields.report()?);
            Change::from(change)
        }
        OLD_PEER => Change::from(fields.peer()?),
        SNATCH => Change::Snatch {
            info_hash: fields.parsed()?,
        },
        GUEST => Change::from(GuestChange {
            info_hash: fields.parsed()?,
            address: fields.parsed()?,
            record: fields.guest()?,
        }),
        _ => return Err(fields.malformed()),
    };
    fields.end().map(|()| change)
}

/// A machine as one number: the family above the hash.
fn machine_number(machine: MachineId) -> u64 {
    u64::from(machine.is_v6) << 32 | u64::from(machine.hash)
}

fn machine_of(number: u64) -> MachineId {
    MachineId {
        is_v6: number >> 32 != 0,
        hash: number as u32,
    }
}

/// The line being written.
struct Line {
    text: String,
}

/// The fields of a line, from left to right.
struct Fields<'a> {
    rest: std::str::Split<'a, char>,
    read: usize,
}

// === impl Line ===

impl Line {
    fn word(&mut self, word: &str) -> &mut Self {
        self.text.push_str(word);
        self.text.push(' ');
        self
    }

    fn add(&mut self, value: impl Display) -> &mut Self {
        // Writing to a string can't fail.
        let _ = write!(self.text, "{value} ");
        self
    }

    fn number(&mut self, value: impl itoa::Integer) -> &mut Self {
        self.word(itoa::Buffer::new().format(value))
    }

    fn flag(&mut self, value: bool) -> &mut Self {
        self.word(if value { "1" } else { "0" })
    }

    fn optional(&mut self, value: Option<impl itoa::Integer>) -> &mut Self {
        match value {
            Some(value) => self.number(value),
            None => self.word("-"),
        }
    }

    /// An endpoint, and `@` with the time at which it was last seen or given up, if that is written.
    fn reach(&mut self, address: Option<SocketAddr>, at: Option<i64>) -> &mut Self {
        // Writing to a string can't fail.
        let _ = match address {
            Some(address) => write!(self.text, "{address}"),
            None => write!(self.text, "-"),
        };
        if let Some(at) = at {
            let _ = write!(self.text, "@{at}");
        }
        self.text.push(' ');
        self
    }

    fn hex(&mut self, bytes: &[u8]) -> &mut Self {
        HEXLOWER.encode_append(bytes, &mut self.text);
        self.text.push(' ');
        self
    }

    fn end(&mut self) {
        self.text.pop();
        self.text.push('\n');
    }

    fn key(&mut self, key: &PeerKey) -> &mut Self {
        self.number(key.user.0)
            .number(key.torrent.0)
            .hex(&key.peer_id.0)
    }

    fn peer(&mut self, change: &PeerChange) {
        let credit = &change.credit;
        let kind = change.report.map_or(OLD_PEER, |_| PEER);
        self.word(kind)
            .hex(&change.info_hash.0)
            .key(&change.key)
            .record(&change.record)
            .standing(&change.standing);
        self.number(credit.up)
            .number(credit.down)
            .number(credit.raw_up)
            .number(credit.raw_down)
            .number(credit.seed_time)
            .number(credit.announces)
            .flag(credit.snatched)
            .number(change.counts.seeders)
            .number(change.counts.leechers);
        if let Some(report) = &change.report {
            self.report(report);
        }
    }

    fn report(&mut self, report: &Report) {
        self.number(report.at)
            .optional(report.seeding_since)
            .number(report.announces)
            .flag(report.completed)
            .flag(report.left)
            .number(report.multi_up)
            .number(report.multi_down)
            .optional(report.machine.map(machine_number))
            .stretch(report.up.as_ref())
            .stretch(report.down.as_ref());
    }

    fn stretch(&mut self, stretch: Option<&Stretch>) -> &mut Self {
        let Some(Stretch { from, to, started }) = stretch else {
            return self.word("-");
        };
        self.number(from.total)
            .number(from.at)
            .number(to.total)
            .number(to.at)
            .flag(*started)
    }

    fn record(&mut self, record: &PeerRecord) -> &mut Self {
        self.base(record.base_up, record.start_up)
            .base(record.base_down, record.start_down)
            .optional(record.dip_up)
            .optional(record.dip_down)
            .number(record.base_at)
            .number(record.uploaded)
            .number(record.downloaded)
            .optional(record.left)
            .reach(record.v4.map(Into::into), record.v4_at)
            .reach(record.v6.map(Into::into), record.v6_at)
            .number(record.speed_up)
            .number(record.speed_down)
            .number(record.seed_time)
            .number(record.announces)
            .number(record.first_announce)
            .number(record.last_announce)
            .flag(record.active)
            .flag(record.paused)
    }

    /// A base, and if known `^` and `@` with the total and the time at which its session began.
    fn base(&mut self, base: u64, start: Option<Point>) -> &mut Self {
        let Some(Point { total, at }) = start else {
            return self.number(base);
        };
        self.add(format_args!("{base}^{total}@{at}"))
    }

    fn standing(&mut self, standing: &Standing) -> &mut Self {
        self.optional(standing.completed_at).flag(standing.hnr)
    }

    fn guest(&mut self, record: &GuestRecord) {
        self.hex(&record.peer_id.0)
            .optional(record.key)
            .flag(record.seeder)
            .flag(record.paused)
            .flag(record.counted)
            .number(record.last_announce)
            .flag(record.active);
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn of(line: &'a str) -> Self {
        Self {
            rest: line.trim_end_matches(' ').split(' '),
            read: 0,
        }
    }

    fn malformed(&self) -> Malformed {
        Malformed { field: self.read }
    }

    fn word(&mut self) -> Result<&'a str, Malformed> {
        self.read += 1;
        self.rest.next().ok_or_else(|| self.malformed())
    }

    fn expect(&mut self, word: &str) -> Result<(), Malformed> {
        if self.word()? == word {
            return Ok(());
        }
        Err(self.malformed())
    }

    fn end(mut self) -> Result<(), Malformed> {
        self.read += 1;
        match self.rest.next() {
            None => Ok(()),
            Some(_) => Err(self.malformed()),
        }
    }

    fn parsed<T: FromStr>(&mut self) -> Result<T, Malformed> {
        self.word()?.parse().map_err(|_| self.malformed())
    }

    fn optional<T: FromStr>(&mut self) -> Result<Option<T>, Malformed> {
        match self.word()? {
            "-" => Ok(None),
            word => word.parse().map(Some).map_err(|_| self.malformed()),
        }
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.word()? {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    fn peer_id(&mut self) -> Result<PeerId, Malformed> {
        PeerId::from_hex(self.word()?).ok_or_else(|| self.malformed())
    }

    fn key(&mut self) -> Result<PeerKey, Malformed> {
        Ok(PeerKey {
            user: UserId(self.parsed()?),
            torrent: TorrentId(self.parsed()?),
            peer_id: self.peer_id()?,
        })
    }

    fn peer(&mut self) -> Result<PeerChange, Malformed> {
        let info_hash: InfoHash = self.parsed()?;
        Ok(PeerChange {
            key: self.key()?,
            info_hash,
            record: self.record()?,
            standing: self.standing()?,
            credit: Credit {
                up: self.parsed()?,
                down: self.parsed()?,
                raw_up: self.parsed()?,
                raw_down: self.parsed()?,
                seed_time: self.parsed()?,
                announces: self.parsed()?,
                snatched: self.flag()?,
            },
            counts: SwarmCounts {
                seeders: self.parsed()?,
                leechers: self.parsed()?,
            },
            report: None,
        })
    }

    fn report(&mut self) -> Result<Report, Malformed> {
        Ok(Report {
            at: self.parsed()?,
            seeding_since: self.optional()?,
            announces: self.parsed()?,
            completed: self.flag()?,
            left: self.flag()?,
            multi_up: self.parsed()?,
            multi_down: self.parsed()?,
            machine: self.optional()?.map(machine_of),
            up: self.stretch()?,
            down: self.stretch()?,
        })
    }

    fn stretch(&mut self) -> Result<Option<Stretch>, Malformed> {
        let Some(total) = self.optional()? else {
            return Ok(None);
        };
        let from = Point {
            total,
            at: self.parsed()?,
        };
        let to = Point {
            total: self.parsed()?,
            at: self.parsed()?,
        };
        let started = self.flag()?;
        Ok(Some(Stretch { from, to, started }))
    }

    fn record(&mut self) -> Result<PeerRecord, Malformed> {
        let (base_up, start_up) = self.base()?;
        let (base_down, start_down) = self.base()?;
        let (dip_up, dip_down) = (self.optional()?, self.optional()?);
        let base_at = self.parsed()?;
        let (uploaded, downloaded) = (self.parsed()?, self.parsed()?);
        let left = self.optional()?;
        let (v4, v4_at) = self.reach()?;
        let (v6, v6_at) = self.reach()?;
        Ok(PeerRecord {
            base_up,
            base_down,
            start_up,
            start_down,
            dip_up,
            dip_down,
            base_at,
            uploaded,
            downloaded,
            left,
            v4,
            v6,
            v4_at,
            v6_at,
            speed_up: self.parsed()?,
            speed_down: self.parsed()?,
            seed_time: self.parsed()?,
            announces: self.parsed()?,
            first_announce: self.parsed()?,
            last_announce: self.parsed()?,
            active: self.flag()?,
            paused: self.flag()?,
        })
    }

    fn base(&mut self) -> Result<(u64, Option<Point>), Malformed> {
        let word = self.word()?;
        let number = |word: &str| word.parse().ok();
        let found = match word.split_once('^') {
            None => number(word).map(|base| (base, None)),
            Some((base, start)) => start.split_once('@').and_then(|(total, at)| {
                let total = number(total)?;
                let at = at.parse().ok()?;
                Some((number(base)?, Some(Point { total, at })))
            }),
        };
        found.ok_or_else(|| self.malformed())
    }

    fn reach<A: FromStr>(&mut self) -> Result<(Option<A>, Option<i64>), Malformed> {
        let word = self.word()?;
        let (address, at) = match word.split_once('@') {
            Some((address, at)) => (address, Some(at)),
            None => (word, None),
        };
        let at = at.map(str::parse).transpose();
        let address = (address != "-").then(|| address.parse()).transpose();
        match (address, at) {
            (Ok(address), Ok(at)) => Ok((address, at)),
            _ => Err(self.malformed()),
        }
    }

    fn standing(&mut self) -> Result<Standing, Malformed> {
        Ok(Standing {
            completed_at: self.optional()?,
            hnr: self.flag()?,
        })
    }

    fn guest(&mut self) -> Result<GuestRecord, Malformed> {
        Ok(GuestRecord {
            peer_id: self.peer_id()?,
            key: self.optional()?,
            seeder: self.flag()?,
            paused: self.flag()?,
            counted: self.flag()?,
            last_announce: self.parsed()?,
            active: self.flag()?,
        })
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
            Change::Snatch { info_hash },
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
            (&line[..line.len() - 2], 48),
        ] {
            assert_eq!(decode_line(text), Err(Malformed { field }), "{text}");
        }
        assert!(decode_member("1 2 3").is_err());
        assert!(decode_guest("").is_err());
    }
}
