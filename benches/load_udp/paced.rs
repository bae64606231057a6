//! A load at a fixed pace, whatever the tracker does. Delays count from when an announce was due,
//! so that a tracker that stops for a while does not stop the clock with it.

use std::time::{Duration, Instant};

use anyhow::bail;
use mika::listen::udp::{BATCH, Received};

use crate::histogram::Histogram;
use crate::population::{EVENT_NONE, Population};
use crate::source::{Said, Source};

/// How long replies are waited for after the last announce.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has come of it.
#[derive(Default)]
pub struct Tally {
    pub sent: u64,
    pub replies: u64,
    pub delays: Histogram,
    /// The most by which an announce was sent later than it was due: the load's own fault.
    pub late_max: Duration,
}

/// What is sent, and when.
pub struct Paced {
    /// Announces a second.
    pub rate: u32,
    pub length: Duration,
    /// How often each peer announced before.
    pub lap: u64,
    /// What is slept between two looks at the sockets.
    pub rest: Duration,
}

/// Which peers announce, in which order: those of some sources.
struct Turns {
    sources: Vec<u64>,
    /// Of all sources.
    all: u64,
    peers: u64,
}

impl Turns {
    /// The peers of the first `only` of `servers`, to which the sources belong in turn.
    fn new(population: &Population, servers: u64, only: u64) -> Self {
        let all = population.sources;
        let sources: Vec<u64> = (0..all).filter(|it| it % servers < only).collect();
        // Each source has at least so many peers.
        let peers = (population.peers / all).max(1) * sources.len() as u64;
        Self {
            sources,
            all,
            peers,
        }
    }

    /// The source, the peer, and how often that announced before.
    fn of(&self, number: u64) -> (u64, u64, u64) {
        let (turn, count) = (number % self.peers, self.sources.len() as u64);
        let source = self.sources[(turn % count) as usize];
        (
            source,
            turn / count * self.all + source,
            number / self.peers,
        )
    }
}

pub fn run(
    population: &Population,
    mut sources: Vec<Source>,
    servers: u64,
    only: u64,
    pace: &Paced,
) -> anyhow::Result<Tally> {
    let (rate, length) = (pace.rate, pace.length);
    let turns = Turns::new(population, servers, only);
    let total = (f64::from(rate) * length.as_secs_f64()) as u64;
    let mut waits = vec![true; total as usize];
    let mut tally = Tally::default();
    let mut received = Received::default();
    let start = Instant::now();
    let due = |number: u64| start + Duration::from_secs_f64(number as f64 / f64::from(rate));
    while tally.replies < total && start.elapsed() < length + PATIENCE {
        let elapsed = start.elapsed();
        let until = ((elapsed.as_secs_f64() * f64::from(rate)) as u64).min(total);
        if until > tally.sent {
            tally.late_max = tally.late_max.max((start + elapsed) - due(tally.sent));
        }
        for number in tally.sent..until {
            let (source, turn, lap) = turns.of(number);
            let peer = population.peer(turn);
            let source = &mut sources[source as usize];
            let transaction = number as u32;
            source.announce(population, &peer, transaction, EVENT_NONE, pace.lap + lap);
        }
        tally.sent = until;
        for source in &mut sources {
            source.send();
            take(source, &mut received, |number, now| {
                if let Some(waits) = waits.get_mut(number as usize).filter(|it| **it) {
                    *waits = false;
                    tally.replies += 1;
                    tally.delays.add(now.saturating_duration_since(due(number)));
                }
            })?;
        }
        if !pace.rest.is_zero() {
            std::thread::sleep(pace.rest);
        }
    }
    Ok(tally)
}

/// All replies that are there.
fn take(
    source: &mut Source,
    received: &mut Received,
    mut answered: impl FnMut(u64, Instant),
) -> anyhow::Result<()> {
    loop {
        let mut failure = None;
        let mut transactions = [0; BATCH];
        let mut number = 0;
        let (packets, _) = source.receive_each(received, |reply| match reply.said {
            Said::Announced { .. } => {
                transactions[number] = reply.transaction;
                number += 1;
            }
            Said::Failed(text) => failure = Some(text),
            Said::Connected | Said::Scraped(_) => {}
        })?;
        if let Some(text) = failure {
            bail!("the tracker refuses an announce: {text}");
        }
        let now = Instant::now();
        for transaction in &transactions[..number] {
            answered(u64::from(*transaction), now);
        }
        if packets < BATCH {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_peers_of_some_servers_take_turns() {
        let population = Population::new(1000, 10, 6, 50, 1);
        let all = Turns::new(&population, 3, 3);
        let first: Vec<_> = (0..7).map(|number| all.of(number)).collect();
        assert_eq!(first[..3], [(0, 0, 0), (1, 1, 0), (2, 2, 0)]);
        assert_eq!(first[6], (0, 6, 0));
        let two = Turns::new(&population, 3, 2);
        let taken: Vec<_> = (0..5).map(|number| two.of(number)).collect();
        assert_eq!(
            taken,
            [(0, 0, 0), (1, 1, 0), (3, 3, 0), (4, 4, 0), (0, 6, 0)]
        );
        assert_eq!(two.of(two.peers), (0, 0, 1));
        assert!((0..two.peers).all(|number| two.of(number).1 < population.peers));
    }
}
