//! A swarm of many pages: its entries in order of class, with an index by user.
//!
//! The order makes those whom a requester may get a few contiguous ranges (rules W7, W8). Adding,
//! removing and changing a class move one entry a class boundary at most, so they cost the
//! same for a swarm of any size.

use std::ops::Range;

use crate::base::ids::UserId;
use crate::swarm::classes::{Counts, Families, Role};
use crate::swarm::index::{Index, hash_of};
use crate::swarm::private::packed::{Packed, Tag, View};
use crate::swarm::private::page::{PAGE_MAX, Page};
use crate::swarm::private::peer::Family;

const CLASSES: usize = Tag::OUTSIDE as usize + 1;

#[derive(Debug, Default)]
pub(super) struct Large {
    /// All full but the last.
    pages: Vec<Page>,
    len: usize,
    /// Where each class but the last ends.
    ends: [u32; CLASSES - 1],
    by_user: Index,
}

// === impl Large ===

impl Large {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn snatches(&self) -> u32 {
        self.pages.first().map_or(0, Page::snatches)
    }

    pub fn set_snatches(&mut self, snatches: u32) {
        if let Some(page) = self.pages.first_mut() {
            page.set_snatches(snatches);
        }
    }

    /// The counts of each family. Only those without a port are looked at one by one.
    pub fn families(&self) -> Families {
        let mut families = Families::default();
        for role in [Role::Leecher, Role::Paused, Role::Seeder] {
            for class in Tag::classes(role) {
                let places = self.start(class.into())..self.end(class.into());
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

    pub fn view(&self, place: usize) -> View<'_> {
        self.pages[place / PAGE_MAX].view(place % PAGE_MAX)
    }

    pub fn counts(&self) -> Counts {
        let size = |role: usize| (self.end(4 * role + 3) - self.start(4 * role)) as u32;
        let paused = size(1);
        Counts {
            seeders: size(2),
            leechers: size(0) + paused,
            paused,
        }
    }

    /// The entry of that user for which `is_it` holds.
    pub fn find(&self, user: UserId, mut is_it: impl FnMut(View<'_>) -> bool) -> Option<usize> {
        self.by_user.find(hash_of(user), |place| {
            let view = self.view(place);
            view.user() == user && is_it(view)
        })
    }

    /// The places of those who may be handed to a requester: three ranges, those of a role each.
    pub fn candidates(&self, family: Family, requester: Role) -> [Range<usize>; 3] {
        let of_role = |role: usize| match family {
            Family::V4 => self.start(4 * role)..self.end(4 * role + 1),
            Family::V6 => self.start(4 * role + 1)..self.end(4 * role + 2),
        };
        match requester {
            Role::Leecher => [of_role(0), of_role(1), of_role(2)],
            Role::Paused | Role::Seeder => [of_role(0), 0..0, 0..0],
        }
    }

    pub fn add(&mut self, entry: &Packed) {
        let class = usize::from(entry.tag.class());
        let mut hole = self.len;
        self.len += 1;
        for above in (class + 1..CLASSES).rev() {
            let first = self.start(above);
            self.shift(first, hole);
            self.ends[above - 1] += 1;
            hole = first;
        }
        self.put(hole, entry);
        let hash = hash_of(self.view(hole).user());
        let pages = &self.pages;
        self.by_user.insert(hash, hole, |place| {
            let view = pages[place / PAGE_MAX].view(place % PAGE_MAX);
            hash_of(view.user())
        });
    }

    /// Puts an entry in place of another of the same user. Unless both are of one class,
    /// places change.
    pub fn set(&mut self, place: usize, entry: &Packed) {
        if self.view(place).tag.class() == entry.tag.class() {
            self.put(place, entry);
        } else {
            self.remove(place);
            self.add(entry);
        }
    }

    pub fn remove(&mut self, place: usize) {
        let view = self.view(place);
        let (user, class) = (view.user(), usize::from(view.tag.class()));
        self.by_user.remove(hash_of(user), place);
        let mut hole = place;
        for class in class..CLASSES {
            let last = self.end(class) - 1;
            self.shift(last, hole);
            if let Some(end) = self.ends.get_mut(class) {
                *end -= 1;
            }
            hole = last;
        }
        self.len -= 1;
        if let Some(page) = self.pages.get_mut(hole / PAGE_MAX) {
            page.remove(hole % PAGE_MAX);
        }
        let pages = self.len.div_ceil(PAGE_MAX).max(1);
        self.pages.truncate(pages);
        if self.pages.capacity() > 4 * pages {
            self.pages.shrink_to(2 * pages);
        }
    }

    /// Moves an entry to a place that is free.
    fn shift(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let entry = Packed::from(self.view(from));
        let hash = hash_of(self.view(from).user());
        self.put(to, &entry);
        self.by_user.moved(hash, from, to);
    }

    /// Writes an entry, to a place that there is or to the next.
    fn put(&mut self, place: usize, entry: &Packed) {
        let slot = place % PAGE_MAX;
        if place / PAGE_MAX == self.pages.len() {
            self.pages.push(Page::default());
        }
        let page = &mut self.pages[place / PAGE_MAX];
        if slot == page.len() {
            page.push(entry);
        } else {
            page.set(slot, entry);
        }
    }

    fn start(&self, class: usize) -> usize {
        match class.checked_sub(1) {
            Some(below) => self.ends[below] as usize,
            None => 0,
        }
    }

    fn end(&self, class: usize) -> usize {
        self.ends.get(class).map_or(self.len, |&end| end as usize)
    }
}
