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
        let values = [unlabelled(value)];
        self.each(name, help, MetricType::Counter, values, write_whole)
    }

    /// One counter for each set of labels.
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(labelled);
        self.each(name, help, MetricType::Counter, values, write_whole)
    }

    /// A monotonic sum of seconds.
    pub fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let values = [unlabelled(value)];
        self.each(name, help, MetricType::Counter, values, |metric, value| {
            metric.encode_gauge(&value)
        })
    }

    /// One sum of seconds for each set of labels.
    pub fn seconds_each<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(labelled);
        self.each(name, help, MetricType::Counter, values, |metric, value| {
            metric.encode_gauge(&value)
        })
    }

    /// The current value; none if it is unknown.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<u64>>) -> fmt::Result {
        let values = value.into().map(unlabelled);
        self.each(name, help, MetricType::Gauge, values, write_whole)
    }

    /// One gauge for each set of labels.
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(labelled);
        self.each(name, help, MetricType::Gauge, values, write_whole)
    }

    /// Durations in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, value: &Histogram) -> fmt::Result {
        let values = [unlabelled(value)];
        self.each(name, help, MetricType::Histogram, values, write_durations)
    }

    /// One histogram for each set of labels.
    pub fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(labelled);
        self.each(name, help, MetricType::Histogram, values, write_durations)
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

/// Counters, too: for these the crate follows OpenMetrics, which adds `_total` to the name of the value but
/// not to that of the description.
fn write_whole(metric: &mut MetricEncoder, value: u64) -> fmt::Result {
    metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

fn write_durations(metric: &mut MetricEncoder, value: &Histogram) -> fmt::Result {
    let all = value.snapshot();
    let bounds = BOUNDS.iter().map(|&bound| bound as f64 / 1e9);
    let buckets = bounds.chain([f64::INFINITY]).zip(all.buckets);
    let buckets: Vec<(f64, u64)> = buckets.collect();
    let sum = all.sum as f64 / 1e9;
    metric.encode_histogram::<NoLabelSet>(sum, all.count(), &buckets, None)
}
