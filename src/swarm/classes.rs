//! An array kept in order of class, so that whom a requester may get is one contiguous range.
//!
//! ```text
//! | leechers | paused | seeders | portless leechers | portless paused | portless seeders |
//! 0 ─ for a seeder ─┘           │
//! 0 ─ for a leecher ────────────┘      portless peers are counted and never handed out
//! ```
//!
//! Adding, removing and moving swap one element a class boundary, so they cost the same
//! for a swarm of any size.

use std::ops::Range;

/// What a peer is to the others of its swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leecher,
    /// A partial seed (BEP 21): lacks something, wants nothing.
    Paused,
    Seeder,
}

/// Elements of six classes: three roles, each with a port or without.
#[derive(Debug)]
pub struct Classes<T> {
    items: Vec<T>,
    /// Where each class but the last ends.
    ends: [u32; 5],
}

const CLASSES: usize = 6;

/// Numbers of peers by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub seeders: u32,
    /// All who are not seeders.
    pub leechers: u32,
    /// Those leechers that are partial seeds.
    pub paused: u32,
}

/// Peers of each address family. A private peer that is in the swarm by both counts in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    pub v4: Counts,
    pub v6: Counts,
}

fn class(role: Role, has_port: bool) -> usize {
    let class = match role {
        Role::Leecher => 0,
        Role::Paused => 1,
        Role::Seeder => 2,
    };
    if has_port { class } else { class + 3 }
}

// === impl Counts ===

impl Counts {
    /// One peer of that role.
    pub fn of(role: Role) -> Self {
        Self {
            seeders: u32::from(role == Role::Seeder),
            leechers: u32::from(role != Role::Seeder),
            paused: u32::from(role == Role::Paused),
        }
    }

    pub fn minus(self, other: Self) -> Self {
        Self {
            seeders: self.seeders - other.seeders,
            leechers: self.leechers - other.leechers,
            paused: self.paused - other.paused,
        }
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            seeders: self.seeders + other.seeders,
            leechers: self.leechers + other.leechers,
            paused: self.paused + other.paused,
        }
    }
}

// === impl Families ===

impl Families {
    /// Adds so many peers of that role, which are there by IPv4, by IPv6, or by both.
    pub(super) fn add(&mut self, role: Role, (v4, v6): (bool, bool), number: u32) {
        let one = Counts::of(role);
        let several = Counts {
            seeders: one.seeders * number,
            leechers: one.leechers * number,
            paused: one.paused * number,
        };
        for (is_there, counts) in [(v4, &mut self.v4), (v6, &mut self.v6)] {
            if is_there {
                *counts = counts.plus(several);
            }
        }
    }
}

// === impl Classes ===

impl<T> Default for Classes<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            ends: [0; 5],
        }
    }
}

impl<T> Classes<T> {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn items(&self) -> &[T] {
        &self.items
    }

    pub fn get(&self, at: usize) -> &T {
        &self.items[at]
    }

    pub fn get_mut(&mut self, at: usize) -> &mut T {
        &mut self.items[at]
    }

    /// The elements that may be handed to a requester of that role (rules W7, W8).
    pub fn candidates(&self, requester: Role) -> Range<usize> {
        match requester {
            Role::Leecher => 0..self.ends[2] as usize,
            Role::Paused | Role::Seeder => 0..self.ends[0] as usize,
        }
    }

    pub fn counts(&self) -> Counts {
        let size = |class: usize| (self.end(class) - self.start(class)) as u32;
        let paused = size(1) + size(4);
        Counts {
            seeders: size(2) + size(5),
            leechers: size(0) + size(3) + paused,
            paused,
        }
    }

    /// Adds an element and returns its place. `moved` learns of each element that moves: the element, from where, to where.
    pub fn insert(
        &mut self,
        item: T,
        role: Role,
        has_port: bool,
        mut moved: impl FnMut(&T, usize, usize),
    ) -> usize {
        let class = class(role, has_port);
        let mut place = self.items.len();
        self.items.push(item);
        for above in (class + 1..CLASSES).rev() {
            let first = self.start(above);
            if first != place {
                self.items.swap(first, place);
                moved(&self.items[place], first, place);
            }
            self.ends[above - 1] += 1;
            place = first;
        }
        place
    }

