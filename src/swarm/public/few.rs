//! The peers of a small public swarm: in its run of the shard's [pool](super::pool), or in place if
//! it is a single one of IPv4.
//!
//! An IPv4 peer takes a unit from the front of the run, an IPv6 peer two from the back:
//!
//! ```text
//! | v4 | v4 | v4 |  free  |   v6    |   v6    |
//! ```

use crate::base::addr::{Compact4, Compact6};
use crate::base::clock::Seconds;
use crate::swarm::member::{Kept, Member};
use crate::swarm::public::pool::{Pool, Run, UNITS_MAX, Unit};

/// Peers of both families, at most [`UNITS_MAX`] units of them, and the torrent's snatches.
#[derive(Debug)]
pub(super) enum Few {
    /// At most one IPv4 peer.
    One {
        v4: u8,
        downloaded: u16,
        unit: [Unit; 1],
    },
    /// So many peers of each family.
    Several {
        v4: u8,
        v6: u8,
        run: Run,
        downloaded: u32,
    },
}

/// A family whose peers a small swarm has.
pub(super) trait InFew: Kept {
    /// Units of one peer.
    const UNITS: usize;

    fn all<'a>(few: &'a Few, pool: &'a Pool) -> &'a [Self::Packed];
    fn all_mut<'a>(few: &'a mut Few, pool: &'a mut Pool) -> &'a mut [Self::Packed];
    /// So many of them now, of which a new one is not written yet.
    fn set_len(few: &mut Few, len: usize);
    /// The place of the newest of so many.
    fn newest(len: usize) -> usize;
}

// === impl Few ===

impl Default for Few {
    fn default() -> Self {
        Self::One {
            v4: 0,
            downloaded: 0,
            unit: [[0; 12]],
        }
    }
}

impl Few {
    /// An empty one of a torrent with so many snatches, with room for so many units, which are at
    /// most [`UNITS_MAX`].
    pub fn new(pool: &mut Pool, units: usize, downloaded: u32) -> Self {
        match (units, u16::try_from(downloaded)) {
            (0..=1, Ok(downloaded)) => Self::One {
                v4: 0,
                downloaded,
                unit: [[0; 12]],
            },
            _ => Self::Several {
                v4: 0,
                v6: 0,
                run: pool.take(units),
                downloaded,
            },
        }
    }

    pub fn downloaded(&self) -> u32 {
        match *self {
            Self::One { downloaded, .. } => downloaded.into(),
            Self::Several { downloaded, .. } => downloaded,
        }
    }

    pub fn set_downloaded(&mut self, pool: &mut Pool, number: u32) {
        match self {
            Self::Several { downloaded, .. } => *downloaded = number,
            Self::One { downloaded, .. } => match u16::try_from(number) {
                Ok(number) => *downloaded = number,
                Err(_) => self.rebuild(pool, self.used(), number),
            },
        }
    }

    /// Notes in the unit that nobody uses when it was found empty.
    pub fn note_empty(&mut self, now: Seconds) {
        if let (None, Self::One { v4: 0, unit, .. }) = (self.empty_since(), self) {
            unit[0][..4].copy_from_slice(&now.0.to_le_bytes());
        }
    }

    /// When it was first found empty; the unit of one that just became so is of zeros.
    pub fn empty_since(&self) -> Option<Seconds> {
        let Self::One { v4: 0, unit, .. } = self else {
            return None;
        };
        let noted = unit[0]
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        (noted != 0).then_some(Seconds(noted))
    }

    /// Units in use.
    pub fn used(&self) -> usize {
        let (v4, v6) = self.lens();
        v4 + 2 * v6
    }

    pub fn is_empty(&self) -> bool {
        self.used() == 0
    }

    /// Reads the first cache line of the peers, and the third.
    pub fn touch(&self, pool: &Pool) -> usize {
        let units = self.units(pool);
        let read = |at: usize| units.get(at).map_or(0, |unit| usize::from(unit[0]));
        read(0) + read(11)
    }

    /// Adds a peer; false if there are too many for a small swarm.
    pub fn push<C: InFew>(&mut self, pool: &mut Pool, member: &Member<C>) -> bool {
        let used = self.used() + C::UNITS;
        if used > UNITS_MAX {
            return false;
        }
        if used > self.units(pool).len() {
            let roomy = (used + used / 8).min(UNITS_MAX);
            self.rebuild(pool, roomy, self.downloaded());
        }
        let len = C::all(self, pool).len() + 1;
        C::set_len(self, len);
        C::all_mut(self, pool)[C::newest(len)] = C::pack(member);
        true
    }

    /// Takes a peer out; the newest one comes to its place.
    pub fn remove<C: InFew>(&mut self, pool: &mut Pool, place: usize) {
        let all = C::all_mut(self, pool);
        let len = all.len();
        all[place] = all[C::newest(len)];
        C::set_len(self, len - 1);
    }

