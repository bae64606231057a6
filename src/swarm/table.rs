//! The swarms of one shard by info hash: a sorted array with gaps.
//!
//! Each slot holds a swarm itself, so a look-up is one cache miss. Entries are in the order
//! of their hashes, each at the slot that its hash points to or, where that is taken, as soon
//! after it as the order allows (linear probing, "Robin Hood"). So an array stays fast when it
//! is nearly full, grows by a sixteenth instead of doubling, and can be walked in parts: a
//! [`Cursor`] is a position in the order of hashes, which stays valid across insertions, removals and
//! growth.

use std::num::NonZeroU32;

use crate::base::ids::InfoHash;
use crate::swarm::SHARDS;
use crate::swarm::chunked_vec::ChunkedVec;
use crate::swarm::index::hash_of;

/// Fifteen of sixteen slots are taken before a table grows.
const FULL: (usize, usize) = (15, 16);

/// It shrinks when fewer than half of its slots are taken.
const SPARSE: (usize, usize) = (1, 2);

/// The least number of slots that a table with entries has.
const SLOTS_MIN: usize = 4;

/// Slots behind the last that a hash points to, for entries whose slot is taken.
const TAIL_MAX: usize = 64;

/// An info hash and its hash, worked out once for shard and slot.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    hash: u64,
    info_hash: InfoHash,
}

/// Where a walk through a table continues: at the first entry that is not before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor(Option<(NonZeroU32, InfoHash)>);

/// What a walk does next with the entry that it looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    Keep,
    Remove,
    /// Keep it, and stop: the walk continues with this entry.
    Pause,
}

/// Values by info hash.
#[derive(Debug)]
pub struct SwarmTable<V> {
    slots: Slots<V>,
    /// Slots that hashes point to; the others are the tail.
    homes: usize,
    len: usize,
}

type Slots<V> = ChunkedVec<Option<Slot<V>>>;

#[derive(Debug)]
struct Slot<V> {
    /// Never 0, so that a gap (`None`) needs no byte of its own.
    hash: NonZeroU32,
    info_hash: InfoHash,
    value: V,
}

// === impl Key ===

impl From<&InfoHash> for Key {
    fn from(info_hash: &InfoHash) -> Self {
        Self {
            hash: hash_of(info_hash),
            info_hash: *info_hash,
        }
    }
}

impl From<InfoHash> for Key {
    fn from(info_hash: InfoHash) -> Self {
        Self::from(&info_hash)
    }
}

impl Key {
    /// The shard where the swarm of this info hash is kept.
    pub fn shard(&self) -> usize {
        // The upper bits: the lower ones choose the slot.
        (self.hash >> 48) as usize % SHARDS
    }

    fn slot_hash(&self) -> NonZeroU32 {
        NonZeroU32::new(self.hash as u32).unwrap_or(NonZeroU32::MIN)
    }
}

// === impl SwarmTable ===

impl<V> Default for SwarmTable<V> {
    fn default() -> Self {
        Self {
            slots: ChunkedVec::default(),
            homes: 0,
            len: 0,
        }
    }
}

