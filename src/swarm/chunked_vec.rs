//! An array in chunks of one size, against fragmentation.
//!
//! The arrays of a thousand shards grow and shrink in small steps. As contiguous memory they
//! would leave the allocator with holes of every size. A chunk that one array frees fits the next one that
//! grows, and growing moves no elements.

use std::mem::take;
use std::ops::{Index, IndexMut};

use crate::base::memory::lasting_len;

/// Bytes of a chunk: a size class of common allocators.
const CHUNK_BYTES: usize = 2560;

/// An array whose length is a multiple of a chunk's, or less than one chunk's.
#[derive(Debug)]
pub(super) struct ChunkedVec<T> {
    chunks: Vec<Box<[T]>>,
}

impl<T> Default for ChunkedVec<T> {
    fn default() -> Self {
        let chunks = Vec::new();
        Self { chunks }
    }
}

impl<T: Default> ChunkedVec<T> {
    /// Elements of a chunk.
    pub const CHUNK: usize = CHUNK_BYTES / size_of::<T>();

    pub fn len(&self) -> usize {
        match self.chunks.as_slice() {
            [] => 0,
            [first] => first.len(),
            more => more.len() * Self::CHUNK,
        }
    }

    pub fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / Self::CHUNK)?.get(at % Self::CHUNK)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(at / Self::CHUNK)?;
        chunk.get_mut(at % Self::CHUNK)
    }

    /// The rest of a chunk from that element on; empty past the last element.
    pub fn rest(&self, at: usize) -> &[T] {
        let chunk = self.chunks.get(at / Self::CHUNK);
        chunk.map_or(&[], |chunk| &chunk[(at % Self::CHUNK).min(chunk.len())..])
    }

    /// The rest of a chunk from that element on, mutable.
    pub fn rest_mut(&mut self, at: usize) -> &mut [T] {
        match self.chunks.get_mut(at / Self::CHUNK) {
            Some(chunk) => {
                let from = (at % Self::CHUNK).min(chunk.len());
                &mut chunk[from..]
            }
            None => &mut [],
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten()
    }

    /// The first place from `at` on whose element `matches`.
    pub fn find_from(&self, at: usize, matches: impl Fn(&T) -> bool) -> Option<usize> {
        let mut at = at;
        loop {
            let rest = self.rest(at);
            if let Some(ahead) = rest.iter().position(&matches) {
                return Some(at + ahead);
            }
            if rest.is_empty() {
                return None;
            }
            at += rest.len();
        }
    }

    /// Moves the element at `from` to `to`, and those between by one towards `from`.
    pub fn shift(&mut self, from: usize, to: usize) {
        let moved = take(&mut self[from]);
        for at in from..to {
            self[at] = take(&mut self[at + 1]);
        }
        for at in (to..from).rev() {
            self[at + 1] = take(&mut self[at]);
        }
        self[to] = moved;
    }

    /// The length after a resize to at least `len`.
    pub fn rounded(len: usize) -> usize {
        if len <= Self::CHUNK {
            lasting_len::<T>(len)
        } else {
            len.next_multiple_of(Self::CHUNK)
        }
    }

    /// Resizes to the shortest possible length of at least `len`, with default values at the end.
    pub fn resize(&mut self, len: usize) {
        let number = len.div_ceil(Self::CHUNK);
        self.chunks.truncate(number);
        if number == 1 && self.chunks.len() <= 1 {
            let first = self.chunks.pop().unwrap_or_default();
            self.chunks.push(resized(first, Self::rounded(len)));
            return;
        }
        if let Some(first) = self.chunks.first_mut()
            && first.len() < Self::CHUNK
        {
            *first = resized(take(first), Self::CHUNK);
        }
        let room = lasting_len::<Box<[T]>>(number);
        self.chunks.reserve_exact(room - self.chunks.len());
        while self.chunks.len() < number {
            self.chunks.push(resized(Box::default(), Self::CHUNK));
        }
    }
}

impl<T: Default> Index<usize> for ChunkedVec<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.chunks[at / Self::CHUNK][at % Self::CHUNK]
    }
}

impl<T: Default> IndexMut<usize> for ChunkedVec<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.chunks[at / Self::CHUNK][at % Self::CHUNK]
    }
}

fn resized<T: Default>(chunk: Box<[T]>, len: usize) -> Box<[T]> {
    let mut chunk = Vec::from(chunk);
    chunk.reserve_exact(len.saturating_sub(chunk.len()));
    chunk.resize_with(len, T::default);
    chunk.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_grows_and_shrinks_by_pieces() {
        let mut chunks = ChunkedVec::<u64>::default();
        assert_eq!((chunks.len(), ChunkedVec::<u64>::CHUNK), (0, 320));
        let mut kept: usize = 0;
        for len in [1, 4, 320, 5, 321, 2000, 1999, 700, 640, 641, 319, 0, 900] {
            chunks.resize(len);
            let expected = if len <= 320 {
                len
            } else {
                len.next_multiple_of(320)
            };
            assert_eq!(chunks.len(), expected);
            assert_eq!(chunks.iter().count(), expected);
            kept = kept.min(expected);
            for at in 0..expected {
                let value = if at < kept { at as u64 + 1 } else { 0 };
                assert_eq!(chunks.get(at), Some(&value), "{at} of {len}");
            }
            assert_eq!(chunks.get(expected), None);
            let places = chunks.iter_mut().zip(1..);
            places.for_each(|(place, value)| *place = value);
            kept = expected;
        }
        assert_eq!(chunks.rest(959), &[960]);
        assert_eq!(chunks.rest_mut(640).len(), 320);
        assert!(chunks.rest(960).is_empty());
        chunks.shift(319, 321);
        assert_eq!(
            [318, 319, 320, 321, 322].map(|at| chunks[at]),
            [319, 321, 322, 320, 323]
        );
        chunks.shift(321, 319);
        assert_eq!(
            [318, 319, 320, 321, 322].map(|at| chunks[at]),
            [319, 320, 321, 322, 323]
        );
        assert_eq!(chunks.find_from(7, |it| it % 700 == 0), Some(699));
        assert_eq!(chunks.find_from(700, |it| it % 700 == 0), None);
        chunks.resize(10);
        assert!(chunks.rest(10).is_empty() && chunks.rest(11).is_empty());
    }
}
