//! Prometheus's text format, version 0.0.4.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::telemetry::metrics::{BOUNDS, Histogram};

/// Builds the page. A metric without a value still has its description, so that the names are always
/// the same.
pub(super) struct MetricsPage<'a>(pub DescriptorEncoder<'a>);

/// A value and its labels, if any.
type Value<L, V> = (Option<L>, V);

impl MetricsPage<'_> {
    /// A monotonic counter.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write_counters(name, help, [unlabelled(value)])
    }

    /// One counter for each set of labels.
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.write_counters(name, help, values.into_iter().map(labelled))
    }

    /// A monotonic sum of seconds.
    pub fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let values = [unlabelled(value)];
        self.each(name, help, MetricType::Counter, values, |metric, value| {
            metric.encode_gauge(&value)
        })
    }

    /// The current value; none if it is unknown.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<u64>>) -> fmt::Result {
        self.write_gauges(name, help, value.into().map(unlabelled))
    }

    /// One gauge for each set of labels.
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.write_gauges(name, help, values.into_iter().map(labelled))
    }

    /// Durations in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, value: &Histogram) -> fmt::Result {
        self.write_histograms(name, help, [unlabelled(value)])
    }

    /// One histogram for each set of labels.
    pub fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        self.write_histograms(name, help, values.into_iter().map(labelled))
    }

    fn write_counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Value<L, u64>>,
    ) -> fmt::Result {
        // Written as a gauge: for counters the crate follows OpenMetrics, which adds `_total` to the name of the
        // value but not to that of the description.
        self.each(name, help, MetricType::Counter, values, |metric, value| {
            metric.encode_gauge(&whole(value))
        })
    }

    fn write_gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Value<L, u64>>,
    ) -> fmt::Result {
        self.each(name, help, MetricType::Gauge, values, |metric, value| {
            metric.encode_gauge(&whole(value))
        })
    }

    fn write_histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Value<L, &'h Histogram>>,
    ) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|&bound| bound as f64 / 1e9);
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        self.each(name, help, MetricType::Histogram, values, |metric, it| {
            let all = it.snapshot();
            let buckets = bounds.iter().copied().zip(all.buckets);
            let buckets: Vec<(f64, u64)> = buckets.collect();
            let sum = all.sum as f64 / 1e9;
            metric.encode_histogram::<NoLabelSet>(sum, all.count(), &buckets, None)
        })
    }

    fn each<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = Value<L, V>>,
        write: impl Fn(&mut MetricEncoder, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            match labels {
                Some(labels) => write(&mut family.encode_family(&labels)?, value)?,
                None => write(&mut family, value)?,
            }
        }
        Ok(())
    }
}

/// A value without labels.
fn unlabelled<V>(value: V) -> Value<NoLabelSet, V> {
    (None, value)
}

fn labelled<L, V>((labels, value): (L, V)) -> Value<L, V> {
    (Some(labels), value)
}

/// The integer type of the crate.
fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