    /// Gives memory back if there is some to spare beyond what one that sways will take again.
    pub fn shrink(&mut self, pool: &mut Pool) {
        let (used, units) = (self.used(), self.units(pool).len());
        if used == 0 || units > used + used / 4 + 2 {
            self.rebuild(pool, used, self.downloaded());
        }
    }

    /// Takes out everybody.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Self::Several { run, .. } = self {
            pool.give_back(*run);
        }
        *self = Self::default();
    }

    /// Moves to another pool, where it takes no more units than it uses.
    pub fn move_over(&mut self, from: &Pool, to: &mut Pool) {
        if let Self::Several { downloaded, .. } = *self {
            let (v4, v6) = self.ends(self.units(from));
            let mut moved = Self::new(to, self.used(), downloaded);
            moved.fill(to, v4, v6);
            *self = moved;
        }
    }

    /// Puts everybody where there is room for so many units, which are no fewer than are in use.
    fn rebuild(&mut self, pool: &mut Pool, units: usize, downloaded: u32) {
        let mut kept = [[0; 12]; UNITS_MAX];
        let old = self.units(pool);
        let kept = &mut kept[..old.len()];
        kept.copy_from_slice(old);
        let (v4, v6) = self.ends(kept);
        if let Self::Several { run, .. } = self {
            pool.give_back(*run);
        }
        let mut few = Self::new(pool, units, downloaded);
        few.fill(pool, v4, v6);
        *self = few;
    }

    /// Writes all peers of both families into an empty one.
    fn fill(&mut self, pool: &mut Pool, v4: &[Unit], v6: &[Unit]) {
        let units = self.units_mut(pool);
        let v6_start = units.len() - v6.len();
        units[..v4.len()].copy_from_slice(v4);
        units[v6_start..].copy_from_slice(v6);
        self.set_lens(v4.len(), v6.len() / 2);
    }

    /// The units of each family.
    fn ends<'a>(&self, units: &'a [Unit]) -> (&'a [Unit], &'a [Unit]) {
        let (v4, v6) = self.lens();
        (&units[..v4], &units[units.len() - 2 * v6..])
    }

    /// Peers of each family.
    fn lens(&self) -> (usize, usize) {
        match *self {
            Self::One { v4, .. } => (v4.into(), 0),
            Self::Several { v4, v6, .. } => (v4.into(), v6.into()),
        }
    }

    fn set_lens(&mut self, v4_len: usize, v6_len: usize) {
        match self {
            Self::One { v4, .. } => *v4 = v4_len as u8,
            Self::Several { v4, v6, .. } => (*v4, *v6) = (v4_len as u8, v6_len as u8),
        }
    }

    fn units<'a>(&'a self, pool: &'a Pool) -> &'a [Unit] {
        match self {
            Self::One { unit, .. } => unit,
            Self::Several { run, .. } => pool.get(*run),
        }
    }

    fn units_mut<'a>(&'a mut self, pool: &'a mut Pool) -> &'a mut [Unit] {
        match self {
            Self::One { unit, .. } => unit,
            Self::Several { run, .. } => pool.get_mut(*run),
        }
    }
}

impl InFew for Compact4 {
    const UNITS: usize = 1;

    fn all<'a>(few: &'a Few, pool: &'a Pool) -> &'a [[u8; 12]] {
        let len = few.lens().0;
        &few.units(pool)[..len]
    }

    fn all_mut<'a>(few: &'a mut Few, pool: &'a mut Pool) -> &'a mut [[u8; 12]] {
        let len = few.lens().0;
        &mut few.units_mut(pool)[..len]
    }

    fn set_len(few: &mut Few, len: usize) {
        few.set_lens(len, few.lens().1);
    }

    fn newest(len: usize) -> usize {
        len - 1
    }
}

impl InFew for Compact6 {
    const UNITS: usize = 2;

    fn all<'a>(few: &'a Few, pool: &'a Pool) -> &'a [[u8; 24]] {
        let (_, v6) = few.ends(few.units(pool));
        v6.as_flattened().as_chunks().0
    }

    fn all_mut<'a>(few: &'a mut Few, pool: &'a mut Pool) -> &'a mut [[u8; 24]] {
        let len = few.lens().1;
        let units = few.units_mut(pool);
        let start = units.len() - 2 * len;
        units[start..].as_flattened_mut().as_chunks_mut().0
    }

    fn set_len(few: &mut Few, len: usize) {
        few.set_lens(few.lens().0, len);
    }

    fn newest(_: usize) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Few {
        /// It has not much more memory than its peers need.
        pub fn check(&self, pool: &Pool) {
            let (used, units) = (self.used(), self.units(pool).len());
            let is_tight = used <= units && units <= (used + used / 4 + 2).max(1);
            assert!(is_tight, "{used} of {units}");
        }

        /// Its run, if it has one.
        pub fn run(&self) -> Option<Run> {
            match self {
                Self::One { .. } => None,
                Self::Several { run, .. } => Some(*run),
            }
        }
    }
}