    /// Moves an element to another class and returns its place. `moved` learns of each element
    /// that moves, of this one last: the element, from where, to where.
    pub fn reclass(
        &mut self,
        at: usize,
        role: Role,
        has_port: bool,
        mut moved: impl FnMut(&T, usize, usize),
    ) -> usize {
        let (old, new) = (self.class_at(at), class(role, has_port));
        let mut place = at;
        let mut swap = |items: &mut Vec<T>, place: &mut usize, other: usize| {
            if other != *place {
                items.swap(other, *place);
                moved(&items[*place], other, *place);
                *place = other;
            }
        };
        for class in old..new {
            let last = self.end(class) - 1;
            swap(&mut self.items, &mut place, last);
            self.ends[class] -= 1;
        }
        for class in (new + 1..=old).rev() {
            let first = self.start(class);
            swap(&mut self.items, &mut place, first);
            self.ends[class - 1] += 1;
        }
        if place != at {
            moved(&self.items[place], at, place);
        }
        place
    }

    /// Takes an element out. `moved` learns of each element that moves: the element, from where, to where.
    pub fn remove(&mut self, at: usize, mut moved: impl FnMut(&T, usize, usize)) -> Option<T> {
        let mut hole = at;
        for class in self.class_at(at)..CLASSES {
            let last = self.end(class).checked_sub(1)?;
            if last != hole {
                self.items.swap(last, hole);
                moved(&self.items[hole], last, hole);
            }
            if class < CLASSES - 1 {
                self.ends[class] -= 1;
            }
            hole = last;
        }
        let item = self.items.pop();
        // Memory goes back when a swarm shrinks; the slack keeps one that sways from copying.
        if self.items.capacity() > 4 * self.items.len() + 8 {
            self.items.shrink_to(2 * self.items.len());
        }
        item
    }

    fn start(&self, class: usize) -> usize {
        if class == 0 {
            0
        } else {
            self.ends[class - 1] as usize
        }
    }

    fn end(&self, class: usize) -> usize {
        self.ends
            .get(class)
            .map_or(self.items.len(), |&end| end as usize)
    }

    fn class_at(&self, at: usize) -> usize {
        self.ends
            .iter()
            .take_while(|&&end| end as usize <= at)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_stay_in_order_and_every_move_is_told() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut classes = Classes::default();
        let mut places: Vec<Option<(usize, Role, bool)>> = vec![None; 64];
        for _ in 0..20_000 {
            let id = rng.usize(..places.len());
            let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
            let has_port = rng.bool();
            let mut told = Vec::new();
            let tell = |&other: &usize, from, to| told.push((other, from, to));
            match places[id] {
                Some((at, ..)) if rng.bool() => {
                    assert_eq!(classes.remove(at, tell), Some(id));
                    places[id] = None;
                }
                Some((at, ..)) => {
                    let place = classes.reclass(at, role, has_port, tell);
                    assert_eq!(*classes.get(place), id);
                    places[id] = Some((at, role, has_port));
                }
                None => {
                    let at = classes.insert(id, role, has_port, tell);
                    places[id] = Some((at, role, has_port));
                }
            }
            for (other, from, to) in told {
                if let Some(place) = &mut places[other] {
                    assert_eq!(place.0, from);
                    place.0 = to;
                }
            }
            check(&classes, &places);
        }
    }

    fn check(classes: &Classes<usize>, places: &[Option<(usize, Role, bool)>]) {
        let mut counts = Counts::default();
        for (id, place) in places.iter().enumerate() {
            let Some((at, role, has_port)) = *place else {
                continue;
            };
            assert_eq!(*classes.get(at), id);
            let for_leecher = classes.candidates(Role::Leecher).contains(&at);
            let for_seeder = classes.candidates(Role::Seeder).contains(&at);
            assert_eq!(for_leecher, has_port);
            assert_eq!(for_seeder, has_port && role == Role::Leecher);
            match role {
                Role::Seeder => counts.seeders += 1,
                Role::Leecher => counts.leechers += 1,
                Role::Paused => {
                    counts.leechers += 1;
                    counts.paused += 1;
                }
            }
        }
        assert_eq!(classes.counts(), counts);
    }
}
