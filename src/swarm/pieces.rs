//! An array in pieces of one size.
//!
//! A shard's arrays grow and shrink by little, with those of a thousand other shards. Were each in
//! one piece, the allocator would have left-overs of every size, none of which fits anything. A
//! piece that one array gives up is what the next one asks for; and none is moved to grow.

use std::mem::take;
use std::ops::{Index, IndexMut};

/// Bytes of a piece: one of the sizes that allocators have.
const PIECE_BYTES: usize = 2560;

/// An array whose length is a multiple of a piece's, or a part of a single one.
#[derive(Debug)]
pub(super) struct Pieces<T> {
    pieces: Vec<Box<[T]>>,
}

// === impl Pieces ===

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        let pieces = Vec::new();
        Self { pieces }
    }
}

impl<T: Default> Pieces<T> {
    /// Elements of a piece.
    pub const PIECE: usize = PIECE_BYTES / size_of::<T>();

    pub fn len(&self) -> usize {
        match self.pieces.as_slice() {
            [] => 0,
            [first] => first.len(),
            more => more.len() * Self::PIECE,
        }
    }

    pub fn get(&self, at: usize) -> Option<&T> {
        self.pieces.get(at / Self::PIECE)?.get(at % Self::PIECE)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let piece = self.pieces.get_mut(at / Self::PIECE)?;
        piece.get_mut(at % Self::PIECE)
    }

    /// What is there of a piece from that element on; nothing behind the last.
    pub fn rest(&self, at: usize) -> &[T] {
        let piece = self.pieces.get(at / Self::PIECE);
        piece.map_or(&[], |piece| &piece[(at % Self::PIECE).min(piece.len())..])
    }

    /// The same, to be changed.
    pub fn rest_mut(&mut self, at: usize) -> &mut [T] {
        match self.pieces.get_mut(at / Self::PIECE) {
            Some(piece) => {
                let from = (at % Self::PIECE).min(piece.len());
                &mut piece[from..]
            }
            None => &mut [],
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pieces.iter_mut().flatten()
    }

    /// The first place from `at` on whose element is such a one.
    pub fn find_from(&self, at: usize, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let mut at = at;
        loop {
            let rest = self.rest(at);
            if let Some(ahead) = rest.iter().position(&is_it) {
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

    /// The length that it gets when it is made at least so long.
    pub fn rounded(len: usize) -> usize {
        if len <= Self::PIECE {
            len
        } else {
            len.next_multiple_of(Self::PIECE)
        }
    }

    /// Makes it at least so long, with default values at the end, or as short as that allows.
    pub fn resize(&mut self, len: usize) {
        let number = len.div_ceil(Self::PIECE);
        self.pieces.truncate(number);
        if number == 1 && self.pieces.len() <= 1 {
            let first = self.pieces.pop().unwrap_or_default();
            self.pieces.push(resized(first, len));
            return;
        }
        if let Some(first) = self.pieces.first_mut()
            && first.len() < Self::PIECE
        {
            *first = resized(take(first), Self::PIECE);
        }
        self.pieces.reserve_exact(number - self.pieces.len());
        while self.pieces.len() < number {
            self.pieces.push(resized(Box::default(), Self::PIECE));
        }
    }
}

impl<T: Default> Index<usize> for Pieces<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pieces[at / Self::PIECE][at % Self::PIECE]
    }
}

impl<T: Default> IndexMut<usize> for Pieces<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / Self::PIECE][at % Self::PIECE]
    }
}

fn resized<T: Default>(piece: Box<[T]>, len: usize) -> Box<[T]> {
    let mut piece = Vec::from(piece);
    piece.reserve_exact(len.saturating_sub(piece.len()));
    piece.resize_with(len, T::default);
    piece.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_grows_and_shrinks_by_pieces() {
        let mut pieces = Pieces::<u64>::default();
        assert_eq!((pieces.len(), Pieces::<u64>::PIECE), (0, 320));
        let mut kept: usize = 0;
        for len in [1, 4, 320, 5, 321, 2000, 1999, 700, 640, 641, 319, 0, 900] {
            pieces.resize(len);
            let expected = if len <= 320 {
                len
            } else {
                len.next_multiple_of(320)
            };
            assert_eq!(pieces.len(), expected);
            assert_eq!(pieces.iter().count(), expected);
            kept = kept.min(expected);
            for at in 0..expected {
                let value = if at < kept { at as u64 + 1 } else { 0 };
                assert_eq!(pieces.get(at), Some(&value), "{at} of {len}");
            }
            assert_eq!(pieces.get(expected), None);
            let places = pieces.iter_mut().zip(1..);
            places.for_each(|(place, value)| *place = value);
            kept = expected;
        }
        assert_eq!(pieces.rest(959), &[960]);
        assert_eq!(pieces.rest_mut(640).len(), 320);
        assert!(pieces.rest(960).is_empty());
        pieces.shift(319, 321);
        assert_eq!(
            [318, 319, 320, 321, 322].map(|at| pieces[at]),
            [319, 321, 322, 320, 323]
        );
        pieces.shift(321, 319);
        assert_eq!(
            [318, 319, 320, 321, 322].map(|at| pieces[at]),
            [319, 320, 321, 322, 323]
        );
        assert_eq!(pieces.find_from(7, |it| it % 700 == 0), Some(699));
        assert_eq!(pieces.find_from(700, |it| it % 700 == 0), None);
        pieces.resize(10);
        assert!(pieces.rest(10).is_empty() && pieces.rest(11).is_empty());
    }
}
