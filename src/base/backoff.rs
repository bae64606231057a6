//! Exponential backoff with a cap, and with jitter so that nodes don't retry in step.

use std::time::Duration;

/// Endless delays from `first` up to `max`, each between half and the whole of its step.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// Sleeps for the next delay.
    pub async fn pause(&mut self) {
        if let Some(delay) = self.next() {
            tokio::time::sleep(delay).await;
        }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        Some(step.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, max);
        assert!(backoff.next().unwrap() <= first);
        let last = backoff.by_ref().nth(20).unwrap();
        assert!(last <= max && last >= max / 2);
    }
}
