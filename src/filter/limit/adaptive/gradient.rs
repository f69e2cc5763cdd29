//! How many requests in flight are enough: a pure state machine, fed one window of measurements at a time.
//!
//! After Envoy's `adaptive_concurrency` and Netflix's `concurrency-limits` (Gradient2). By Little's law requests in
//! flight are rate times latency: beyond what the upstream can do at once, one more adds to the latency and nothing to
//! the rate. So the limit follows what the latency is compared with the `baseline`, which is what it is when few are in
//! flight:
//!
//! ```text
//! gradient = (baseline + tolerance) / median of the window, from 0.5 to 1
//! limit    = limit * gradient + sqrt(limit)
//! ```
//!
//! The root lets it grow, a few at a time, and is what it lets wait at the upstream, which so never runs dry.
//!
//! The baseline is measured by every window with few requests in flight, and falls when answers come faster. That
//! answers come slower says nothing: the upstream may have slowed down, or there are too many. Then a probe tells, for
//! which the limit falls to its minimum until some have been answered. While nobody is refused nobody probes, so that
//! what has no trouble gets none.

use std::time::Duration;

/// A latency that many times the baseline is nothing to worry about, nor one that much longer.
const TOLERANCE: f64 = 0.25;
const TOLERATED: f64 = 0.001;
/// One window takes no more than half.
const STEEPEST: f64 = 0.5;
/// What a window with answers that did not come in time leaves of the limit.
const BACK_OFF: f64 = 0.9;
/// Where it begins, if that is within its bounds.
const START: f64 = 20.0;
/// How much a window with few requests in flight moves the baseline, and how much one that was faster does.
const SMOOTHING: f64 = 0.2;
const SINKING: f64 = 0.05;
/// A baseline is believed for as long, a tenth more or less, so that limits do not probe in step.
const BELIEVED: Duration = Duration::from_secs(30);
/// The first one for as long, and one that has led to half the limit it began with: it may be wrong.
const DOUBTED: Duration = Duration::from_secs(5);
/// A probe ends by then, whatever it has measured, or after so many baselines if those take longer.
const LONGEST_PROBE: Duration = Duration::from_secs(2);
const PROBED_BASELINES: u32 = 20;

/// What was measured in one window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Of the latencies, in seconds; there may be none
    pub(super) median: Option<f64>,
    /// In flight at most
    pub(super) most: u32,
    /// Some answers did not come in time, or said that there are too many
    pub(super) overloaded: bool,
}

/// The state of one limit. Times are counted from a moment of its owner's.
#[derive(Debug)]
pub(super) struct Gradient {
    min: f64,
    max: f64,
    limit: f64,
    baseline: Option<f64>,
    phase: Phase,
    /// When it was measured, and when it will have to be again
    measured: Duration,
    due: Duration,
    /// The limit when the baseline was measured
    began_with: f64,
    /// From 0 to 1, of this limit's own
    jitter: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Steady,
    Probing { resume: f64, until: Duration },
}

impl Gradient {
    pub(super) fn new(min: u32, max: u32, jitter: f64) -> Self {
        let (min, max) = (f64::from(min), f64::from(max));
        let limit = START.clamp(min, max);
        Self {
            min,
            max,
            limit,
            baseline: None,
            phase: Phase::Steady,
            measured: Duration::ZERO,
            due: Duration::MAX,
            began_with: limit,
            jitter,
        }
    }

    /// What applies now.
    pub(super) fn limit(&self) -> u32 {
        match self.phase {
            Phase::Steady => self.limit as u32,
            Phase::Probing { .. } => self.min as u32,
        }
    }

    /// What a request takes where few are in flight, in seconds.
    pub(super) fn baseline(&self) -> Option<f64> {
        self.baseline
    }

    /// While it does, only requests count that began with few in flight.
    pub(super) fn is_probing(&self) -> bool {
        self.phase != Phase::Steady
    }

    /// A window has passed.
    pub(super) fn observe(&mut self, window: Window, now: Duration) {
        match self.phase {
            Phase::Probing { resume, .. } => {
                if let Some(median) = window.median {
                    self.baseline = Some(median);
                }
                self.resume(resume, now);
            }
            Phase::Steady => self.steady(window, now),
        }
    }

