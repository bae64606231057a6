//! The terminal: switched to raw mode for `top`, and restored on every way out.

use std::io;
use std::thread;

use ratatui::crossterm::event::{self, Event};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;

/// The capacity of the queue of keys.
const EVENTS_MAX: usize = 64;

/// The terminal in raw mode. A panic restores it before its message is printed.
pub struct Screen {
    terminal: DefaultTerminal,
    taken: bool,
}

/// Keys and resizes. A thread reads them, and ends with the program.
pub fn events() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    thread::spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

impl Screen {
    pub fn take() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| {
            // It may be half initialized.
            let _ = ratatui::try_restore();
        })?;
        Ok(Self {
            terminal,
            taken: true,
        })
    }

    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    pub fn give_back(mut self) -> io::Result<()> {
        self.taken = false;
        ratatui::try_restore()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.taken {
            // The error that ended the drawing is reported instead.
            let _ = ratatui::try_restore();
        }
    }
}