impl<V> SwarmTable<V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get<K: Into<Key>>(&self, key: K) -> Option<&V> {
        let key = key.into();
        let place = self.find(&key).ok()?;
        self.slot(place).map(|slot| &slot.value)
    }

    /// Prefetches the slots where a look-up of that key begins.
    pub fn prefetch_slots(&self, key: &Key) -> usize {
        let home = home(key.slot_hash(), self.homes);
        let taken = |at: usize| usize::from(self.slot(at).is_some());
        taken(home) + taken(home + 2) + taken(home + 4)
    }

    pub fn get_mut<K: Into<Key>>(&mut self, key: K) -> Option<&mut V> {
        let key = key.into();
        let place = self.find(&key).ok()?;
        self.slot_mut(place).map(|slot| &mut slot.value)
    }

    /// The value of that key; a new one if there is none.
    pub fn get_or_default<K: Into<Key>>(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let key = key.into();
        let place = match self.find(&key) {
            Ok(place) => place,
            Err(gap) => self.insert_at(gap, &key, V::default()),
        };
        &mut self.slots[place]
            .get_or_insert_with(|| Slot::new(&key, V::default()))
            .value
    }

    /// The value of that key; if there is none, what `create` makes of it, if anything.
    pub fn get_or_create<K: Into<Key>>(
        &mut self,
        key: K,
        create: impl FnOnce() -> Option<V>,
    ) -> Option<&mut V> {
        let key = key.into();
        let place = match self.find(&key) {
            Ok(place) => place,
            Err(gap) => self.insert_at(gap, &key, create()?),
        };
        self.slot_mut(place).map(|slot| &mut slot.value)
    }

    pub fn remove<K: Into<Key>>(&mut self, key: K) -> Option<V> {
        let key = key.into();
        let place = self.find(&key).ok()?;
        let removed = self.remove_at(place);
        self.shrink();
        removed
    }

    pub fn iter(&self) -> impl Iterator<Item = (&InfoHash, &V)> {
        self.slots
            .iter()
            .flatten()
            .map(|slot| (&slot.info_hash, &slot.value))
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().flatten().map(|slot| &mut slot.value)
    }

    /// Keeps those for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&InfoHash, &mut V) -> bool) {
        self.walk(Cursor::default(), |info_hash, value| {
            if keep(info_hash, value) {
                Visit::Keep
            } else {
                Visit::Remove
            }
        });
    }

    /// Visits one entry after the other, until `visit` pauses; returns where to continue, or
    /// nothing after the last. A complete walk visits each entry that was there all the time.
    pub fn walk(
        &mut self,
        from: Cursor,
        mut visit: impl FnMut(&InfoHash, &mut V) -> Visit,
    ) -> Option<Cursor> {
        let mut place = match from.0 {
            None => 0,
            Some((hash, info_hash)) => self.lower_bound(hash, &info_hash),
        };
        let mut rest = None;
        while place < self.slots.len() {
            let Some(slot) = self.slot_mut(place) else {
                place += 1;
                continue;
            };
            match visit(&slot.info_hash, &mut slot.value) {
                Visit::Keep => place += 1,
                // The next entry may move to this place.
                Visit::Remove => drop(self.remove_at(place)),
                Visit::Pause => {
                    rest = Some(Cursor(Some((slot.hash, slot.info_hash))));
                    break;
                }
            }
        }
        self.shrink();
        rest
    }

    /// The place of the key, or else where it belongs.
    fn find(&self, key: &Key) -> Result<usize, usize> {
        let hash = key.slot_hash();
        let place = self.lower_bound(hash, &key.info_hash);
        match self.slot(place) {
            Some(slot) if slot.hash == hash && slot.info_hash == key.info_hash => Ok(place),
            _ => Err(place),
        }
    }

    /// The first place from the hash's home on that has a gap or an entry not before the key.
    fn lower_bound(&self, hash: NonZeroU32, info_hash: &InfoHash) -> usize {
        let is_before =
            |slot: &Slot<V>| slot.hash < hash || (slot.hash == hash && slot.info_hash < *info_hash);
        let ends = |slot: &Option<Slot<V>>| !slot.as_ref().is_some_and(is_before);
        let found = self.slots.find_from(home(hash, self.homes), ends);
        found.unwrap_or(self.slots.len())
    }

    /// Inserts a missing key, at the place where [`SwarmTable::find`] missed it; returns where it is.
    fn insert_at(&mut self, place: usize, key: &Key, value: V) -> usize {
        let mut place = place;
        let mut gap = self.gap(place);
        while gap.is_none() {
            let grown = self.homes + (self.homes / 16).max(SLOTS_MIN);
            self.rebuild(if self.is_full() { grown } else { self.homes });
            place = self.lower_bound(key.slot_hash(), &key.info_hash);
            gap = self.gap(place);
        }
        if let Some(gap) = gap {
            self.slots.shift(gap, place);
            self.slots[place] = Some(Slot::new(key, value));
            self.len += 1;
        }
        place
    }

    /// Whether one more is too many.
    fn is_full(&self) -> bool {
        (self.len + 1) * FULL.1 > self.homes * FULL.0
    }

    /// The first gap from `place` on; none if the table is to grow.
    fn gap(&self, place: usize) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        self.slots.find_from(place, Option::is_none)
    }

    fn remove_at(&mut self, place: usize) -> Option<V> {
        let removed = self.slots.get_mut(place)?.take()?;
        self.len -= 1;
        // The entries behind it move one closer to their homes, up to one that is at home.
        let mut end = place + 1;
        while let Some(slot) = self.slot(end) {
            if home(slot.hash, self.homes) == end {
                break;
            }
            end += 1;
        }
        self.slots.shift(place, end - 1);
        Some(removed.value)
    }

    fn slot(&self, place: usize) -> Option<&Slot<V>> {
        self.slots.get(place)?.as_ref()
    }

    fn slot_mut(&mut self, place: usize) -> Option<&mut Slot<V>> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// Gives memory back after many entries have gone.
    fn shrink(&mut self) {
        if self.len == 0 && self.homes > 0 {
            *self = Self::default();
        } else if self.len * SPARSE.1 < self.slots.len() * SPARSE.0 {
            let homes = (self.len * 5 / 4).max(SLOTS_MIN);
            if Slots::<V>::rounded(homes + tail(homes)) < self.slots.len() {
                self.rebuild(homes);
            }
        }
    }

    /// Gives the array that many homes, or more if its last chunk has room. All
    /// entries are moved within the array: some nanoseconds for each.
    fn rebuild(&mut self, homes: usize) {
        let tail = tail(homes);
        let homes = Slots::<V>::rounded(homes + tail) - tail;
        // Room for new entries beside the existing ones.
        let len = (homes + tail).max(self.end_for(homes) + tail / 2);
        self.slots.resize(len.max(self.slots.len()));
        // First to the end, then to where they belong, so that none moves to a taken place.
        let mut start = self.slots.len();
        for place in (0..start).rev() {
            if self.slots[place].is_some() {
                start -= 1;
                self.slots[start] = self.slots[place].take();
            }
        }
        self.homes = homes;
        let mut next = 0;
        for place in start..self.slots.len() {
            if let Some(slot) = self.slots[place].take() {
                let to = home(slot.hash, homes).max(next);
                self.slots[to] = Some(slot);
                next = to + 1;
            }
        }
        self.slots.resize(len);
    }

    /// The end of the entries if the array had that many homes.
    fn end_for(&self, homes: usize) -> usize {
        self.slots
            .iter()
            .flatten()
            .fold(0, |next, slot| home(slot.hash, homes).max(next) + 1)
    }
}

