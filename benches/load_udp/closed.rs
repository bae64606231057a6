//! A closed loop: a fixed number of announces in flight; an answer triggers the next one.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use mika::listen::udp::{BATCH, Received};

use crate::histogram::Histogram;
use crate::population::Population;
use crate::source::{Said, Source, WINDOW_MAX};

/// After so long an announce is sent again, as clients do, only sooner.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often that is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A tracker that sends no answer for that long is considered dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub struct Closed<'a> {
    population: &'a Population,
    lanes: Vec<Lane>,
    received: Received,
    event: u32,
    /// A refused announce is counted; else it ends the load.
    bears_refusals: bool,
    looked: Instant,
    answered: Instant,
    pub tally: Tally,
}

/// What has come of it.
#[derive(Default)]
pub struct Tally {
    pub replies: u64,
    pub bytes: u64,
    pub peers: u64,
    pub repeated: u64,
    /// Announces that the tracker refused.
    pub refused: u64,
    /// Late replies, and replies to packets of others.
    pub strays: u64,
    pub delays: Histogram,
}

/// A source, and its share of the announces on their way.
struct Lane {
    source: Source,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Its announces so far; the peers of a source take turns.
    begun: u64,
    /// Its peers.
    peers: u64,
    number: u64,
    /// The text of the latest refusal.
    refusal: Option<String>,
}

#[derive(Clone)]
struct Slot {
    transaction: u32,
    turn: u64,
    begun: Instant,
    sent: Instant,
    waits: bool,
}

// === impl Closed ===

impl<'a> Closed<'a> {
    pub fn new(
        population: &'a Population,
        sources: Vec<Source>,
        window: usize,
        event: u32,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let share = window.div_ceil(sources.len());
        ensure!(share <= WINDOW_MAX, "the window is too large");
        let lane = |(number, source)| Lane {
            source,
            slots: vec![
                Slot {
                    transaction: 0,
                    turn: 0,
                    begun: now,
                    sent: now,
                    waits: false
                };
                share
            ],
            free: (0..share as u16).collect(),
            begun: 0,
            peers: population.peers_of(number),
            number,
            refusal: None,
        };
        Ok(Self {
            population,
            lanes: (0..).zip(sources).map(lane).collect(),
            received: Received::default(),
            event,
            bears_refusals: false,
            looked: now,
            answered: now,
            tally: Tally::default(),
        })
    }

    /// The load, but it continues when an announce is refused.
    pub fn bearing_refusals(self) -> Self {
        let bears_refusals = true;
        Self {
            bears_refusals,
            ..self
        }
    }

    /// One visit to each source. `laps` is how often each peer may announce. Returns whether there is more to do.
    pub fn visit(&mut self, laps: u64, mut more: impl FnMut(&mut Source)) -> anyhow::Result<bool> {
        let now = Instant::now();
        let looks = now.duration_since(self.looked) > LOOK_EVERY;
        if looks {
            self.looked = now;
        }
        let (mut is_open, mut idle) = (false, true);
        for lane in &mut self.lanes {
            let before = (self.tally.replies, self.tally.refused);
            lane.receive(&mut self.received, &mut self.tally)?;
            idle &= before == (self.tally.replies, self.tally.refused);
            if let Some(text) = lane.refusal.take()
                && !self.bears_refusals
            {
                bail!("the tracker refuses an announce: {text}");
            }
            let now = Instant::now();
            if looks {
                lane.source.keep_connected(now);
                self.tally.repeated += lane.repeat(self.population, self.event, now);
            }
            lane.fill(self.population, self.event, laps, now);
            more(&mut lane.source);
            lane.source.send();
            is_open |= lane.free.len() < lane.slots.len();
        }
        if !idle {
            self.answered = now;
        } else if now.duration_since(self.answered) > SILENCE_MAX {
            bail!("the tracker answers nobody any more");
        }
        Ok(is_open)
    }

    pub fn into_sources(self) -> Vec<Source> {
        self.lanes.into_iter().map(|it| it.source).collect()
    }
}

impl Lane {
    fn receive(&mut self, received: &mut Received, tally: &mut Tally) -> anyhow::Result<()> {
        let now = Instant::now();
        loop {
            let (slots, free) = (&mut self.slots, &mut self.free);
            let refusal = &mut self.refusal;
            let (number, bytes) = self.source.receive_each(received, |reply| {
                let at = reply.transaction as usize % (2 * WINDOW_MAX);
                let slot = slots
                    .get_mut(at)
                    .filter(|it| it.waits && it.transaction == reply.transaction);
                match (slot, reply.said) {
                    (Some(slot), Said::Announced { peers }) => {
                        slot.waits = false;
                        free.push(at as u16);
                        tally.replies += 1;
                        tally.peers += peers as u64;
                        tally.delays.add(now.duration_since(slot.begun));
                    }
                    (Some(slot), Said::Failed(text)) => {
                        slot.waits = false;
                        free.push(at as u16);
                        tally.refused += 1;
                        *refusal = Some(text);
                    }
                    (_, Said::Connected) => {}
                    _ => tally.strays += 1,
                }
            })?;
            tally.bytes += bytes as u64;
            if number < BATCH {
                return Ok(());
            }
        }
    }

    /// Begins announces as long as there is room for one.
    fn fill(&mut self, population: &Population, event: u32, laps: u64, now: Instant) {
        while self.begun < laps.saturating_mul(self.peers) {
            let Some(at) = self.free.pop() else {
                return;
            };
            let slot = &mut self.slots[usize::from(at)];
            *slot = Slot {
                transaction: (slot.transaction & !0xffff).wrapping_add(1 << 16) | u32::from(at),
                turn: self.begun,
                begun: now,
                sent: now,
                waits: true,
            };
            self.begun += 1;
            self.send(population, event, usize::from(at));
        }
    }

    /// Resends announces that have waited for too long.
    fn repeat(&mut self, population: &Population, event: u32, now: Instant) -> u64 {
        let mut repeated = 0;
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if slot.waits && now.duration_since(slot.sent) > RETRY_AFTER {
                slot.sent = now;
                repeated += 1;
                self.send(population, event, at);
            }
        }
        repeated
    }

    fn send(&mut self, population: &Population, event: u32, at: usize) {
        let Slot {
            transaction, turn, ..
        } = self.slots[at];
        let peer = population.peer(turn % self.peers * population.sources + self.number);
        self.source
            .announce(population, &peer, transaction, event, turn / self.peers);
    }
}
