//! Packets that no honest client sends: noise, torn packets, wrong connection ids, unknown actions,
//! numbers at their limits.

use crate::population::{Population, mixed};
use crate::source::{Source, WINDOW_MAX};

/// The longest packet of a flood: what fits into an Ethernet frame.
const PACKET_MAX: u64 = 1472;

const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;

/// A transaction in whose place no announce of ours waits.
const TRANSACTION: u32 = 2 * WINDOW_MAX as u32 - 1;

/// Where an announce has its numbers: three totals, event, address, key, numwant, port.
const NUMBERS: [(usize, usize); 8] = [
    (56, 8),
    (64, 8),
    (72, 8),
    (80, 4),
    (84, 4),
    (88, 4),
    (92, 4),
    (96, 2),
];

const KINDS: u64 = 6;

pub struct Garbage {
    seed: u64,
    pub sent: u64,
}

impl Garbage {
    pub fn new(seed: u64) -> Self {
        Self { seed, sent: 0 }
    }

    /// Adds a packet to what that source sends next.
    pub fn add(&mut self, population: &Population, source: &mut Source) {
        self.sent += 1;
        let kind = self.below(KINDS);
        let packet = match kind {
            0 => self.noise(),
            1 => self.torn(population, source),
            2 => self.wrong_id(population, source),
            3 => self.unknown_action(source),
            4 => self.extreme(population, source),
            _ => self.scrape(source),
        };
        source
            .outgoing
            .add(&source.route, |out| out.extend_from_slice(&packet));
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(PACKET_MAX);
        self.bytes(length)
    }

    /// The beginning of an announce, maybe none of it.
    fn torn(&mut self, population: &Population, source: &Source) -> Vec<u8> {
        let mut packet = self.announce(population, source);
        packet.truncate(self.below(packet.len() as u64) as usize);
        packet
    }

    fn wrong_id(&mut self, population: &Population, source: &Source) -> Vec<u8> {
        let mut packet = self.announce(population, source);
        packet[..8].copy_from_slice(&self.bytes(8));
        packet
    }

    fn unknown_action(&mut self, source: &Source) -> Vec<u8> {
        let action = 3 + self.next() as u32 % (u32::MAX - 3);
        let length = self.below(200);
        [&source.head(action, TRANSACTION)[..], &self.bytes(length)].concat()
    }

    /// A whole announce, some of whose numbers are as large or small as they can be, of any
    /// torrent, with options that make no sense.
    fn extreme(&mut self, population: &Population, source: &Source) -> Vec<u8> {
        let mut packet = self.announce(population, source);
        if self.below(2) == 0 {
            packet[16..36].copy_from_slice(&self.bytes(20));
        }
        for (at, length) in NUMBERS {
            let number = &mut packet[at..at + length];
            match self.below(5) {
                0 => number.fill(0),
                1 => number.fill(0xff),
                2 => number[0] = 0x80,
                3 => number.copy_from_slice(&self.bytes(length as u64)),
                _ => {}
            }
        }
        let options = self.below(300);
        [packet, self.bytes(options)].concat()
    }

    fn scrape(&mut self, source: &Source) -> Vec<u8> {
        let length = self.below(PACKET_MAX - 16);
        [&source.head(SCRAPE, TRANSACTION)[..], &self.bytes(length)].concat()
    }

    fn announce(&mut self, population: &Population, source: &Source) -> Vec<u8> {
        let peer = population.peer(self.below(population.peers));
        let mut packet = source.head(ANNOUNCE, TRANSACTION).to_vec();
        let event = self.below(5) as u32;
        population.write_announce(&mut packet, &peer, event, 0);
        packet
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .take(length as usize)
            .collect()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn next(&mut self) -> u64 {
        self.seed = mixed(self.seed);
        self.seed
    }
}
