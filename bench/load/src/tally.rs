//! Counting: what succeeded, how long it took, and what exactly failed.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Failures that are kept with their story; all are counted.
const STORIES: usize = 20;
/// Sub-buckets of each power of two of microseconds: latencies are right within 1/16.
const FINENESS: u64 = 16;
/// Powers of two of microseconds that are told apart: up to over an hour.
const POWERS: u64 = 32;

/// What became of the requests of one lane.
#[derive(Debug)]
pub(crate) struct Tally {
    begin: Instant,
    answered: AtomicU64,
    failed_safe: AtomicU64,
    failed_unsafe: AtomicU64,
    reconnects: AtomicU64,
    again: AtomicU64,
    latency: Vec<AtomicU64>,
    slowest: AtomicU64,
    stories: Mutex<Vec<Failure>>,
    posted: Mutex<Vec<u64>>,
}

/// A request that did not get its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Seconds since the load began
    pub at: f64,
    /// Its id
    pub id: u64,
    /// Its method
    pub method: &'static str,
    /// What happened instead
    pub what: String,
}

/// What became of the requests of one lane, as numbers.
#[derive(Clone, Debug, Serialize)]
pub struct LaneReport {
    /// The lane
    pub name: String,
    /// Requests that got their answer
    pub answered: u64,
    /// GETs that did not
    pub failed_gets: u64,
    /// POSTs that did not
    pub failed_posts: u64,
    /// Connections opened because the one before had been closed between two requests, as HTTP allows
    pub reconnects: u64,
    /// Requests of HTTP/2 sent again, because the other end had said that it did not look at them
    pub sent_again: u64,
    /// Milliseconds that half, 99 %, 99.9 % and all of the answers took at most
    pub p50_ms: f64,
    /// See `p50_ms`
    pub p99_ms: f64,
    /// See `p50_ms`
    pub p999_ms: f64,
    /// See `p50_ms`
    pub max_ms: f64,
    /// The first failures
    pub failures: Vec<Failure>,
    /// Ids of the POSTs that were answered
    #[serde(skip)]
    pub posted: Vec<u64>,
}

/// What became of all of them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How long requests were sent
    pub seconds: f64,
    /// Each lane
    pub lanes: Vec<LaneReport>,
}

impl Tally {
    pub(crate) fn new(begin: Instant) -> Self {
        Self {
            begin,
            answered: AtomicU64::new(0),
            failed_safe: AtomicU64::new(0),
            failed_unsafe: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            again: AtomicU64::new(0),
            latency: (0..POWERS * FINENESS).map(|_| AtomicU64::new(0)).collect(),
            slowest: AtomicU64::new(0),
            stories: Mutex::default(),
            posted: Mutex::default(),
        }
    }

    pub(crate) fn answered(&self, id: u64, is_post: bool, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.latency[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.slowest.fetch_max(micros, Ordering::Relaxed);
        if is_post {
            self.posted.lock().expect("nobody panics while holding it").push(id);
        }
    }

    pub(crate) fn failed(&self, id: u64, is_post: bool, what: String) {
        let counter = if is_post { &self.failed_unsafe } else { &self.failed_safe };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut stories = self.stories.lock().expect("nobody panics while holding it");
        if stories.len() < STORIES {
            let at = self.begin.elapsed().as_secs_f64();
            stories.push(Failure { at, id, method: if is_post { "POST" } else { "GET" }, what });
        }
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent_again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn report(&self, name: &str) -> LaneReport {
        let counts: Vec<u64> = self.latency.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let quantile = |share: f64| {
            let all: u64 = counts.iter().sum();
            let wanted = (all as f64 * share).ceil() as u64;
            let mut seen = 0;
            let index = counts.iter().position(|count| {
                seen += count;
                seen >= wanted.max(1)
            });
            index.map_or(0.0, |index| upper_edge(index) as f64 / 1000.0)
        };
        LaneReport {
            name: name.to_owned(),
            answered: self.answered.load(Ordering::Relaxed),
            failed_gets: self.failed_safe.load(Ordering::Relaxed),
            failed_posts: self.failed_unsafe.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            sent_again: self.again.load(Ordering::Relaxed),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: self.slowest.load(Ordering::Relaxed) as f64 / 1000.0,
            failures: self.stories.lock().expect("nobody panics while holding it").clone(),
            posted: self.posted.lock().expect("nobody panics while holding it").clone(),
        }
    }
}

/// Logarithmic, with linear steps between two powers of two.
fn bucket(micros: u64) -> usize {
    let value = micros.max(FINENESS);
    let power = u64::from(value.ilog2() - FINENESS.ilog2());
    let index = power * FINENESS + (value >> power) - FINENESS;
    usize::try_from(index.min(POWERS * FINENESS - 1)).expect("a small number")
}

/// The largest value of a bucket, in microseconds.
fn upper_edge(index: usize) -> u64 {
    let (power, step) = (index as u64 / FINENESS, index as u64 % FINENESS);
    (FINENESS + step + 1) << power
}

impl Report {
    /// Requests that got their answer.
    pub fn answered(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.answered).sum()
    }

    /// Requests that did not.
    pub fn failed(&self) -> u64 {
        self.failed_gets() + self.lanes.iter().map(|lane| lane.failed_posts).sum::<u64>()
    }

    /// GETs that did not get their answer.
    pub fn failed_gets(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.failed_gets).sum()
    }

    /// Ids of the POSTs that were answered.
    pub fn posted(&self) -> impl Iterator<Item = u64> + '_ {
        self.lanes.iter().flat_map(|lane| lane.posted.iter().copied())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "lane", "answered", "failed", "of POST", "reopened", "again", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        for lane in &self.lanes {
            writeln!(
                f,
                "{:<24} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                lane.name,
                lane.answered,
                lane.failed_gets + lane.failed_posts,
                lane.failed_posts,
                lane.reconnects,
                lane.sent_again,
                lane.p50_ms,
                lane.p99_ms,
                lane.p999_ms,
                lane.max_ms
            )?;
        }
        for lane in &self.lanes {
            for Failure { at, id, method, what } in &lane.failures {
                writeln!(f, "  {:<24} {at:>8.3} s  {method} {id}: {what}", lane.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_below_its_edge() {
        for micros in (0..100_000).step_by(7).chain([u64::from(u32::MAX), 1 << 35]) {
            let index = bucket(micros);
            let edge = upper_edge(index);
            assert!(micros < edge, "{micros} {edge}");
            assert!(micros < 16 || edge <= micros + micros / 8 + 2, "{micros} {edge}");
        }
    }

    #[test]
    fn quantiles_and_failures_are_reported() {
        let tally = Tally::new(Instant::now());
        for millis in 1..=100 {
            tally.answered(millis, millis % 2 == 0, Duration::from_millis(millis));
        }
        for id in 0..30 {
            tally.failed(id, true, "reset".to_owned());
        }
        let lane = tally.report("a");
        assert!((lane.p50_ms / 50.0 - 1.0).abs() < 0.1, "{lane:?}");
        assert!((lane.p99_ms / 99.0 - 1.0).abs() < 0.1, "{lane:?}");
        assert_eq!((lane.answered, lane.failed_gets, lane.failed_posts, lane.posted.len()), (100, 0, 30, 50));
        assert_eq!(lane.failures.len(), STORIES);
        let report = Report { seconds: 1.0, lanes: vec![lane] };
        assert_eq!((report.answered(), report.failed(), report.failed_gets()), (100, 30, 0));
    }
}
