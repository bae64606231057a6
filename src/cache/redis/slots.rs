//! The slots of a Redis Cluster: which one a key is in, and which master serves it.

use redis::{ServerError, Value};

use super::place::Address;
use super::reply;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16384;

/// Hash tags, one in each sixteenth of the slots: what is split by these is on as many masters as possible.
pub(super) const TAGS: [&str; 16] = [
    "10", "3", "61", "43", "11", "2", "60", "42", "12", "1", "63", "41", "13", "0", "62", "40",
];

/// The index of a slot that no master serves.
const UNSERVED: u16 = u16::MAX;

/// The most masters: a cursor of a scan has 10 bits for them.
pub(super) const MASTERS_MAX: usize = 1000;

/// Which master serves each slot, as an index in a list of masters.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    masters: Box<[u16]>,
    /// How many slots no master serves.
    unserved: usize,
}

/// A range of slots, both ends included, and the address of its master.
pub(super) type SlotRange = (u16, u16, Address);

/// What a cluster replies instead of executing a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// That master serves the slot.
    Moved(u16, Address),
    /// The slot is on its way to that master, and the key is there already or is new.
    Ask(Address),
    /// Some keys of the command are there and some here.
    TryAgain,
}

const CRC: [u16; 256] = crc_table();

const fn crc_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// The slot of a key: of the text between the first braces, if there is any.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let hashed = tag_in(key).unwrap_or(key);
    let step = |crc: u16, byte: &u8| (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)];
    hashed.iter().fold(0, step) % SLOTS
}

fn tag_in(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let behind = key.get(open + 1..)?;
    let close = behind.iter().position(|byte| *byte == b'}')?;
    behind.get(..close).filter(|tag| !tag.is_empty())
}

/// A hash tag of that slot: the lowest number that has it.
pub(super) fn tag_of(slot: u16) -> String {
    // Some number below a million is in each slot, as a test shows.
    let numbers = (0..1_000_000_u32).map(|number| number.to_string());
    let mut found = numbers.skip_while(|tag| slot_of(tag.as_bytes()) != slot);
    found.next().unwrap_or_default()
}

/// The ranges in the reply to `CLUSTER SLOTS`; none for a reply of another form. `asked` is where an empty host points to.
pub(super) fn ranges(reply: Value, asked: &str) -> Option<Vec<SlotRange>> {
    let ranges = reply::list(reply)?.into_iter().map(|range| {
        let mut parts = reply::list(range)?.into_iter();
        let first = u16::try_from(reply::integer(&parts.next()?)?).ok()?;
        let last = u16::try_from(reply::integer(&parts.next()?)?).ok()?;
        let mut master = reply::list(parts.next()?)?.into_iter();
        let host = reply::text(master.next()?).filter(|host| !host.is_empty());
        let port = u16::try_from(reply::integer(&master.next()?)?).ok()?;
        let host = host.unwrap_or_else(|| asked.to_owned());
        (first <= last && last < SLOTS).then_some((first, last, Address { host, port }))
    });
    // A master whose address nobody knows is "?".
    let ranges: Option<Vec<SlotRange>> = ranges.collect();
    Some(
        ranges?
            .into_iter()
            .filter(|(_, _, it)| it.host != "?")
            .collect(),
    )
}

// === impl SlotMap ===

impl SlotMap {
    /// The map, and the masters that it has indices of, in order. None for too many masters.
    pub(super) fn of(ranges: &[SlotRange]) -> Option<(Self, Vec<Address>)> {
        let mut masters: Vec<Address> = ranges.iter().map(|(_, _, it)| it.clone()).collect();
        masters.sort();
        masters.dedup();
        if masters.len() > MASTERS_MAX {
            return None;
        }
        let mut map = vec![UNSERVED; SLOTS.into()].into_boxed_slice();
        for (first, last, master) in ranges {
            let index = masters.binary_search(master).ok()?;
            map[usize::from(*first)..=usize::from(*last)].fill(index as u16);
        }
        Some((Self::new(map), masters))
    }

    fn new(masters: Box<[u16]>) -> Self {
        let unserved = masters.iter().filter(|index| **index == UNSERVED).count();
        Self { masters, unserved }
    }

    /// The index of the master that serves a slot.
    pub(super) fn master_of(&self, slot: u16) -> Option<usize> {
        let index = *self.masters.get(usize::from(slot))?;
        (index != UNSERVED).then_some(index.into())
    }

    /// The same with one slot at another master.
    pub(super) fn with(&self, slot: u16, master: usize) -> Self {
        let mut map = self.masters.clone();
        if let (Some(entry), Ok(index)) = (map.get_mut(usize::from(slot)), u16::try_from(master)) {
            *entry = index;
        }
        Self::new(map)
    }

