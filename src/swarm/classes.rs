//! An array in order of class, so that the candidates for a requester are one contiguous range.
//!
//! ```text
//! | leechers | paused | seeders | portless leechers | portless paused | portless seeders |
//! 0 ─ for a seeder ─┘           │
//! 0 ─ for a leecher ────────────┘      portless peers are counted and never handed out
//! ```

use std::ops::Range;

use crate::swarm::class_bounds::ClassBounds;

/// The role of a peer in its swarm.
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
    bounds: ClassBounds<CLASSES>,
}

const CLASSES: usize = 6;

/// Numbers of peers by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    pub seeders: u32,
    /// All peers that are not seeders.
    pub leechers: u32,
    /// Those leechers that are partial seeds.
    pub paused: u32,
}

/// Peers of each address family. A private peer that is in the swarm by both counts in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyCounts {
    pub v4: PeerCounts,
    pub v6: PeerCounts,
}

fn class(role: Role, has_port: bool) -> usize {
    let class = match role {
        Role::Leecher => 0,
        Role::Paused => 1,
        Role::Seeder => 2,
    };
    if has_port { class } else { class + 3 }
}

// === impl PeerCounts ===

impl PeerCounts {
    /// One peer of that role: what it adds when it enters, and takes away when it leaves or changes (rule W13).
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

// === impl FamilyCounts ===

impl FamilyCounts {
    /// Adds `number` peers of that role, which are there by IPv4, by IPv6, or by both.
    pub(super) fn add(&mut self, role: Role, (v4, v6): (bool, bool), number: u32) {
        let one = PeerCounts::of(role);
        let several = PeerCounts {
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
            bounds: ClassBounds::default(),
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

    /// The elements that may be handed to a requester of that role: to a leecher, all with a port; to a
    /// partial seed (rule W7) or a seeder, only leechers (rule W8).
    pub fn candidates(&self, requester: Role) -> Range<usize> {
        match requester {
            Role::Leecher => 0..self.bounds.end(2),
            Role::Paused | Role::Seeder => 0..self.bounds.end(0),
        }
    }

    pub fn counts(&self) -> PeerCounts {
        let size = |class: usize| self.bounds.range(class).len() as u32;
        let paused = size(1) + size(4);
        PeerCounts {
            seeders: size(2) + size(5),
            leechers: size(0) + size(3) + paused,
            paused,
        }
    }

    /// Adds an element and returns its place. `moved` is called for each element that moves: the element,
    /// from where, to where.
    pub fn insert(
        &mut self,
        item: T,
        role: Role,
        has_port: bool,
        mut moved: impl FnMut(&T, usize, usize),
    ) -> usize {
        let items = &mut self.items;
        items.push(item);
        self.bounds.insert(class(role, has_port), |from, to| {
            items.swap(from, to);
            moved(&items[to], from, to);
        })
    }

    /// Moves an element to another class and returns its place. `moved` is called for each element
    /// that moves, for this one last: the element, from where, to where.
    pub fn reclass(
        &mut self,
        at: usize,
        role: Role,
        has_port: bool,
        mut moved: impl FnMut(&T, usize, usize),
    ) -> usize {
        let items = &mut self.items;
        let place = self.bounds.reclass(at, class(role, has_port), |from, to| {
            items.swap(from, to);
            moved(&items[to], from, to);
        });
        if place != at {
            moved(&items[place], at, place);
        }
        place
    }

    /// Removes an element. `moved` is called for each element that moves: the element, from where, to where.
    pub fn remove(&mut self, at: usize, mut moved: impl FnMut(&T, usize, usize)) -> Option<T> {
        let items = &mut self.items;
        let class = self.bounds.class_at(at);
        self.bounds.remove(class, at, |from, to| {
            items.swap(from, to);
            moved(&items[to], from, to);
        });
        let item = items.pop();
        // Memory goes back when a swarm shrinks; the slack avoids copies while one grows and shrinks.
        if items.capacity() > 4 * items.len() + 8 {
            items.shrink_to(2 * items.len());
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_stay_in_order_and_every_move_is_reported() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut classes = Classes::default();
        let mut places: Vec<Option<(usize, Role, bool)>> = vec![None; 64];
        for _ in 0..20_000 {
            let id = rng.usize(..places.len());
            let role = [Role::Leecher, Role::Paused, Role::Seeder][rng.usize(..3)];
            let has_port = rng.bool();
            let mut moves = Vec::new();
            let moved = |&other: &usize, from, to| moves.push((other, from, to));
            match places[id] {
                Some((at, ..)) if rng.bool() => {
                    assert_eq!(classes.remove(at, moved), Some(id));
                    places[id] = None;
                }
                Some((at, ..)) => {
                    let place = classes.reclass(at, role, has_port, moved);
                    assert_eq!(*classes.get(place), id);
                    places[id] = Some((at, role, has_port));
                }
                None => {
                    let at = classes.insert(id, role, has_port, moved);
                    places[id] = Some((at, role, has_port));
                }
            }
            for (other, from, to) in moves {
                if let Some(place) = &mut places[other] {
                    assert_eq!(place.0, from);
                    place.0 = to;
                }
            }
            check(&classes, &places);
        }
    }

    fn check(classes: &Classes<usize>, places: &[Option<(usize, Role, bool)>]) {
        let mut counts = PeerCounts::default();
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