impl<V> Slot<V> {
    fn new(key: &Key, value: V) -> Self {
        Self {
            hash: key.slot_hash(),
            info_hash: key.info_hash,
            value,
        }
    }
}

/// Slots in the tail behind that many homes, if those are taken evenly.
fn tail(homes: usize) -> usize {
    (homes / 32 + 2).min(TAIL_MAX)
}

/// The slot that a hash points to: hashes in order have homes in order.
fn home(hash: NonZeroU32, homes: usize) -> usize {
    ((u64::from(hash.get()) * homes as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn info_hash(number: u32) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[16..].copy_from_slice(&number.to_be_bytes());
        InfoHash(bytes)
    }

    impl<V> SwarmTable<V> {
        /// Entries are in order, reachable from their homes, and as many as are said.
        fn check(&self) {
            let mut before = None;
            let mut number = 0;
            for (place, slot) in self.slots.iter().enumerate() {
                let Some(slot) = slot else { continue };
                assert!(before < Some((slot.hash, slot.info_hash)));
                before = Some((slot.hash, slot.info_hash));
                number += 1;
                let home = home(slot.hash, self.homes);
                assert!((home..place).all(|at| self.slots[at].is_some()) && home <= place);
            }
            assert_eq!(number, self.len);
            assert!(self.len * FULL.1 <= self.homes * FULL.0);
        }
    }

    #[test]
    fn a_gap_takes_no_room_beside_that_of_its_entry() {
        assert_eq!(size_of::<Option<Slot<Box<[u8]>>>>(), 24 + 16);
    }

    #[test]
    fn a_table_is_a_map() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut table = SwarmTable::default();
        let mut map = HashMap::new();
        for round in 0..60_000 {
            // It fills, empties, and fills again.
            let number = rng.u32(..3000);
            let grows = (round / 10_000) % 2 == 0;
            let key = info_hash(number);
            match rng.u8(..10) {
                0..6 if grows => {
                    *table.get_or_default(key) = round;
                    map.insert(key, round);
                }
                0..6 => assert_eq!(table.remove(key), map.remove(&key)),
                6..8 => {
                    let made = table.get_or_create(key, || number.is_multiple_of(2).then_some(7));
                    let old = map.get(&key).copied();
                    assert_eq!(made.copied(), old.or(number.is_multiple_of(2).then_some(7)));
                    if number.is_multiple_of(2) {
                        map.entry(key).or_insert(7);
                    }
                }
                8 => assert_eq!(table.get_mut(key), map.get_mut(&key)),
                _ => assert_eq!(table.get(key), map.get(&key)),
            }
            if round % 97 == 0 {
                table.check();
            }
        }
        assert_eq!(table.len(), map.len());
        assert!(table.iter().all(|(key, value)| map.get(key) == Some(value)));
        table.retain(|_, value| *value % 3 == 0);
        map.retain(|_, value| *value % 3 == 0);
        table.check();
        assert_eq!(table.iter().count(), map.len());
    }

    #[test]
    fn a_walk_in_pieces_sees_every_entry_that_stays() {
        let mut rng = fastrand::Rng::with_seed(12);
        let mut table = SwarmTable::default();
        (0..2000).for_each(|number| *table.get_or_default(info_hash(number)) = 0);
        let (mut cursor, mut coming) = (Some(Cursor::default()), 2000);
        while let Some(from) = cursor {
            let mut budget = 50;
            cursor = table.walk(from, |_, visits| {
                if budget == 0 {
                    return Visit::Pause;
                }
                budget -= 1;
                *visits += 1;
                if rng.u8(..4) == 0 {
                    Visit::Remove
                } else {
                    Visit::Keep
                }
            });
            // In between, more entries come than the table has room for, and go.
            for _ in 0..60 {
                *table.get_or_default(info_hash(coming)) = 1000;
                coming += 1;
                table.remove(info_hash(rng.u32(2000..coming)));
            }
            table.check();
        }
        let stayed = table.iter().filter(|(_, visits)| **visits < 1000);
        let stayed: Vec<u32> = stayed.map(|(_, visits)| *visits).collect();
        assert!((1000..1900).contains(&stayed.len()));
        assert!(stayed.iter().all(|&visits| visits == 1));
    }

    #[test]
    fn memory_follows_the_number_of_entries_and_look_ups_stay_short() {
        let mut table = SwarmTable::default();
        for number in 0..20_000 {
            *table.get_or_default(info_hash(number)) = number;
            let taken = table.len() as f64 / table.slots.len() as f64;
            // A small table may have a long run of taken slots at its end, by chance.
            assert!(number < 2000 || taken > 0.75, "{taken} of {number}");
        }
        let places = table.slots.iter().enumerate();
        let far =
            places.filter_map(|(place, slot)| Some(place - home(slot.as_ref()?.hash, table.homes)));
        let (most, sum) = far.fold((0, 0), |(most, sum), far| (far.max(most), sum + far));
        assert!(most < 200, "{most}");
        assert!(sum < 20_000 * 8, "{sum}");
        for number in 0..20_000 {
            assert_eq!(table.remove(info_hash(number)), Some(number));
            assert!(table.slots.len() <= 3 * table.len() + 2 * SLOTS_MIN + TAIL_MAX);
        }
        assert_eq!(table.slots.len(), 0);
    }
}
