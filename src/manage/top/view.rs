//! What `top` shows, and what its keys do.

use std::time::Duration;

use anyhow::Result;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;

use super::history::History;
use crate::view::TrackerStats;

/// The lists of the lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Torrents,
    Clients,
    Refusals,
}

/// The state of the screen.
pub struct View {
    /// The daemon's.
    pub address: String,
    pub stats: TrackerStats,
    pub history: History,
    pub list: List,
    pub position: TableState,
    pub paused: bool,
    pub help: bool,
    /// Why the last question had no answer.
    pub trouble: Option<String>,
    over: bool,
}

// === impl List ===

impl List {
    pub const ALL: [Self; 3] = [Self::Torrents, Self::Clients, Self::Refusals];

    pub fn title(self) -> &'static str {
        match self {
            Self::Torrents => "Busiest torrents",
            Self::Clients => "Clients",
            Self::Refusals => "Refusals",
        }
    }

    /// The list `steps` further, around the end.
    fn turn(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}

// === impl View ===

impl View {
    pub fn new(address: String, stats: TrackerStats) -> Self {
        let mut history = History::default();
        history.push(Duration::ZERO, &stats);
        Self {
            address,
            stats,
            history,
            list: List::Torrents,
            position: TableState::default(),
            paused: false,
            help: false,
            trouble: None,
            over: false,
        }
    }

    /// Somebody has quit.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes in an answer of the daemon, unless somebody reads at leisure.
    pub fn take(&mut self, at: Duration, answer: Result<TrackerStats>) {
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

    /// Does what a key is for.
    pub fn obey(&mut self, event: &Event) {
        let Event::Key(key) = event else {
            return;
        };
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => self.over = true,
            _ if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => self.over = true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.show(self.list.turn(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.list.turn(List::ALL.len() - 1)),
            KeyCode::Char('1') => self.show(List::Torrents),
            KeyCode::Char('2') => self.show(List::Clients),
            KeyCode::Char('3') => self.show(List::Refusals),
            KeyCode::Down | KeyCode::Char('j') => self.position.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.position.select_previous(),
            KeyCode::PageDown => self.position.scroll_down_by(10),
            KeyCode::PageUp => self.position.scroll_up_by(10),
            KeyCode::Home => self.position.select_first(),
            KeyCode::End => self.position.select_last(),
            _ => {}
        }
    }

    fn show(&mut self, list: List) {
        self.list = list;
        self.position = TableState::default();
    }
}
