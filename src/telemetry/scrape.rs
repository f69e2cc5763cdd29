//! One answer to Prometheus: what is counted here, and what other rooms keep as plain numbers.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, GaugeVec, Opts, TextEncoder};

/// The families of one scrape.
#[derive(Debug)]
pub struct Scrape(Vec<MetricFamily>);

impl Scrape {
    pub(super) fn new(families: Vec<MetricFamily>) -> Self {
        Self(families)
    }

    /// Adds a gauge: label names, then the values of each series.
    pub fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<&'a str>, f64)>,
    ) {
        let gauges = GaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
        for (values, value) in series {
            gauges.with_label_values(&values).set(value);
        }
        self.0.extend(gauges.collect());
    }

    /// Adds a counter that another room keeps.
    pub fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<&'a str>, u64)>,
    ) {
        let counters = prometheus::IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
        for (values, value) in series {
            counters.with_label_values(&values).inc_by(value);
        }
        self.0.extend(counters.collect());
    }

    /// Adds a counter of time, in seconds.
    pub fn seconds<'a>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<&'a str>, Duration)>,
    ) {
        let counters = prometheus::CounterVec::new(Opts::new(name, help), labels).expect("a valid name");
        for (values, value) in series {
            counters.with_label_values(&values).inc_by(value.as_secs_f64());
        }
        self.0.extend(counters.collect());
    }

    /// Adds a histogram with one label: for each of its values how many there were up to each bound, one number more for
    /// those beyond, and the sum of all.
    pub(super) fn durations<'a>(
        &mut self,
        name: &str,
        help: &str,
        (label, bounds): (&str, &[f64]),
        series: impl IntoIterator<Item = (&'a str, Vec<u64>, f64)>,
    ) {
        let series = series.into_iter().map(|(value, counts, sum)| {
            let mut pair = LabelPair::default();
            pair.set_name(label.to_owned());
            pair.set_value(value.to_owned());
            let mut below = 0;
            let buckets = bounds.iter().zip(&counts).map(|(bound, count)| {
                below += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(below);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(counts.iter().sum());
            histogram.set_sample_sum(sum);
            let mut metric = Metric::from_label(vec![pair]);
            metric.set_histogram(histogram);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(series.collect());
        self.0.push(family);
    }

    pub(super) fn text(mut self) -> String {
        self.0.retain(|family| !family.get_metric().is_empty());
        self.0.sort_by(|left, right| left.name().cmp(right.name()));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0, &mut text) {
            log::error!("metrics cannot be rendered: {error}");
        }
        String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_other_rooms_stand_among_ours() {
        let mut scrape = Scrape::new(Vec::new());
        scrape.gauge("b_gauge", "A gauge.", &["name"], [(vec!["x"], 1.5)]);
        scrape.counter("a_total", "A counter.", &[], [(vec![], 7)]);
        scrape.gauge("c_empty", "Nothing.", &["name"], []);
        let text = scrape.text();
        assert!(text.starts_with("# HELP a_total A counter.\n# TYPE a_total counter\na_total 7\n"), "{text}");
        assert!(text.contains("b_gauge{name=\"x\"} 1.5"), "{text}");
        assert!(!text.contains("c_empty"), "{text}");
    }
}
