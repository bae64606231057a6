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

pub fn run(
    population: &Population,
    mut sources: Vec<Source>,
    rate: u32,
    length: Duration,
) -> anyhow::Result<Tally> {
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
            let turn = number % population.peers;
            let source = &mut sources[(turn % population.sources) as usize];
            let peer = population.peer(turn);
            source.announce(
                population,
                &peer,
                number as u32,
                EVENT_NONE,
                number / population.peers,
            );
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