    /// A probe may take too long: then it ends with what it has.
    pub(super) fn has_overrun(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Probing { until, .. } if now >= until)
    }

    fn resume(&mut self, limit: f64, now: Duration) {
        self.limit = limit;
        self.phase = Phase::Steady;
        self.believe(now, BELIEVED);
    }

    fn believe(&mut self, now: Duration, believed: Duration) {
        self.measured = now;
        self.began_with = self.limit;
        self.due = now + believed.mul_f64(0.9 + 0.2 * self.jitter);
    }

    fn steady(&mut self, window: Window, now: Duration) {
        if window.overloaded {
            self.move_to(self.limit * BACK_OFF);
        }
        let Some(median) = window.median else { return };
        let Some(baseline) = self.baseline else {
            self.baseline = Some(median);
            self.believe(now, DOUBTED);
            return;
        };
        if f64::from(window.most) <= self.min {
            self.baseline = Some(baseline + (median - baseline) * SMOOTHING);
            self.believe(now, BELIEVED);
        } else if median < baseline {
            self.baseline = Some(baseline + (median - baseline) * SINKING);
        }
        // A limit that nobody comes near is not the reason for anything.
        if window.most < self.limit() / 2 {
            return;
        }
        let fine = (baseline * (1.0 + TOLERANCE)).max(baseline + TOLERATED);
        let gradient = (fine / median).clamp(STEEPEST, 1.0);
        if !window.overloaded {
            self.move_to(self.limit * gradient + self.limit.sqrt());
        }
        self.began_with = self.began_with.max(self.limit);
        let is_due = now >= self.due && gradient < 1.0;
        let is_doubtful = self.limit < self.began_with / 2.0 && now >= self.measured + DOUBTED;
        if f64::from(window.most) > self.min && (is_due || is_doubtful) {
            let longest = LONGEST_PROBE.max(Duration::from_secs_f64(baseline) * PROBED_BASELINES);
            self.phase = Phase::Probing { resume: self.limit, until: now + longest };
        }
    }

    fn move_to(&mut self, limit: f64) {
        self.limit = limit.clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    fn window(millis: f64, most: u32) -> Window {
        Window { median: Some(millis / 1000.0), most, overloaded: false }
    }

    /// As many windows of what `latency` says at the limit that applies, fully used.
    fn used(gradient: &mut Gradient, begin: Duration, windows: u32, latency: impl Fn(u32) -> f64) -> Duration {
        for count in 0..windows {
            let limit = gradient.limit();
            gradient.observe(window(latency(limit), limit), begin + TENTH * count);
        }
        begin + TENTH * windows
    }

    #[test]
    fn it_grows_while_latency_stays_and_ends_a_little_above_what_the_upstream_does_at_once() {
        let mut gradient = Gradient::new(3, 1000, 0.5);
        gradient.observe(window(10.0, 1), Duration::ZERO);
        used(&mut gradient, TENTH, 40, |limit| 10.0 * f64::max(1.0, f64::from(limit) / 100.0));
        assert!((110..=150).contains(&gradient.limit()), "{}", gradient.limit());
    }

    #[test]
    fn a_limit_that_nobody_comes_near_does_not_move() {
        let mut gradient = Gradient::new(3, 1000, 0.5);
        for count in 0..1000 {
            gradient.observe(window(10.0, 9), TENTH * count);
            assert!(!gradient.is_probing() && gradient.limit() == 20, "{gradient:?}");
        }
    }

    #[test]
    fn answers_that_do_not_come_in_time_take_a_tenth() {
        let mut gradient = Gradient::new(3, 1000, 0.5);
        let lost = Window { median: None, most: 20, overloaded: true };
        gradient.observe(lost, TENTH);
        assert_eq!(gradient.limit(), 18);
        for _ in 0..100 {
            gradient.observe(lost, TENTH);
        }
        assert_eq!(gradient.limit(), 3);
    }

    #[test]
    fn few_requests_in_flight_are_a_probe_that_costs_nothing() {
        let mut gradient = Gradient::new(5, 1000, 0.5);
        for count in 0..1000 {
            gradient.observe(window(if count < 500 { 10.0 } else { 30.0 }, 5), TENTH * count);
            assert!(!gradient.is_probing());
        }
        assert!((gradient.baseline().expect("measured") - 0.03).abs() < 0.001);
    }

    #[test]
    fn a_baseline_that_is_doubtful_is_measured_again_soon() {
        let mut gradient = Gradient::new(3, 1000, 0.5);
        gradient.observe(window(10.0, 1), Duration::ZERO);
        let mut now = used(&mut gradient, TENTH, 40, |_| 10.0);
        let grown = gradient.limit();
        // Everything takes five times as long, however few are in flight.
        while !gradient.is_probing() {
            now = used(&mut gradient, now, 1, |_| 50.0);
            assert!(now < Duration::from_secs(12), "at {now:?}");
        }
        assert_eq!(gradient.limit(), 3);
        gradient.observe(window(50.0, 3), now);
        assert!(!gradient.is_probing() && gradient.limit() < grown / 2);
        used(&mut gradient, now, 60, |_| 50.0);
        assert!(gradient.limit() >= grown, "{} {grown}", gradient.limit());
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds_and_always_ends_its_probes(
            (min, more) in (1_u32..50, 0_u32..500),
            jitter in 0.0..1.0,
            windows in prop::collection::vec((0_u64..40_000, prop::option::of(0.0..20.0), 0_u32..2000, any::<bool>()), 0..200),
        ) {
            let mut gradient = Gradient::new(min, min + more, jitter);
            let mut now = Duration::ZERO;
            for (millis, median, most, overloaded) in windows {
                now += Duration::from_millis(millis);
                let was_probing = gradient.is_probing();
                gradient.observe(Window { median, most, overloaded }, now);
                prop_assert!((min..=min + more).contains(&gradient.limit()), "{gradient:?}");
                prop_assert!(!(was_probing && gradient.is_probing()));
                if gradient.is_probing() {
                    prop_assert!(gradient.has_overrun(now + Duration::from_secs(401)));
                }
            }
        }
    }
}
