//! Being out: for how long, and how much longer the next time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Read by every request where outliers are looked for, written when one is found.
#[derive(Debug)]
pub(in crate::upstream) struct Ejection {
    epoch: Instant,
    /// Milliseconds after the epoch; 0 while it is not out
    until: AtomicU64,
    past: Mutex<Past>,
    count: AtomicU64,
}

#[derive(Debug)]
struct Past {
    /// Ejections that count towards the length of the next
    streak: u32,
    ended: Instant,
}

impl Ejection {
    /// `epoch` is any moment before the first `now`.
    pub(in crate::upstream) fn new(epoch: Instant) -> Self {
        let past = Mutex::new(Past { streak: 0, ended: epoch });
        Self { epoch, until: AtomicU64::new(0), past, count: AtomicU64::new(0) }
    }

    /// Whether it is out. The clock is read only if it was.
    pub(in crate::upstream) fn is_out(&self, now: impl Fn() -> Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && self.millis(now()) < until
    }

    /// Whether its time was over just now; true once an ejection.
    pub(in crate::upstream) fn has_returned(&self, now: impl Fn() -> Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0
            && self.millis(now()) >= until
            && self.until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Puts it out and says for how long: `base` times the number of ejections in a row, `longest` at most. Each `base`
    /// that it has stayed in makes them one less.
    pub(in crate::upstream) fn eject(&self, now: Instant, base: Duration, longest: Duration) -> Duration {
        let mut past = self.past.lock();
        let good = now.saturating_duration_since(past.ended).as_millis() / base.as_millis().max(1);
        past.streak = past.streak.saturating_sub(u32::try_from(good).unwrap_or(u32::MAX)).saturating_add(1);
        let length = base.saturating_mul(past.streak).min(longest);
        past.ended = now + length;
        self.until.store(self.millis(past.ended).max(1), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        length
    }

    /// What is left of it.
    pub(in crate::upstream) fn remaining(&self, now: Instant) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        until.checked_sub(self.millis(now)).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// How often it was put out.
    pub(in crate::upstream) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_secs(100);

    #[test]
    fn ejections_in_a_row_grow_and_good_times_make_them_shorter_again() {
        let mut now = Instant::now();
        let ejection = Ejection::new(now);
        assert!(!ejection.is_out(|| now));
        for expected in [30, 60, 90, 100, 100] {
            let length = ejection.eject(now, BASE, LONGEST);
            assert_eq!(length.as_secs(), expected);
            assert!(ejection.is_out(|| now) && !ejection.has_returned(|| now));
            assert_eq!(ejection.remaining(now), Some(length));
            now += length;
            assert!(!ejection.is_out(|| now));
            assert!(ejection.has_returned(|| now));
            assert!(!ejection.has_returned(|| now), "once");
            assert_eq!(ejection.remaining(now), None);
        }
        now += 4 * BASE;
        assert_eq!(ejection.eject(now, BASE, LONGEST).as_secs(), 60, "five in a row, and four good times");
    }

    proptest! {
        #[test]
        fn nobody_is_out_for_longer_than_the_longest(pauses in prop::collection::vec(0_u64..200_000, 1..50)) {
            let mut now = Instant::now();
            let ejection = Ejection::new(now);
            for pause in pauses {
                now += Duration::from_millis(pause);
                let length = ejection.eject(now, BASE, LONGEST);
                prop_assert!((BASE..=LONGEST).contains(&length));
                prop_assert!(!ejection.is_out(|| now + LONGEST));
            }
        }
    }
}
