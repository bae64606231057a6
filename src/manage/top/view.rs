//! The state of `top`, and its keys.

use std::time::Duration;

use anyhow::Result;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;
use strum::VariantArray as _;

use super::history::RateHistory;
use crate::view::TrackerStats;

/// The lists in the lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::Display)]
pub enum Tab {
    #[strum(to_string = "Busiest torrents")]
    Torrents,
    Clients,
    Refusals,
}

/// The state of the screen.
pub struct TopView {
    /// Of the daemon.
    pub address: String,
    pub stats: TrackerStats,
    pub history: RateHistory,
    pub list: Tab,
    pub position: TableState,
    pub paused: bool,
    pub help: bool,
    /// Why the last request failed.
    pub trouble: Option<String>,
    quit: bool,
}

// === impl Tab ===

impl Tab {
    /// The list `steps` further, wrapping around.
    fn turn(self, steps: usize) -> Self {
        Self::VARIANTS[(self as usize + steps) % Self::VARIANTS.len()]
    }
}

// === impl TopView ===

impl TopView {
    pub fn new(address: String, stats: TrackerStats) -> Self {
        let mut history = RateHistory::default();
        history.push(Duration::ZERO, &stats);
        Self {
            address,
            stats,
            history,
            list: Tab::Torrents,
            position: TableState::default(),
            paused: false,
            help: false,
            trouble: None,
            quit: false,
        }
    }

    pub fn has_quit(&self) -> bool {
        self.quit
    }

    /// Shows new figures, unless paused.
    pub fn update(&mut self, at: Duration, answer: Result<TrackerStats>) {
        if self.paused {
            return;
        }
        match answer {
            Ok(stats) => {
                self.history.push(at, &stats);
                self.stats = stats;
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }

    /// Handles a key.
    pub fn handle(&mut self, event: &Event) {
        let Event::Key(key) = event else {
            return;
        };
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => self.quit = true,
            _ if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => self.quit = true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.show(self.list.turn(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.list.turn(Tab::VARIANTS.len() - 1)),
            KeyCode::Char('1') => self.show(Tab::Torrents),
            KeyCode::Char('2') => self.show(Tab::Clients),
            KeyCode::Char('3') => self.show(Tab::Refusals),
            KeyCode::Down | KeyCode::Char('j') => self.position.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.position.select_previous(),
            KeyCode::PageDown => self.position.scroll_down_by(10),
            KeyCode::PageUp => self.position.scroll_up_by(10),
            KeyCode::Home => self.position.select_first(),
            KeyCode::End => self.position.select_last(),
            _ => {}
        }
    }

    fn show(&mut self, list: Tab) {
        self.list = list;
        self.position = TableState::default();
    }
}
