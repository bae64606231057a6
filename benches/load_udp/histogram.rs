//! Delays, counted in classes that are 3 % wide at most.

use std::time::Duration;

/// Classes of one power of two.
const FINE_BITS: u32 = 5;
const FINE: usize = 1 << FINE_BITS;
const CLASSES: usize = FINE * (64 - FINE_BITS as usize + 1);

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; CLASSES],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub fn add(&mut self, delay: Duration) {
        let nanos = delay.as_nanos() as u64;
        self.counts[class(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Milliseconds within which that part of all replies came.
    pub fn within_ms(&self, part: f64) -> f64 {
        let wanted = (self.total as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return end(class).min(self.max) as f64 / 1e6;
            }
        }
        0.0
    }

    pub fn max_ms(&self) -> f64 {
        self.max as f64 / 1e6
    }
}

/// The class of a number: its highest bit and the few after that.
fn class(number: u64) -> usize {
    let Some(shift) = (u64::BITS - FINE_BITS - 1).checked_sub(number.leading_zeros()) else {
        return number as usize;
    };
    (shift as usize + 1) * FINE + (number >> shift) as usize - FINE
}

/// The largest number of a class.
fn end(class: usize) -> u64 {
    if class < FINE {
        return class as u64;
    }
    let (shift, fine) = (class / FINE - 1, class % FINE);
    (((FINE + fine) as u64) << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_a_narrow_class() {
        for number in (0..5000).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let end = end(class(number));
            assert!(end >= number && end - number <= number / FINE as u64);
        }
    }
}