    /// How many slots no master serves.
    pub(super) fn unserved(&self) -> usize {
        self.unserved
    }

    /// The lowest slot of a master.
    pub(super) fn first_of(&self, master: usize) -> Option<u16> {
        let index = self
            .masters
            .iter()
            .position(|it| usize::from(*it) == master)?;
        u16::try_from(index).ok()
    }
}

// === impl Redirect ===

impl Redirect {
    /// None if the error is not about slots. An address without a host is on the host that was asked.
    pub(super) fn of(error: &ServerError, asked: &str) -> Option<Self> {
        let code = error.code();
        if code == "TRYAGAIN" {
            return Some(Self::TryAgain);
        }
        if !matches!(code, "MOVED" | "ASK") {
            return None;
        }
        let (slot, address) = error.details()?.split_once(' ')?;
        let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
        let port = address.strip_prefix(':').and_then(|port| port.parse().ok());
        let address = match port {
            Some(port) => Address {
                host: asked.to_owned(),
                port,
            },
            None => Address::parse(address, None)?,
        };
        Some(if code == "MOVED" {
            Self::Moved(slot, address)
        } else {
            Self::Ask(address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says.
        for (key, slot) in [
            ("", 0),
            ("123456789", 12739),
            ("foo", 12182),
            ("t:{foo}:x", 12182),
            ("{}foo", slot_of(b"{}foo")),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of(b"{}foo"), slot_of(b"foo"), "an empty tag is none");
    }

    #[test]
    fn the_tags_are_spread_evenly() {
        for (index, tag) in TAGS.iter().enumerate() {
            assert_eq!(
                usize::from(slot_of(tag.as_bytes())) * TAGS.len() / usize::from(SLOTS),
                index
            );
        }
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in (0..SLOTS).step_by(1000).chain([SLOTS - 1]) {
            assert_eq!(slot_of(tag_of(slot).as_bytes()), slot);
        }
    }

    fn address(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn a_map_knows_the_master_of_each_slot() {
        let ranges = [
            (0, 99, address("b", 1)),
            (200, SLOTS - 1, address("a", 1)),
            (100, 100, address("b", 1)),
        ];
        let (map, masters) = SlotMap::of(&ranges).unwrap();
        assert_eq!(masters, [address("a", 1), address("b", 1)]);
        let found = [0, 100, 101, 200].map(|slot| map.master_of(slot));
        assert_eq!(found, [Some(1), Some(1), None, Some(0)]);
        assert_eq!((map.unserved(), map.first_of(0)), (99, Some(200)));
        assert_eq!(map.with(101, 0).master_of(101), Some(0));
        assert!(map.with(101, 0) != map);
    }

    #[test]
    fn the_reply_of_a_cluster_is_parsed() {
        let text = |text: &str| Value::BulkString(text.into());
        let server = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, host, port| {
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                server(host, port),
                server(text("replica"), 1),
            ])
        };
        let reply = Value::Array(vec![
            range(0, 5, text("10.0.0.1"), 7000),
            range(6, 7, Value::Nil, 7001),
            range(8, 9, text("?"), 7002),
        ]);
        let expected = [
            (0, 5, address("10.0.0.1", 7000)),
            (6, 7, address("asked", 7001)),
        ];
        assert_eq!(ranges(reply, "asked").unwrap(), expected);
        for bad in [
            Value::Nil,
            Value::Array(vec![range(0, 16384, text("a"), 1)]),
            Value::Array(vec![range(5, 4, text("a"), 1)]),
            Value::Array(vec![range(0, 1, text("a"), 70000)]),
        ] {
            assert!(ranges(bad, "asked").is_none());
        }
    }

    #[test]
    fn redirects_are_parsed() {
        let redirect = |reply: &str| {
            let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
            let Ok(Value::ServerError(error)) = value else {
                panic!("it is an error: {value:?}");
            };
            Redirect::of(&error, "asked")
        };
        for (reply, expected) in [
            (
                "MOVED 3999 10.0.0.1:7000",
                Some(Redirect::Moved(3999, address("10.0.0.1", 7000))),
            ),
            (
                "MOVED 3999 :7000",
                Some(Redirect::Moved(3999, address("asked", 7000))),
            ),
            (
                "ASK 3999 ::1:7000",
                Some(Redirect::Ask(address("::1", 7000))),
            ),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Some(Redirect::TryAgain),
            ),
            ("MOVED 16384 10.0.0.1:7000", None),
            ("MOVED x", None),
            ("CLUSTERDOWN The cluster is down", None),
            ("ERR no such key", None),
        ] {
            assert_eq!(redirect(reply), expected, "{reply}");
        }
    }
}
