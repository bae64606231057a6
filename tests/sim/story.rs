//! The events of a run, in order.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines of a story that is shown: a page.
const PAGE: usize = 70;

/// Characters of a line that is shown.
const WIDTH: usize = 160;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A fault, a start, a stop: concerns all.
    All,
    User(u32),
    /// Traffic between nodes and stores: part of the hash, and not shown.
    Traffic,
}

struct Line {
    /// Milliseconds since the begin.
    at: u128,
    about: About,
    text: String,
}

/// The lines so far.
#[derive(Clone)]
pub struct Story {
    began: Instant,
    lines: Arc<Mutex<Lines>>,
    /// Lines about traffic are shown, too.
    has_traffic: bool,
}

#[derive(Default)]
struct Lines {
    kept: Vec<Line>,
    hash: u64,
}

// === impl Story ===

impl Story {
    /// An empty one that begins now.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            lines: Arc::default(),
            has_traffic: std::env::var_os("MIKA_SIM_TRAFFIC").is_some(),
        }
    }

    pub fn record(&self, about: About, text: impl Into<String>) {
        let at = self.began.elapsed().as_millis();
        let text = text.into();
        let mut lines = self.lines.lock();
        lines.add(&at.to_le_bytes());
        lines.add(text.as_bytes());
        if about != About::Traffic || self.has_traffic {
            lines.kept.push(Line { at, about, text });
        }
    }

    /// Records traffic by its words.
    pub fn record_traffic<'a>(&self, from: u32, to: usize, words: impl Iterator<Item = &'a [u8]>) {
        let mut lines = self.lines.lock();
        let at = self.began.elapsed().as_millis();
        lines.add(&at.to_le_bytes());
        lines.add(&from.to_le_bytes());
        lines.add(&to.to_le_bytes());
        let mut text = String::new();
        for word in words {
            lines.add(word);
            if self.has_traffic {
                let _ = write!(text, " {}", String::from_utf8_lossy(word));
            }
        }
        if self.has_traffic {
            let (about, text) = (About::Traffic, format!("p{from} {to}{text}"));
            lines.kept.push(Line { at, about, text });
        }
    }

    /// A number that differs if anything happened otherwise.
    pub fn hash(&self) -> u64 {
        self.lines.lock().hash
    }

    /// The lines about some users, and those about all, as a page: the first and the last ones.
    pub fn page(&self, users: &[u32]) -> String {
        let lines = self.lines.lock();
        let is_shown = |line: &&Line| match line.about {
            About::User(user) => users.contains(&user),
            About::All | About::Traffic => true,
        };
        let shown: Vec<&Line> = lines.kept.iter().filter(is_shown).collect();
        let (first, last) = if shown.len() <= PAGE || std::env::var_os("MIKA_SIM_ALL").is_some() {
            (&shown[..], &[][..])
        } else {
            (&shown[..PAGE / 2], &shown[shown.len() - PAGE / 2..])
        };
        let mut page = String::new();
        for (part, lines) in [first, last].into_iter().enumerate() {
            if part == 1 && !lines.is_empty() {
                let left_out = shown.len() - PAGE / 2 * 2;
                let _ = writeln!(
                    page,
                    "      …     {left_out} lines (MIKA_SIM_ALL=1 shows them)"
                );
            }
            for line in lines {
                let (seconds, millis) = (line.at / 1000, line.at % 1000);
                let text: String = line.text.chars().take(WIDTH).collect();
                let _ = writeln!(page, "{seconds:6}.{millis:03} {text}");
            }
        }
        page
    }
}

// === impl Lines ===

impl Lines {
    /// Adds bytes to the hash.
    fn add(&mut self, bytes: &[u8]) {
        let mut hash = self.hash;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3);
            hash ^= hash >> 32;
        }
        self.hash = hash;
    }
}
