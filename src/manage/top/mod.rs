//! `mika-manage top`: the running daemon, live, in a terminal.

mod draw;
mod history;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};

use self::terminal::Screen;
use self::view::TopView;
use super::daemon::{Daemon, DaemonAddress};
use super::{ExitStatus, UsageError};
use crate::config::Config;
use crate::view::TrackerStats;

const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct Top {
    /// The refresh interval
    #[arg(long, default_value = "2s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    address: DaemonAddress,
}

/// A response of the daemon, and when it came: the time since polling began.
struct Sample {
    at: Duration,
    stats: Result<TrackerStats>,
}

pub async fn run(arguments: &Top, config: &Config) -> Result<ExitStatus> {
    ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        UsageError("top draws on a terminal; without one use: mika-manage stats".into())
    );
    let mut daemon = Daemon::find(&arguments.address, config)?;
    // Before the terminal is switched to raw mode, so that an error stays readable.
    let (stats, _) = daemon.stats().await?;
    let view = TopView::new(daemon.address(), stats);
    let samples = poll(daemon, arguments.interval);
    let mut screen = Screen::take()?;
    let ended = watch(&mut screen, view, samples).await;
    screen.give_back()?;
    ended.map(|()| ExitStatus::Success)
}

/// Draws samples until the user quits.
async fn watch(
    screen: &mut Screen,
    mut view: TopView,
    mut samples: mpsc::Receiver<Sample>,
) -> Result<()> {
    let mut events = terminal::events();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    while !view.has_quit() {
        screen.draw(|frame| draw::frame(frame, &mut view))?;
        tokio::select! {
            Some(sample) = samples.recv() => view.update(sample.at, sample.stats),
            event = events.recv() => match event {
                Some(event) => view.handle(&event?),
                None => break,
            },
            _ = terminate.recv() => break,
            _ = hang_up.recv() => break,
        }
    }
    Ok(())
}

/// Polls the daemon in a task of its own: keys don't wait for responses.
fn poll(mut daemon: Daemon, interval: Duration) -> mpsc::Receiver<Sample> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = ticks.tick().await;
        loop {
            ticks.tick().await;
            let stats = daemon.stats().await.map(|(stats, _)| stats);
            let at = start.elapsed();
            if sender.send(Sample { at, stats }).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("expected {INTERVAL_MIN:?} to {INTERVAL_MAX:?}"))
    }
}
