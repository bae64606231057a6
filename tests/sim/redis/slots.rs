//! The slots of a cluster: which one a key is in, and which part serves it.

/// How many slots a cluster has.
const SLOTS: u16 = 16384;

/// The remainders of CRC16 (XMODEM) for each byte.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

pub struct Slots {
    /// The part that serves each slot.
    owners: Vec<usize>,
    /// The same in ranges: first, last, part.
    ranges: Vec<(i64, i64, usize)>,
    moving: Option<Move>,
}

/// A slot on its way to another part.
#[derive(Clone, Copy)]
pub struct Move {
    pub slot: u16,
    pub from: usize,
    pub to: usize,
}

/// The slot of a key: of the text between the first braces, if there is any.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| {
        let (tag, _) = rest.split_once('}')?;
        (!tag.is_empty()).then_some(tag)
    });
    let mut crc = 0_u16;
    for byte in tag.unwrap_or(key).bytes() {
        crc = (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc % SLOTS
}

/// The part that serves a slot at the beginning.
pub fn first_owner(slot: u16, parts: usize) -> usize {
    usize::from(slot) * parts / usize::from(SLOTS)
}

// === impl Slots ===

impl Slots {
    pub fn new(parts: usize) -> Self {
        let owners = (0..SLOTS).map(|slot| first_owner(slot, parts));
        let mut slots = Self {
            owners: owners.collect(),
            ranges: Vec::new(),
            moving: None,
        };
        slots.find_ranges();
        slots
    }

    fn find_ranges(&mut self) {
        self.ranges.clear();
        let mut first = 0;
        for range in self.owners.chunk_by(|one, next| one == next) {
            let end = first + range.len() as i64;
            self.ranges.push((first, end - 1, range[0]));
            first = end;
        }
    }

    pub fn ranges(&self) -> &[(i64, i64, usize)] {
        &self.ranges
    }

    pub fn owner_of(&self, slot: u16) -> usize {
        self.owners[usize::from(slot)]
    }

    /// Whether a part may have keys of a slot: it serves it, or gets it.
    pub fn is_at(&self, slot: u16, part: usize) -> bool {
        self.owner_of(slot) == part || self.moving_of(slot).is_some_and(|it| it.to == part)
    }

    pub fn moving(&self) -> Option<Move> {
        self.moving
    }

    /// The move of that slot, if it moves.
    pub fn moving_of(&self, slot: u16) -> Option<Move> {
        self.moving.filter(|it| it.slot == slot)
    }

    /// A slot begins to move to a part; false if it is there, or if another one moves.
    pub fn begin_move(&mut self, slot: u16, to: usize) -> bool {
        let from = self.owner_of(slot);
        let may_move = from != to && self.moving.is_none();
        if may_move {
            self.moving = Some(Move { slot, from, to });
        }
        may_move
    }

    /// The slot that moves has arrived; false if there is none.
    pub fn end_move(&mut self) -> bool {
        let Some(moving) = self.moving.take() else {
            return false;
        };
        self.owners[usize::from(moving.slot)] = moving.to;
        self.find_ranges();
        true
    }
}
