//! A page of metrics under construction, with a limit on its series. Not what is measured.

use crate::telemetry::{
    metrics::{BOUNDS_US, Histogram},
    names::{self, Kind, Name},
};
use prometheus::{
    Encoder, TextEncoder,
    proto::{
        Bucket, Counter, Gauge, Histogram as HistogramValue, LabelPair, Metric, MetricFamily,
        MetricType,
    },
};
use std::collections::BTreeMap;

/// Rows by metric, in the order of their names.
#[derive(Debug)]
pub(super) struct Sheet {
    families: BTreeMap<&'static str, (Name, Vec<Metric>)>,
    left: usize,
    dropped: u64,
}

/// Label names and values of one row.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Sheet {
    pub(super) fn new() -> Self {
        Self { families: BTreeMap::new(), left: MAX_SERIES, dropped: 0 }
    }

    /// A row of a counter or gauge.
    pub(super) fn add(&mut self, name: Name, labels: Labels<'_>, value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if name.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(name, metric, 1);
    }

    /// A row of a counter or gauge that is counted in whole numbers.
    pub(super) fn count(&mut self, name: Name, labels: Labels<'_>, value: u64) {
        self.add(name, labels, float(value));
    }

    /// One row for each of `all`, 1 for the one that is `now`.
    pub(super) fn one_of(
        &mut self,
        name: Name,
        labels: Labels<'_>,
        key: &str,
        all: impl IntoIterator<Item = &'static str>,
        now: &str,
    ) {
        for value in all {
            let labels: Vec<_> = labels.iter().copied().chain([(key, value)]).collect();
            self.count(name, &labels, u64::from(value == now));
        }
    }

    /// The sum of `parts` as one row.
    pub(super) fn histogram<'a>(
        &mut self,
        name: Name,
        labels: Labels<'_>,
        parts: impl Iterator<Item = &'a Histogram>,
    ) {
        let mut counts = [0u64; BOUNDS_US.len() + 1];
        let mut sum_us = 0u64;
        for part in parts {
            for (count, bucket) in counts.iter_mut().zip(&part.buckets) {
                *count = count.wrapping_add(bucket.get());
            }
            sum_us = sum_us.wrapping_add(part.sum_us.get());
        }
        let mut cumulative = 0u64;
        let mut buckets = Vec::with_capacity(BOUNDS_US.len());
        for (bound, count) in BOUNDS_US.iter().zip(&counts) {
            cumulative = cumulative.wrapping_add(*count);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut value = HistogramValue::default();
        value.set_bucket(buckets);
        value.set_sample_count(counts.iter().sum());
        value.set_sample_sum(seconds(sum_us));
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(value);
        self.push(name, metric, BOUNDS_US.len() + 3);
    }

    /// The page in Prometheus's text format.
    pub(super) fn text(mut self) -> Vec<u8> {
        let dropped = self.dropped;
        self.left = 1;
        self.count(names::SERIES_DROPPED, &[], dropped);
        let families: Vec<_> = self.families.into_values().map(family).collect();
        let mut text = Vec::with_capacity(16 * 1024);
        let done = TextEncoder::new().encode(&families, &mut text);
        done.expect("every family has a name and rows, and a Vec takes all");
        text
    }

    fn push(&mut self, name: Name, metric: Metric, series: usize) {
        let Some(left) = self.left.checked_sub(series) else {
            self.dropped += 1;
            return;
        };
        self.left = left;
        self.families.entry(name.name).or_insert((name, Vec::new())).1.push(metric);
    }
}

fn family((name, rows): (Name, Vec<Metric>)) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.name.to_owned());
    family.set_help(name.help.to_owned());
    family.set_field_type(match name.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(rows);
    family
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

/// Prometheus values are doubles: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the format has no other number")]
fn float(n: u64) -> f64 {
    n as f64
}

fn seconds(us: u64) -> f64 {
    float(us) / 1e6
}

/// Some 400 backends with all of their rows; a scrape of that is about 5 MB.
const MAX_SERIES: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sheet: Sheet) -> String {
        String::from_utf8(sheet.text()).unwrap()
    }

    #[test]
    fn rows_of_one_metric_stand_together_under_one_head() {
        let mut sheet = Sheet::new();
        sheet.count(names::RETRIES, &[("cluster", "a")], 3);
        sheet.count(names::PANICS, &[], 0);
        sheet.count(names::RETRIES, &[("cluster", "b\"\n")], 4);
        let text = text(sheet);
        assert_eq!(text.matches("# TYPE sluice_retries_total counter").count(), 1);
        assert!(text.contains("sluice_retries_total{cluster=\"a\"} 3\n"), "{text}");
        assert!(text.contains("sluice_retries_total{cluster=\"b\\\"\\n\"} 4\n"), "{text}");
    }

    #[test]
    fn histograms_of_workers_add_up_and_are_cumulative() {
        let parts = [Histogram::default(), Histogram::default()];
        parts[0].observe(60, 2);
        parts[1].observe(40, 1);
        parts[1].observe(20_000_000, 1);
        let mut sheet = Sheet::new();
        sheet.histogram(names::REQUEST_DURATION, &[], parts.iter());
        let text = text(sheet);
        for line in [
            "_bucket{le=\"0.00005\"} 1",
            "_bucket{le=\"0.0001\"} 3",
            "_bucket{le=\"10\"} 3",
            "_bucket{le=\"+Inf\"} 4",
            "_sum 20.00016",
            "_count 4",
        ] {
            assert!(text.contains(&format!("sluice_request_duration_seconds{line}\n")), "{text}");
        }
    }

    #[test]
    fn the_page_has_a_limit_and_says_what_it_left_out() {
        let mut sheet = Sheet::new();
        for n in 0..MAX_SERIES + 7 {
            sheet.count(names::RETRIES, &[("cluster", &n.to_string())], 1);
        }
        let text = text(sheet);
        assert!(text.contains("\nsluice_metrics_series_dropped 7\n"));
        assert_eq!(text.matches("\nsluice_retries_total{").count(), MAX_SERIES);
    }
}
