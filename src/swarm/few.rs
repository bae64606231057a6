//! The peers of a small public swarm in one piece of memory, and none for a single IPv4 peer.
//!
//! A block is an array of units of 12 bytes in one of the sizes that allocators have. An IPv4
//! peer takes one from the front, an IPv6 peer two from the back:
//!
//! ```text
//! | v4 | v4 | v4 |  free  |   v6    |   v6    |
//! ```

use crate::addr::{Compact4, Compact6};
use crate::swarm::member::{Kept, Member};

/// 12 bytes: room for an IPv4 peer, or half of that for an IPv6 peer.
type Unit = [u8; 12];

/// The most units that a block has.
pub(super) const UNITS_MAX: usize = 32;

/// What is said of a block beside it. Bytes, so that it fits between the tag and the pointer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    /// Peers of each family.
    v4: u8,
    v6: u8,
    /// Snatches; little-endian.
    downloaded: [u8; 4],
}

macro_rules! blocks {
    ($($name:ident: $units:literal),+) => {
        /// Peers of both families, at most [`UNITS_MAX`] units of them, and the torrent's snatches.
        #[derive(Debug)]
        pub(super) enum Few {
            /// At most one IPv4 peer.
            One { v4: u8, downloaded: u16, unit: [Unit; 1] },
            $($name(Head, Box<[Unit; $units]>),)+
        }

        /// The numbers of units that blocks have.
        const SIZES: &[usize] = &[1, $($units),+];

        impl Few {
            /// An empty block for so many units, of which there are at most [`UNITS_MAX`].
            fn with_room(units: usize, downloaded: u32) -> Self {
                let downloaded_few = u16::try_from(downloaded);
                if let (0..=1, Ok(downloaded)) = (units, downloaded_few) {
                    let unit = [[0; 12]];
                    return Self::One { v4: 0, downloaded, unit };
                }
                let downloaded = downloaded.to_le_bytes();
                let head = Head { downloaded, ..Head::default() };
                match units {
                    $(0..=$units => Self::$name(head, Box::new([[0; 12]; $units])),)+
                    _ => Self::ThirtyTwo(head, Box::new([[0; 12]; UNITS_MAX])),
                }
            }

            fn head(&self) -> Head {
                match *self {
                    Self::One { v4, downloaded, .. } => {
                        let downloaded = u32::from(downloaded).to_le_bytes();
                        Head { v4, v6: 0, downloaded }
                    }
                    $(Self::$name(head, _) => head,)+
                }
            }

            /// Sets the snatches; false if there is no room for so large a number.
            fn note_downloaded(&mut self, number: u32) -> bool {
                match self {
                    Self::One { downloaded, .. } => match u16::try_from(number) {
                        Ok(number) => *downloaded = number,
                        Err(_) => return false,
                    },
                    $(Self::$name(head, _) => head.downloaded = number.to_le_bytes(),)+
                }
                true
            }

            fn set_lens(&mut self, v4_len: usize, v6_len: usize) {
                match self {
                    Self::One { v4, .. } => *v4 = v4_len as u8,
                    $(Self::$name(head, _) => (head.v4, head.v6) = (v4_len as u8, v6_len as u8),)+
                }
            }

            fn units(&self) -> &[Unit] {
                match self {
                    Self::One { unit, .. } => unit,
                    $(Self::$name(_, units) => units.as_slice(),)+
                }
            }

            fn units_mut(&mut self) -> &mut [Unit] {
                match self {
                    Self::One { unit, .. } => unit,
                    $(Self::$name(_, units) => units.as_mut_slice(),)+
                }
            }
        }
    };
}

// 32, 48, 80, 96, 128, 160, 192, 256, 320 and 384 bytes, nearly: sizes that allocators have.
blocks!(
    Two: 2, Four: 4, Six: 6, Eight: 8, Ten: 10, Thirteen: 13, Sixteen: 16, TwentyOne: 21,
    TwentySix: 26, ThirtyTwo: 32
);

/// A family whose peers a block has.
pub(super) trait InFew: Kept {
    /// Units of one peer.
    const UNITS: usize;

    fn all(few: &Few) -> &[Self::Packed];
    fn all_mut(few: &mut Few) -> &mut [Self::Packed];
    /// One more or fewer of them, of which the new one is not written yet.
    fn set_len(few: &mut Few, len: usize);
    /// The place of the new one, or of the one to be taken away.
    fn last(few: &Few) -> usize;
}

// === impl Few ===

impl Default for Few {
    fn default() -> Self {
        Self::with_room(0, 0)
    }
}

