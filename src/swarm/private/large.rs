//! A swarm of many blocks: its entries in order of class, with an index by user.
//!
//! The order makes the candidates for a requester a few contiguous ranges (rules W7, W8).

use std::ops::Range;

use crate::base::ids::UserId;
use crate::base::memory::lasting_len;
use crate::swarm::class_bounds::ClassBounds;
use crate::swarm::classes::{FamilyCounts, PeerCounts, Role};
use crate::swarm::index::{Index, hash_of};
use crate::swarm::private::block::{BLOCK_MAX, PeerBlock};
use crate::swarm::private::packed::{EntryView, PackedEntry, Tag};
use crate::swarm::private::peer::Family;

/// Blocks that a swarm has room for at least.
const BLOCKS_MIN: usize = 4;

const CLASSES: usize = Tag::OUTSIDE as usize + 1;

#[derive(Debug, Default)]
pub(super) struct LargePrivate {
    /// All full but the last.
    blocks: Vec<PeerBlock>,
    bounds: ClassBounds<CLASSES>,
    by_user: Index,
}

impl LargePrivate {
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    pub fn snatches(&self) -> u32 {
        self.blocks.first().map_or(0, PeerBlock::snatches)
    }

    pub fn set_snatches(&mut self, snatches: u32) {
        if let Some(block) = self.blocks.first_mut() {
            block.set_snatches(snatches);
        }
    }

    /// The counts of each family. Only peers without a port are looked at one by one.
    pub fn families(&self) -> FamilyCounts {
        let mut families = FamilyCounts::default();
        for role in [Role::Leecher, Role::Paused, Role::Seeder] {
            for class in Tag::classes(role) {
                let places = self.bounds.range(class.into());
                match Tag(class).families() {
                    Some(reach) => families.add(role, reach, places.len() as u32),
                    None => places.for_each(|place| {
                        families.add(role, self.view(place).families(), 1);
                    }),
                }
            }
        }
        families
    }

    pub fn view(&self, place: usize) -> EntryView<'_> {
        view(&self.blocks, place)
    }

    pub fn counts(&self) -> PeerCounts {
        let size =
            |role: usize| (self.bounds.end(4 * role + 3) - self.bounds.start(4 * role)) as u32;
        let paused = size(1);
        PeerCounts {
            seeders: size(2),
            leechers: size(0) + paused,
            paused,
        }
    }

    /// The entry of that user that `matches`.
    pub fn find(
        &self,
        user: UserId,
        mut matches: impl FnMut(EntryView<'_>) -> bool,
    ) -> Option<usize> {
        self.by_user.find(hash_of(user), |place| {
            let view = self.view(place);
            view.user() == user && matches(view)
        })
    }

    /// The places of the candidates for a requester: three ranges, one for each role. A partial seed
    /// (rule W7) and a seeder are handed only leechers (rule W8).
    pub fn candidates(&self, family: Family, requester: Role) -> [Range<usize>; 3] {
        let of_role = |role: usize| match family {
            Family::V4 => self.bounds.start(4 * role)..self.bounds.end(4 * role + 1),
            Family::V6 => self.bounds.start(4 * role + 1)..self.bounds.end(4 * role + 2),
        };
        match requester {
            Role::Leecher => [of_role(0), of_role(1), of_role(2)],
            Role::Paused | Role::Seeder => [of_role(0), 0..0, 0..0],
        }
    }

    pub fn add(&mut self, entry: &PackedEntry) {
        let (blocks, by_user) = (&mut self.blocks, &mut self.by_user);
        let place = self.bounds.insert(entry.tag.class().into(), |from, to| {
            shift(blocks, by_user, from, to);
        });
        put(blocks, place, entry);
        let user_at = |place| view(blocks, place).user();
        by_user.insert(hash_of(user_at(place)), place, |place| {
            hash_of(user_at(place))
        });
    }

    /// Replaces an entry with another of the same user. Unless both are of one class, places change.
    pub fn set(&mut self, place: usize, entry: &PackedEntry) {
        if self.view(place).tag.class() == entry.tag.class() {
            put(&mut self.blocks, place, entry);
        } else {
            self.remove(place);
            self.add(entry);
        }
    }

    pub fn remove(&mut self, place: usize) {
        let view = self.view(place);
        let (user, class) = (view.user(), usize::from(view.tag.class()));
        let (blocks, by_user) = (&mut self.blocks, &mut self.by_user);
        by_user.remove(hash_of(user), place);
        let hole = self
            .bounds
            .remove(class, place, |from, to| shift(blocks, by_user, from, to));
        if let Some(block) = blocks.get_mut(hole / BLOCK_MAX) {
            block.remove(hole % BLOCK_MAX);
        }
        let number = self.bounds.len().div_ceil(BLOCK_MAX).max(1);
        blocks.truncate(number);
        if blocks.capacity() > 4 * number {
            blocks.shrink_to(lasting_len::<PeerBlock>(2 * number));
        }
    }
}

fn view(blocks: &[PeerBlock], place: usize) -> EntryView<'_> {
    blocks[place / BLOCK_MAX].view(place % BLOCK_MAX)
}

/// Moves an entry to a place that is free.
fn shift(blocks: &mut Vec<PeerBlock>, by_user: &mut Index, from: usize, to: usize) {
    let entry = PackedEntry::from(view(blocks, from));
    let hash = hash_of(view(blocks, from).user());
    put(blocks, to, &entry);
    by_user.moved(hash, from, to);
}

/// Writes an entry, to an existing place or to the next.
fn put(blocks: &mut Vec<PeerBlock>, place: usize, entry: &PackedEntry) {
    let slot = place % BLOCK_MAX;
    if place / BLOCK_MAX == blocks.len() {
        if blocks.len() == blocks.capacity() {
            let room = lasting_len::<PeerBlock>((2 * blocks.len()).max(BLOCKS_MIN));
            blocks.reserve_exact(room - blocks.len());
        }
        blocks.push(PeerBlock::default());
    }
    let block = &mut blocks[place / BLOCK_MAX];
    if slot == block.len() {
        block.push(entry);
    } else {
        block.set(slot, entry);
    }
}
