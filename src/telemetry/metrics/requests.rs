//! Requests by protocol and kind, and refusals by reason: closed lists that no client can extend.

use strum::{IntoStaticStr, VariantArray};

use super::Counter;

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Protocol {
    Http,
    Https,
    Udp,
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    Announce,
    Scrape,
}

/// A value for every protocol.
#[derive(Default)]
pub struct ByProtocol<T>([T; Protocol::VARIANTS.len()]);

/// The most reasons for refusals; `tracker::Reason` lists them.
pub const REASONS_MAX: usize = 32;

/// Refusals by the number of their reason.
#[derive(Default)]
pub struct Refusals([Counter; REASONS_MAX]);

// === impl Protocol ===

impl Protocol {
    /// The value of a label.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

// === impl ByProtocol ===

impl<T> ByProtocol<T> {
    pub fn of(&self, protocol: Protocol) -> &T {
        &self.0[protocol as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Protocol, &T)> {
        Protocol::VARIANTS.iter().copied().zip(&self.0)
    }
}

impl ByProtocol<Counter> {
    /// The sum over all protocols.
    pub fn get(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

// === impl Refusals ===

impl Refusals {
    pub fn of(&self, reason: impl Into<usize>) -> &Counter {
        &self.0[reason.into()]
    }

    /// All refusals.
    pub fn get(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn protocols_are_in_the_order_of_their_numbers() {
        for (number, protocol) in Protocol::VARIANTS.iter().copied().enumerate() {
            assert_eq!(protocol as usize, number, "{}", protocol.name());
        }
    }

    #[test]
    fn a_refusal_counts_for_its_protocol_and_its_reason() {
        let metrics = Metrics::default();
        metrics.refused(RequestKind::Announce, Protocol::Udp, 5_usize);
        metrics.refused(RequestKind::Scrape, Protocol::Udp, 17_usize);
        metrics.refused(RequestKind::Announce, Protocol::Https, 5_usize);
        assert_eq!(metrics.announces_refused.get(), 2);
        assert_eq!(metrics.announces_refused.of(Protocol::Https).get(), 1);
        assert_eq!(metrics.scrapes_refused.of(Protocol::Udp).get(), 1);
        assert_eq!(metrics.refusals.of(5_usize).get(), 2);
        assert_eq!(metrics.refusals.get(), 3);
    }
}
