//! How long an endpoint takes to answer, as far as one can tell now (after Finagle's peak EWMA).
//!
//! An average that forgets exponentially, but believes a worse answer at once: an endpoint that slows down is avoided
//! from its first slow answer on, and has to be quick for a while to be believed again. What failed counts as slow,
//! however fast it failed, since an endpoint that fails fast would otherwise draw everybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What failed counts as at least so long,
const LEAST_PENALTY: Duration = Duration::from_millis(100);
/// as so many times what the endpoint takes,
const PENALTY: f32 = 10.0;
/// and, by that alone, as no longer than this.
const MOST_PENALTY: Duration = Duration::from_secs(10);

/// One word, so that workers that share it never see half a change: above, the milliseconds since the epoch at which it
/// was written (they wrap after 49 days, and by then it says nothing any more); below, the average in microseconds as
/// an `f32`. 0 is an endpoint that nothing is known about.
#[derive(Debug)]
pub(in crate::upstream) struct Ewma {
    epoch: Instant,
    word: AtomicU64,
}

impl Ewma {
    /// `epoch` is any moment that is not after the first `now`.
    pub(in crate::upstream) fn new(epoch: Instant) -> Self {
        Self { epoch, word: AtomicU64::new(0) }
    }

    /// An answer took so long.
    pub(in crate::upstream) fn observe(&self, took: Duration, now: Instant, decay: Duration) {
        let took = micros(took);
        self.change(now, |average, since| {
            if took >= average {
                return took;
            }
            let kept = kept(since, decay);
            average * kept + took * (1.0 - kept)
        });
    }

    /// A try failed after so long.
    pub(in crate::upstream) fn failed(&self, took: Duration, now: Instant) {
        let took = micros(took).max(micros(LEAST_PENALTY));
        self.change(now, |average, _| took.max((average * PENALTY).min(micros(MOST_PENALTY))).max(average));
    }

    /// Nobody waited for the end, which had not come after so long.
    pub(in crate::upstream) fn abandoned(&self, took: Duration, now: Instant) {
        let took = micros(took);
        // Only bad news is news: how long it would have taken is not known.
        if average_of(self.word.load(Ordering::Relaxed)).is_some_and(|average| took > average) {
            self.change(now, |average, _| took.max(average));
        }
    }

    /// In microseconds, as it was last written.
    pub(in crate::upstream) fn last(&self) -> Option<f32> {
        average_of(self.word.load(Ordering::Relaxed))
    }

    /// The same, faded since: an endpoint that nobody asks is forgiven.
    pub(in crate::upstream) fn faded(&self, now: Instant, decay: Duration) -> Option<f32> {
        let word = self.word.load(Ordering::Relaxed);
        average_of(word).map(|average| average * kept(self.since(word, now), decay))
    }

    fn change(&self, now: Instant, next: impl Fn(f32, Duration) -> f32) {
        let stamp = u64::from(self.millis(now)) << 32;
        let changed = |word: u64| {
            let average = average_of(word).unwrap_or(0.0);
            // Never 0, which is an endpoint that nothing is known about.
            let average = next(average, self.since(word, now)).max(1.0);
            Some(stamp | u64::from(average.to_bits()))
        };
        // It always changes.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    fn since(&self, word: u64, now: Instant) -> Duration {
        let since = self.millis(now).wrapping_sub((word >> 32) as u32);
        // Another worker's clock may have been read later.
        Duration::from_millis(if since > u32::MAX / 2 { 0 } else { u64::from(since) })
    }

    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_millis() as u32
    }
}

fn average_of(word: u64) -> Option<f32> {
    let average = f32::from_bits(word as u32);
    (average > 0.0).then_some(average)
}

/// Which share of an average is left after a while.
fn kept(since: Duration, decay: Duration) -> f32 {
    (-since.as_secs_f32() / decay.as_secs_f32()).exp()
}

fn micros(time: Duration) -> f32 {
    time.as_secs_f32() * 1e6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn last(ewma: &Ewma) -> f32 {
        ewma.last().expect("something is known") / 1000.0
    }

    #[test]
    fn a_worse_answer_is_believed_at_once_and_a_better_one_slowly() {
        let epoch = Instant::now();
        let ewma = Ewma::new(epoch);
        assert_eq!(ewma.last(), None);
        ewma.observe(ms(10), epoch, DECAY);
        ewma.observe(ms(200), epoch, DECAY);
        assert!((last(&ewma) - 200.0).abs() < 0.1);
        ewma.observe(ms(10), epoch + ms(1000), DECAY);
        assert!((last(&ewma) - 181.9).abs() < 0.5, "a second of ten: {}", last(&ewma));
        ewma.observe(ms(10), epoch + ms(11_000), DECAY);
        assert!((last(&ewma) - 73.2).abs() < 0.5, "{}", last(&ewma));
    }

    #[test]
    fn what_fails_fast_is_slow() {
        let epoch = Instant::now();
        let ewma = Ewma::new(epoch);
        ewma.failed(ms(0), epoch);
        assert!((last(&ewma) - 100.0).abs() < 0.1, "at least");
        ewma.failed(ms(0), epoch);
        ewma.failed(ms(0), epoch);
        ewma.failed(ms(0), epoch);
        assert!((last(&ewma) - 10_000.0).abs() < 1.0, "ten times what it was, up to ten seconds: {}", last(&ewma));
        ewma.failed(ms(30_000), epoch);
        assert!((last(&ewma) - 30_000.0).abs() < 1.0, "what it really took");
        ewma.failed(ms(0), epoch);
        assert!((last(&ewma) - 30_000.0).abs() < 1.0, "and never less");
    }

    #[test]
    fn who_left_early_says_only_that_it_took_longer() {
        let epoch = Instant::now();
        let ewma = Ewma::new(epoch);
        ewma.abandoned(ms(50), epoch);
        assert_eq!(ewma.last(), None);
        ewma.observe(ms(10), epoch, DECAY);
        ewma.abandoned(ms(5), epoch);
        assert!((last(&ewma) - 10.0).abs() < 0.1);
        ewma.abandoned(ms(500), epoch);
        assert!((last(&ewma) - 500.0).abs() < 0.1);
    }

    #[test]
    fn what_is_old_fades_and_a_clock_that_is_behind_changes_nothing() {
        let epoch = Instant::now();
        let ewma = Ewma::new(epoch);
        ewma.observe(ms(100), epoch + ms(50), DECAY);
        let faded = |after: u64| ewma.faded(epoch + ms(after), DECAY).expect("known") / 1000.0;
        assert!((faded(40) - 100.0).abs() < 0.1);
        assert!((faded(10_050) - 36.8).abs() < 0.1);
        assert!(faded(100_050) < 0.01);
    }

    proptest! {
        #[test]
        fn an_average_is_never_beyond_what_was_seen(steps in prop::collection::vec((0_u64..30_000, 1_u64..60_000), 1..50)) {
            let epoch = Instant::now();
            let ewma = Ewma::new(epoch);
            let mut now = epoch;
            let (mut least, mut most) = (u64::MAX, 0);
            for (pause, took) in steps {
                now += ms(pause);
                (least, most) = (least.min(took), most.max(took));
                ewma.observe(ms(took), now, DECAY);
                let average = last(&ewma);
                prop_assert!(average >= least as f32 * 0.999 && average <= most as f32 * 1.001);
                prop_assert!(ewma.faded(now, DECAY) <= ewma.last());
            }
        }
    }
}
