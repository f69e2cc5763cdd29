//! `concurrent = "adaptive"`: a limit that is found by how long the upstream takes. What every request touches are
//! atomics; once a window somebody closes it, and nobody waits for him.

mod gradient;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::gradient::{Gradient, Window};

/// A window is closed by the first answer after it, once there are enough answers, or after longer with those there are.
const WINDOW: Duration = Duration::from_millis(100);
const LONGEST_WINDOW: Duration = Duration::from_secs(1);
const ENOUGH: u32 = 10;
/// Fewer are enough of a probe, which keeps others out.
const PROBED: u32 = 6;
/// What has changed is seen once those that are in flight are answered: a window is twice as long, but not longer.
const SLOWEST_WINDOW: Duration = Duration::from_secs(5);
/// Latencies kept of one window: the last ones.
const KEPT: usize = 64;
/// No request counts yet.
const NEVER: u64 = u64::MAX;

/// How a request went, as far as it tells something about the upstream's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// From the whole request to the head of its answer
    Took(Duration),
    /// The upstream did not answer in time, or said that it has too much to do
    Overloaded,
    /// Nothing: an answer that failed fast, or one whose time was somebody else's
    Nothing,
}

/// What has been found, and what for.
#[derive(Debug)]
pub(super) struct Adaptive {
    epoch: Instant,
    limit: AtomicU32,
    is_probing: AtomicBool,
    /// Requests that began before do not count; in nanoseconds since the epoch, as all times here
    since: AtomicU64,
    /// When the window may be closed
    end: AtomicU64,
    answers: AtomicU32,
    overloads: AtomicU32,
    most: AtomicU32,
    /// In microseconds
    latencies: [AtomicU32; KEPT],
    /// Of the last window, in microseconds, for metrics
    sampled: AtomicU32,
    baseline: AtomicU32,
    gradient: Mutex<Gradient>,
}

/// What it has found, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Requests that may be in flight
    pub limit: u32,
    /// What an answer takes where few are in flight; zero until it was measured
    pub baseline: Duration,
    /// The median of the last window
    pub sampled: Duration,
}

impl Adaptive {
    pub(super) fn new(min: u32, max: u32, jitter: f64, now: Instant) -> Self {
        let gradient = Gradient::new(min, max, jitter);
        Self {
            epoch: now,
            limit: AtomicU32::new(gradient.limit()),
            is_probing: AtomicBool::new(false),
            since: AtomicU64::new(0),
            end: AtomicU64::new(nanos(WINDOW)),
            answers: AtomicU32::new(0),
            overloads: AtomicU32::new(0),
            most: AtomicU32::new(0),
            latencies: [const { AtomicU32::new(0) }; KEPT],
            sampled: AtomicU32::new(0),
            baseline: AtomicU32::new(0),
            gradient: Mutex::new(gradient),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether even a request that tells nothing must be told of: a probe ends by itself.
    pub(super) fn is_probing(&self) -> bool {
        self.is_probing.load(Ordering::Relaxed)
    }

    pub(super) fn found(&self) -> Found {
        let micros = |value: &AtomicU32| Duration::from_micros(value.load(Ordering::Relaxed).into());
        Found { limit: self.limit(), baseline: micros(&self.baseline), sampled: micros(&self.sampled) }
    }

    /// A request that began at `entered` is answered, or will not be; `in_flight` are there, itself included. True if
    /// the limit may be another now.
    pub(super) fn observe(&self, sample: Sample, entered: Instant, in_flight: u32, now: Instant) -> bool {
        let since_epoch = now.saturating_duration_since(self.epoch);
        let (at, entered) = (nanos(since_epoch), nanos(entered.saturating_duration_since(self.epoch)));
        if self.since.load(Ordering::Relaxed) == NEVER && in_flight <= self.limit().saturating_add(1) {
            // What is in flight beyond a probe's few is gone: from now on they are measured.
            self.since.store(at, Ordering::Relaxed);
        }
        match sample {
            Sample::Took(latency) if entered >= self.since.load(Ordering::Relaxed) => {
                let answers = self.answers.fetch_add(1, Ordering::Relaxed);
                let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
                self.latencies[answers as usize % KEPT].store(micros, Ordering::Relaxed);
                self.most.fetch_max(in_flight, Ordering::Relaxed);
            }
            Sample::Overloaded => {
                self.overloads.fetch_add(1, Ordering::Relaxed);
                self.most.fetch_max(in_flight, Ordering::Relaxed);
            }
            Sample::Took(_) | Sample::Nothing => {}
        }
        self.is_over(at) && self.close(since_epoch)
    }

    fn is_over(&self, at: u64) -> bool {
        let end = self.end.load(Ordering::Relaxed);
        if self.is_probing() {
            return self.has_probed() || at >= end;
        }
        let seen = self.answers.load(Ordering::Relaxed).saturating_add(self.overloads.load(Ordering::Relaxed));
        at >= end && (seen >= ENOUGH || (seen > 0 && at >= end.saturating_add(nanos(LONGEST_WINDOW - WINDOW))))
    }

    /// Whoever comes first closes the window; others go on, and so does what they measure, in the next one.
    fn close(&self, now: Duration) -> bool {
        let Some(mut gradient) = self.gradient.try_lock() else { return false };
        if !self.is_over(nanos(now)) || (gradient.is_probing() && !self.has_probed() && !gradient.has_overrun(now)) {
            return false;
        }
        let window = Window {
            median: self.median(),
            most: self.most.swap(0, Ordering::Relaxed),
            overloaded: self.overloads.swap(0, Ordering::Relaxed) > 0,
        };
        self.answers.store(0, Ordering::Relaxed);
        gradient.observe(window, now);
        if let Some(median) = window.median {
            self.sampled.store(micros(median), Ordering::Relaxed);
        }
        self.baseline.store(gradient.baseline().map_or(0, micros), Ordering::Relaxed);
        let is_probing = gradient.is_probing();
        if is_probing != self.is_probing.swap(is_probing, Ordering::Relaxed) {
            self.since.store(if is_probing { NEVER } else { 0 }, Ordering::Relaxed);
        }
        let latency = Duration::from_micros(self.sampled.load(Ordering::Relaxed).into());
        let length = (latency * 2).clamp(WINDOW, SLOWEST_WINDOW);
        self.end.store(nanos(now + length), Ordering::Relaxed);
        self.limit.swap(gradient.limit(), Ordering::Relaxed) != gradient.limit()
    }

    fn has_probed(&self) -> bool {
        self.answers.load(Ordering::Relaxed) >= PROBED
    }

    /// In seconds.
    fn median(&self) -> Option<f64> {
        let count = (self.answers.load(Ordering::Relaxed) as usize).min(KEPT);
        let mut latencies = [0; KEPT];
        for (latency, kept) in latencies.iter_mut().zip(&self.latencies) {
            *latency = kept.load(Ordering::Relaxed);
        }
        let latencies = latencies.get_mut(..count).filter(|latencies| !latencies.is_empty())?;
        let (_, median, _) = latencies.select_nth_unstable(count / 2);
        Some(f64::from(*median).max(1.0) / 1e6)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER - 1)
}

fn micros(seconds: f64) -> u32 {
    (seconds * 1e6) as u32
}

#[cfg(test)]
mod tests;
