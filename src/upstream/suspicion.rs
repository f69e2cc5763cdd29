//! The passive sign: an endpoint that just refused a connection is avoided for a moment.
//!
//! A killed endpoint must not cost every request a failed connection, and a black hole must not cost every request a
//! connection timeout. So after a failure the endpoint is suspect for a hold that doubles from one second to ten; when
//! a hold is over, one request (not the crowd) finds out whether it is back. A response ends the suspicion.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The first hold.
const FIRST_HOLD: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_HOLD: Duration = Duration::from_secs(10);
/// Low bits that count holds in a row; the end of the hold, in milliseconds since the epoch, stands above them.
const STREAK_BITS: u32 = 8;
const LONGEST_STREAK: u64 = (1 << STREAK_BITS) - 1;

/// One word, so that workers that share it never see half a change; 0 is above suspicion.
#[derive(Debug)]
pub(super) struct Suspicion {
    epoch: Instant,
    word: AtomicU64,
}

impl Suspicion {
    /// `epoch` is any moment that is not after the first `now`.
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, word: AtomicU64::new(0) }
    }

    /// Whether it is above suspicion: what a request to a good endpoint asks, without reading a clock.
    pub(super) fn is_clear(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }

    /// Whether a request may go there now, as far as one can tell without going.
    pub(super) fn permits(&self, now: impl Fn() -> Instant) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word == 0 || end_of(word) <= self.millis(now())
    }

    /// Takes the permission. Above suspicion everybody gets it; after a hold one request does, and the next hold
    /// begins at once for the others: if it brings a response, that clears everything.
    pub(super) fn claim(&self, now: impl Fn() -> Instant) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word == 0 || (end_of(word) <= self.millis(now()) && self.hold_longer(word, now()))
    }

    /// A connection failed. True if this failure is what made the endpoint suspect.
    ///
    /// During a hold nothing is learnt from a failure: it belongs to a request that was already on its way, or to the
    /// one that claimed the permission, for which the hold already stands.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        end_of(word) <= self.millis(now) && self.hold_longer(word, now) && word == 0
    }

    /// A response came. True if that ended a suspicion.
    pub(super) fn succeeded(&self) -> bool {
        !self.is_clear() && self.word.swap(0, Ordering::Relaxed) != 0
    }

    /// Begins the hold that follows `word`; false if another worker was faster.
    fn hold_longer(&self, word: u64, now: Instant) -> bool {
        let streak = ((word & LONGEST_STREAK) + 1).min(LONGEST_STREAK);
        let next = ((self.millis(now) + hold(streak)) << STREAK_BITS) | streak;
        self.word.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn millis(&self, now: Instant) -> u64 {
        // 56 bits of milliseconds are two million years.
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

fn end_of(word: u64) -> u64 {
    word >> STREAK_BITS
}

/// How long the hold number `streak` (from 1) is, in milliseconds.
fn hold(streak: u64) -> u64 {
    let doublings = u32::try_from(streak - 1).unwrap_or(u32::MAX).min(16);
    FIRST_HOLD.saturating_mul(1 << doublings).min(LONGEST_HOLD).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(epoch: Instant, millis: u64) -> Instant {
        epoch + Duration::from_millis(millis)
    }

    #[test]
    fn a_failure_holds_for_a_second_and_then_lets_one_request_through() {
        let epoch = Instant::now();
        let suspicion = Suspicion::new(epoch);
        assert!(suspicion.claim(|| epoch));
        assert!(suspicion.failed(epoch));
        assert!(!suspicion.permits(|| at(epoch, 999)));
        assert!(!suspicion.claim(|| at(epoch, 999)));
        assert!(suspicion.permits(|| at(epoch, 1000)));
        assert!(suspicion.claim(|| at(epoch, 1000)), "the first after the hold goes");
        assert!(!suspicion.claim(|| at(epoch, 1000)), "the second does not");
    }

    #[test]
    fn a_crowd_of_failures_is_one_failure() {
        let epoch = Instant::now();
        let suspicion = Suspicion::new(epoch);
        assert_eq!((0..100).filter(|_| suspicion.failed(epoch)).count(), 1);
        assert!(suspicion.permits(|| at(epoch, 1000)), "still the first hold");
    }

    #[test]
    fn holds_double_up_to_ten_seconds() {
        let epoch = Instant::now();
        let suspicion = Suspicion::new(epoch);
        let mut now = 0;
        suspicion.failed(epoch);
        for expected in [1, 2, 4, 8, 10, 10, 10] {
            assert!(!suspicion.claim(|| at(epoch, now + expected * 1000 - 1)));
            now += expected * 1000;
            assert!(suspicion.claim(|| at(epoch, now)));
            assert!(!suspicion.failed(at(epoch, now)), "the claimed try failed: the hold already stands");
        }
    }

    #[test]
    fn a_response_clears_everything() {
        let epoch = Instant::now();
        let suspicion = Suspicion::new(epoch);
        assert!(!suspicion.succeeded());
        suspicion.failed(epoch);
        assert!(suspicion.succeeded());
        assert!(suspicion.is_clear());
        assert!(suspicion.failed(at(epoch, 1)));
        assert!(suspicion.permits(|| at(epoch, 1001)), "the next hold is a first hold again");
    }

    proptest! {
        #[test]
        fn no_endpoint_is_avoided_for_longer_than_the_longest_hold(steps in prop::collection::vec((0_u64..20_000, 0..3), 1..60)) {
            let epoch = Instant::now();
            let suspicion = Suspicion::new(epoch);
            let mut now = 0;
            for (millis, step) in steps {
                now += millis;
                match step {
                    0 => drop(suspicion.failed(at(epoch, now))),
                    1 => drop(suspicion.succeeded()),
                    _ => drop(suspicion.claim(|| at(epoch, now))),
                }
                prop_assert!(suspicion.permits(|| at(epoch, now) + LONGEST_HOLD));
            }
        }
    }
}
