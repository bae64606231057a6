//! The texts of the last batches. Spill file and cache get the same batches, one of them sooner, and neither has to encode
//! them again.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::change::Batch;
use crate::change::codec::Lines;

/// Bytes of the texts that are kept at most.
const BYTES_MAX: usize = 4 << 20;

/// Texts by the numbers of their batches, in order. Whoever asks a batch for its text gets the one that is kept here.
#[derive(Default)]
pub(super) struct RecentTexts(Mutex<VecDeque<(u64, Arc<Lines>)>>);

// === impl RecentTexts ===

impl RecentTexts {
    /// Keeps the text of a new batch; older ones go if there are too many.
    pub fn keep(&self, batch: &Batch) {
        let mut texts = self.0.lock();
        texts.push_back((batch.number, batch.lines()));
        let mut bytes: usize = texts.iter().map(|(_, lines)| lines.text.len()).sum();
        while bytes > BYTES_MAX
            && let Some((_, first)) = texts.pop_front()
        {
            bytes -= first.text.len();
        }
    }

    /// Drops those that are not needed any more.
    pub fn forget(&self, up_to: u64) {
        self.0.lock().retain(|(number, _)| *number > up_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;
    use crate::change::Change;

    fn batch(number: u64, changes: usize) -> Batch {
        let snatches = Change::Snatches {
            info_hash: InfoHash([7; 20]),
            count: 1,
        };
        Batch::new("n".into(), number, vec![snatches; changes])
    }

    #[test]
    fn a_text_is_the_same_until_it_is_forgotten() {
        let texts = RecentTexts::default();
        let batches = [batch(3, 1), batch(4, 1)];
        for batch in &batches {
            texts.keep(batch);
        }
        let kept: Vec<_> = batches
            .iter()
            .map(|batch| Arc::downgrade(&batch.lines()))
            .collect();
        texts.forget(3);
        let is_kept: Vec<_> = kept.iter().map(|text| text.upgrade().is_some()).collect();
        assert_eq!(is_kept, [false, true]);
        assert_eq!(batches[0].lines().text, batches[1].lines().text);
    }

    #[test]
    fn texts_of_a_backlog_do_not_pile_up() {
        let texts = RecentTexts::default();
        for number in 1..=9 {
            texts.keep(&batch(number, 10_000));
        }
        let texts = texts.0.lock();
        let bytes: usize = texts.iter().map(|(_, lines)| lines.text.len()).sum();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
        assert_eq!(texts.back().map(|(number, _)| *number), Some(9));
    }
}
