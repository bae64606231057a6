//! Where the classes of a class-ordered array end: what large swarms of both kinds have in common.
//!
//! ```text
//! | class 0 | class 1 |   class 2   | ... | class N-1 |
//!           ^ends[0]  ^ends[1]      ^ends[2]          ^ends[N-1], the length
//! ```
//!
//! Adding and removing move at most one element per class boundary, so they cost the same for a swarm of
//! any size. The elements themselves are moved by the caller, in `shift` and `swap`.

use std::ops::Range;

#[derive(Debug)]
pub(super) struct ClassBounds<const N: usize> {
    ends: [u32; N],
}

impl<const N: usize> Default for ClassBounds<N> {
    fn default() -> Self {
        Self { ends: [0; N] }
    }
}

impl<const N: usize> ClassBounds<N> {
    pub fn len(&self) -> usize {
        self.end(N - 1)
    }

    /// The places of a class.
    pub fn range(&self, class: usize) -> Range<usize> {
        self.start(class)..self.end(class)
    }

    pub fn start(&self, class: usize) -> usize {
        match class.checked_sub(1) {
            Some(below) => self.end(below),
            None => 0,
        }
    }

    pub fn end(&self, class: usize) -> usize {
        self.ends[class] as usize
    }

    /// The class of the element at that place.
    pub fn class_at(&self, place: usize) -> usize {
        self.ends
            .iter()
            .take_while(|&&end| end as usize <= place)
            .count()
    }

    /// Makes room for an element of that class; returns its place. `shift(from, to)` is called for each element that
    /// moves: `to` is free.
    pub fn insert(&mut self, class: usize, mut shift: impl FnMut(usize, usize)) -> usize {
        let mut hole = self.len();
        self.ends[N - 1] += 1;
        for above in (class + 1..N).rev() {
            let first = self.start(above);
            if first != hole {
                shift(first, hole);
            }
            self.ends[above - 1] += 1;
            hole = first;
        }
        hole
    }

    /// Closes the gap that an element of that class leaves at `place`; returns the place at the end that
    /// is free then.
    pub fn remove(
        &mut self,
        class: usize,
        place: usize,
        mut shift: impl FnMut(usize, usize),
    ) -> usize {
        let mut hole = place;
        for class in class..N {
            let last = self.end(class) - 1;
            if last != hole {
                shift(last, hole);
            }
            self.ends[class] -= 1;
            hole = last;
        }
        hole
    }

    /// Moves the element at `place` to another class; returns its new place. `swap(from, to)` is called for each
    /// element that changes places with it.
    pub fn reclass(
        &mut self,
        place: usize,
        class: usize,
        mut swap: impl FnMut(usize, usize),
    ) -> usize {
        let old = self.class_at(place);
        let mut place = place;
        let mut swap_with = |other: usize| {
            if other != place {
                swap(other, place);
                place = other;
            }
        };
        for class in old..class {
            let last = self.ends[class] as usize - 1;
            swap_with(last);
            self.ends[class] -= 1;
        }
        for class in (class + 1..=old).rev() {
            let first = self.ends[class - 1] as usize;
            swap_with(first);
            self.ends[class - 1] += 1;
        }
        place
    }
}