impl Few {
    /// An empty one of a torrent with so many snatches, with room for so many units.
    pub fn new(units: usize, downloaded: u32) -> Self {
        Self::with_room(units, downloaded)
    }

    pub fn downloaded(&self) -> u32 {
        u32::from_le_bytes(self.head().downloaded)
    }

    pub fn set_downloaded(&mut self, downloaded: u32) {
        if !self.note_downloaded(downloaded) {
            let mut few = Self::with_room(self.used(), downloaded);
            few.take_over(self);
            *self = few;
        }
    }

    /// Units in use.
    pub fn used(&self) -> usize {
        let head = self.head();
        usize::from(head.v4) + 2 * usize::from(head.v6)
    }

    /// Reads the first cache line of the peers, and the third.
    pub fn touch(&self) -> usize {
        let units = self.units();
        let read = |at: usize| units.get(at).map_or(0, |unit| usize::from(unit[0]));
        read(0) + read(11)
    }

    pub fn is_empty(&self) -> bool {
        self.used() == 0
    }

    /// Adds a peer; false if no block is large enough.
    pub fn push<C: InFew>(&mut self, member: &Member<C>) -> bool {
        let used = self.used() + C::UNITS;
        if used > UNITS_MAX {
            return false;
        }
        if used > self.units().len() {
            self.resize(used);
        }
        let len = C::all(self).len() + 1;
        C::set_len(self, len);
        let last = C::last(self);
        C::all_mut(self)[last] = C::pack(member);
        true
    }

    /// Takes a peer out; the last one comes to its place.
    pub fn remove<C: InFew>(&mut self, place: usize) {
        let last = C::last(self);
        let all = C::all_mut(self);
        all[place] = all[last];
        let len = all.len() - 1;
        C::set_len(self, len);
    }

    /// Gives memory back if two sizes less would do, so that one that sways is not moved each time.
    pub fn shrink(&mut self) {
        let used = self.used();
        let at = SIZES.iter().position(|&size| size == self.units().len());
        let at = at.unwrap_or_default();
        let enough = at.checked_sub(2).map_or(0, |at| SIZES[at]);
        if at > 0 && used <= enough {
            self.resize(used);
        }
    }

    fn resize(&mut self, units: usize) {
        let mut few = Self::with_room(units, self.downloaded());
        few.take_over(self);
        *self = few;
    }

    /// Copies the peers of another one, for which there is room.
    fn take_over(&mut self, other: &Self) {
        let head = other.head();
        let (v4, v6) = (usize::from(head.v4), usize::from(head.v6));
        self.set_lens(v4, v6);
        let (from, to) = (other.units(), self.units_mut());
        to[..v4].copy_from_slice(&from[..v4]);
        let (from_end, to_end) = (from.len() - 2 * v6, to.len() - 2 * v6);
        to[to_end..].copy_from_slice(&from[from_end..]);
    }
}

impl InFew for Compact4 {
    const UNITS: usize = 1;

    fn all(few: &Few) -> &[[u8; 12]] {
        &few.units()[..usize::from(few.head().v4)]
    }

    fn all_mut(few: &mut Few) -> &mut [[u8; 12]] {
        let len = usize::from(few.head().v4);
        &mut few.units_mut()[..len]
    }

    fn set_len(few: &mut Few, len: usize) {
        let v6 = usize::from(few.head().v6);
        few.set_lens(len, v6);
    }

    fn last(few: &Few) -> usize {
        usize::from(few.head().v4) - 1
    }
}

impl InFew for Compact6 {
    const UNITS: usize = 2;

    fn all(few: &Few) -> &[[u8; 24]] {
        let units = few.units();
        let taken = &units[units.len() - 2 * usize::from(few.head().v6)..];
        taken.as_flattened().as_chunks().0
    }

    fn all_mut(few: &mut Few) -> &mut [[u8; 24]] {
        let len = 2 * usize::from(few.head().v6);
        let units = few.units_mut();
        let start = units.len() - len;
        units[start..].as_flattened_mut().as_chunks_mut().0
    }

    fn set_len(few: &mut Few, len: usize) {
        let v4 = usize::from(few.head().v4);
        few.set_lens(v4, len);
    }

    fn last(_: &Few) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Few {
        /// The block is not much larger than its peers need.
        pub fn check(&self) {
            let (used, units) = (self.used(), self.units().len());
            let at = SIZES.iter().position(|&size| size == units).unwrap();
            assert!(
                used <= units && (at < 2 || used > SIZES[at - 2]),
                "{used} of {units}"
            );
        }
    }
}
