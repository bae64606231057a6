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
use self::view::View;
use super::daemon::{Daemon, Place};
use super::{ExitStatus, UsageError};
use crate::config::Config;
use crate::view::TrackerStats;

const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct Top {
    /// How often the figures are asked for
    #[arg(long, default_value = "2s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    place: Place,
}

/// An answer of the daemon, and when it came: the time since the first question.
struct Answer {
    at: Duration,
    stats: Result<TrackerStats>,
}

pub async fn run(arguments: &Top, config: &Config) -> Result<ExitStatus> {
    ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        UsageError("top draws on a terminal; without one use: mika-manage stats".into())
    );
    let mut daemon = Daemon::find(&arguments.place, config)?;
    // Asked once before the screen is taken, so that what is wrong can be read afterwards.
    let (stats, _) = daemon.stats().await?;
    let view = View::new(daemon.address(), stats);
    let answers = ask(daemon, arguments.interval);
    let mut screen = Screen::take()?;
    let ended = watch(&mut screen, view, answers).await;
    screen.give_back()?;
    ended.map(|()| ExitStatus::Success)
}

/// Draws what comes until somebody quits.
async fn watch(
    screen: &mut Screen,
    mut view: View,
    mut answers: mpsc::Receiver<Answer>,
) -> Result<()> {
    let mut events = terminal::events();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    while !view.is_over() {
        screen.draw(|frame| draw::frame(frame, &mut view))?;
        tokio::select! {
            Some(answer) = answers.recv() => view.take(answer.at, answer.stats),
            event = events.recv() => match event {
                Some(event) => view.obey(&event?),
                None => break,
            },
            _ = terminate.recv() => break,
            _ = hang_up.recv() => break,
        }
    }
    Ok(())
}

/// Asks for the figures again and again, by a task of its own: keys don't wait for the daemon.
fn ask(mut daemon: Daemon, interval: Duration) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = ticks.tick().await;
        loop {
            ticks.tick().await;
            let stats = daemon.stats().await.map(|(stats, _)| stats);
            let at = start.elapsed();
            if sender.send(Answer { at, stats }).await.is_err() {
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
