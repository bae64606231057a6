//! Which batches of a journal are still to be applied.

use std::sync::Arc;

use super::{StorageError, StorageResult};
use crate::change::Batch;

/// The batches after number `applied`, of consecutive ones; [`StorageError::Behind`] if one before them is
/// missing.
pub fn not_applied(batches: &[Arc<Batch>], applied: u64) -> StorageResult<&[Arc<Batch>]> {
    let known = batches.partition_point(|batch| batch.number <= applied);
    let new = &batches[known..];
    let mut expected = applied;
    for batch in new {
        expected = expected.saturating_add(1);
        if batch.number != expected {
            return Err(StorageError::Behind {
                journal: batch.journal.clone(),
                applied: expected - 1,
                first: batch.number,
            });
        }
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(numbers: &[u64]) -> Vec<Arc<Batch>> {
        let batch = |&number: &u64| Arc::new(Batch::new("n".into(), number, Vec::new()));
        numbers.iter().map(batch).collect()
    }

    #[test]
    fn known_ones_are_passed_over_and_gaps_refused() {
        let three = batches(&[3, 4, 5]);
        assert_eq!(not_applied(&three, 2).unwrap().len(), 3);
        assert_eq!(not_applied(&three, 4).unwrap().len(), 1);
        assert!(not_applied(&three, 9).unwrap().is_empty());
        assert!(not_applied(&three, 1).is_err());
        assert!(not_applied(&batches(&[3, 5]), 2).is_err());
        assert!(not_applied(&[], 0).unwrap().is_empty());
    }
}
