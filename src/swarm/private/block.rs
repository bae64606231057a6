//! Up to 32 entries of a private swarm in one block of memory.
//!
//! ```text
//! snatches 4 | entries 1 | the length of each | the tag of each | the entries | slack
//! ```
//!
//! Nothing is allocated for a block without entries and snatches. Block sizes are the size classes of
//! allocators, so the slack would be lost anyway.

use crate::base::memory::lasting_size;
use crate::swarm::private::packed::{EntryView, PackedEntry, Tag};

/// The most entries in a block: few enough to scan their tags, and to move them all
/// when one of them grows.
pub(super) const BLOCK_MAX: usize = 32;

const COUNT_AT: usize = 4;
const LENS_AT: usize = 5;

/// Memory is given back when more than this is spare, so that a swarm that grows and shrinks is not copied each time.
const SLACK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct PeerBlock(Box<[u8]>);

impl PeerBlock {
    pub fn len(&self) -> usize {
        self.0.get(COUNT_AT).map_or(0, |&count| count.into())
    }

    /// Snatches of the torrent, where this is its first block.
    pub fn snatches(&self) -> u32 {
        match self.0.first_chunk() {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => 0,
        }
    }

    pub fn set_snatches(&mut self, snatches: u32) {
        if snatches != self.snatches() {
            self.fit(self.used());
            self.0[..COUNT_AT].copy_from_slice(&snatches.to_le_bytes());
            self.free_if_unused();
        }
    }

    pub fn tags(&self) -> impl ExactSizeIterator<Item = Tag> + '_ {
        let start = LENS_AT + self.len();
        let tags = self.0.get(start..start + self.len()).unwrap_or_default();
        tags.iter().map(|&tag| Tag(tag))
    }

    /// The entry in that slot.
    pub fn view(&self, slot: usize) -> EntryView<'_> {
        let start = self.start(slot);
        EntryView {
            bytes: &self.0[start..start + self.len_of(slot)],
            tag: Tag(self.0[LENS_AT + self.len() + slot]),
        }
    }

    /// The first entry whose tag `is_candidate` and that `matches`.
    pub fn find(
        &self,
        is_candidate: impl Fn(Tag) -> bool,
        mut matches: impl FnMut(EntryView<'_>) -> bool,
    ) -> Option<usize> {
        let mut start = LENS_AT + 2 * self.len();
        self.tags().enumerate().position(|(slot, tag)| {
            let end = start + self.len_of(slot);
            let bytes = start..end;
            start = end;
            is_candidate(tag)
                && matches(EntryView {
                    bytes: &self.0[bytes],
                    tag,
                })
        })
    }

    /// Adds an entry after the others. There must be fewer than [`BLOCK_MAX`].
    pub fn push(&mut self, entry: &PackedEntry) {
        let (count, used) = (self.len(), self.used());
        let bytes = entry.bytes();
        self.fit(used + 2 + bytes.len());
        let (tags, entries) = (LENS_AT + count, LENS_AT + 2 * count);
        self.0.copy_within(entries..used, entries + 2);
        self.0.copy_within(tags..entries, tags + 1);
        self.0[tags] = bytes.len() as u8;
        self.0[entries + 1] = entry.tag.0;
        self.0[used + 2..used + 2 + bytes.len()].copy_from_slice(bytes);
        self.0[COUNT_AT] = count as u8 + 1;
    }

    /// Replaces an entry.
    pub fn set(&mut self, slot: usize, entry: &PackedEntry) {
        let bytes = entry.bytes();
        let (start, len) = (self.start(slot), self.len_of(slot));
        if bytes.len() != len {
            let used = self.used();
            let after = used - len + bytes.len();
            if after > used {
                self.fit(after);
            }
            self.0.copy_within(start + len..used, start + bytes.len());
            self.0[LENS_AT + slot] = bytes.len() as u8;
            if after < used {
                self.fit(after);
            }
        }
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
        let tag = LENS_AT + self.len() + slot;
        self.0[tag] = entry.tag.0;
    }

    /// Removes an entry; those behind it move up.
    pub fn remove(&mut self, slot: usize) {
        let (count, used) = (self.len(), self.used());
        let (start, len) = (self.start(slot), self.len_of(slot));
        let (tags, entries) = (LENS_AT + count, LENS_AT + 2 * count);
        self.0
            .copy_within(LENS_AT + slot + 1..tags + slot, LENS_AT + slot);
        self.0.copy_within(tags + slot + 1..start, tags + slot - 1);
        self.0.copy_within(start + len..used, start - 2);
        debug_assert!(start >= entries);
        self.0[COUNT_AT] = count as u8 - 1;
        self.fit(used - len - 2);
        self.free_if_unused();
    }

    /// Bytes of its block.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.0.len()
    }

    fn len_of(&self, slot: usize) -> usize {
        self.0[LENS_AT + slot].into()
    }

    /// Where the entry of that slot begins; for the slot after the last, where the slack begins.
    fn start(&self, slot: usize) -> usize {
        let lens = self.0.get(LENS_AT..LENS_AT + slot).unwrap_or_default();
        let before: usize = lens.iter().map(|&len| usize::from(len)).sum();
        LENS_AT + 2 * self.len() + before
    }

    fn used(&self) -> usize {
        self.start(self.len())
    }

    /// Moves to a larger block if `bytes` have no room, and to a smaller one if they need
    /// much less.
    fn fit(&mut self, bytes: usize) {
        let size = self.0.len();
        if bytes > size || lasting_size(bytes + SLACK) < size {
            let mut block = vec![0; lasting_size(bytes)].into_boxed_slice();
            let kept = bytes.min(size);
            block[..kept].copy_from_slice(&self.0[..kept]);
            self.0 = block;
        }
    }

    fn free_if_unused(&mut self) {
        if self.len() == 0 && self.snatches() == 0 {
            self.0 = Box::default();
        }
    }
}
