//! The history of a client, which a failure prints.

use std::time::Duration;

use crate::stage::Way;

/// How long before its first and after its last announce faults concern a client.
const MARGIN: Duration = Duration::from_secs(5);

/// One try to announce.
pub struct Announce {
    /// Since the begin of the trial.
    pub at: Duration,
    pub event: &'static str,
    /// Bytes up and down.
    pub totals: [u64; 2],
    pub left: u64,
    /// The ways that it took, and whether there was an answer.
    pub answers: Vec<(usize, bool)>,
}

/// The announces of a client, and the faults meanwhile. Announces in a row are one line if they differ
/// in their totals alone and were answered, or in nothing and were not.
pub fn print(announces: &[Announce], ways: &[Way], events: &[(Duration, String)]) -> String {
    let (Some(first), Some(last)) = (announces.first(), announces.last()) else {
        return "it never announced".into();
    };
    let chunks = announces.chunk_by(Announce::is_like);
    let lines = chunks.filter_map(|chunk| Some((chunk.first()?.at, line_of(chunk, ways)?)));
    let mut lines: Vec<(Duration, String)> = lines.collect();
    let meanwhile = events
        .iter()
        .filter(|(at, _)| *at + MARGIN > first.at && *at < last.at + MARGIN);
    lines.extend(meanwhile.map(|(at, what)| (*at, format!("--- {what}"))));
    lines.sort_by_key(|(at, _)| *at);
    let lines = lines
        .iter()
        .map(|(at, line)| format!("{:9.3} {line}\n", at.as_secs_f64()));
    lines.collect()
}

/// One line for announces in a row.
fn line_of(chunk: &[Announce], names: &[Way]) -> Option<String> {
    let last = chunk.last()?;
    let [up, down] = last.totals;
    let ways = last.answers.iter().map(|&(way, is_answered)| {
        let answer = if is_answered { "" } else { " (no answer)" };
        format!("{}{answer}", names[way].name)
    });
    let ways: Vec<String> = ways.collect();
    let event = match last.event {
        "" => "-",
        event => event,
    };
    Some(format!(
        "{event:9} up {up} down {down} left {} at {}{}",
        last.left,
        ways.join(", "),
        match chunk.len() {
            1 => String::new(),
            count => format!("; {count} until {:.3}", last.at.as_secs_f64()),
        }
    ))
}

// === impl Announce ===

impl Announce {
    fn is_like(&self, next: &Self) -> bool {
        let is_answered = self.answers.iter().all(|(_, it)| *it);
        let is_plain = self.event.is_empty() && is_answered;
        self.event == next.event
            && self.answers == next.answers
            && (is_plain || self.totals == next.totals)
    }
}
