//! Slow start: a new or recovered endpoint begins with a tenth of its weight, which grows for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::upstream::group::Owner;

/// What it begins with, in per cent of its weight.
const LEAST: u64 = 10;
/// Weight grows in such steps, since each lays the turns out anew.
const STEP: u64 = 5;
/// As often as that the steps are looked for, or more often where there are more of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Since when an endpoint has been getting warm: milliseconds after the epoch, and one; 0 is one that always was.
#[derive(Debug)]
pub(in crate::upstream) struct Warmth {
    epoch: Instant,
    cold_at: AtomicU64,
}

impl Warmth {
    /// `epoch` is any moment that is not after the first `now`.
    pub(in crate::upstream) fn new(epoch: Instant) -> Self {
        Self { epoch, cold_at: AtomicU64::new(0) }
    }

    /// It begins anew.
    pub(in crate::upstream) fn lost(&self, now: Instant) {
        self.cold_at.store(self.millis(now) + 1, Ordering::Relaxed);
    }

    /// What it has of its weight, in per cent.
    pub(in crate::upstream) fn percent(&self, slow_start: Duration, now: Instant) -> u32 {
        let cold_at = self.cold_at.load(Ordering::Relaxed);
        if cold_at == 0 {
            return 100;
        }
        let since = self.millis(now).saturating_sub(cold_at - 1);
        let grown = u128::from(since) * 100 / slow_start.as_millis().max(1);
        let grown = u64::try_from(grown).unwrap_or(100).clamp(LEAST, 100);
        // At most 100.
        (grown / STEP * STEP) as u32
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

/// Lays the turns out anew whenever an endpoint has become warmer, until the owner is gone.
pub(in crate::upstream) async fn watch(owner: Owner, slow_start: Duration) {
    let pause = (slow_start / (100 / STEP) as u32).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        tokio::time::sleep(pause).await;
        let Some(upstream) = owner.upstream() else { return };
        if upstream.current().is_outdated(Instant::now()) {
            upstream.lay_out_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_grows_from_a_tenth_in_steps_to_all_of_it() {
        let epoch = Instant::now();
        let warmth = Warmth::new(epoch);
        let slow_start = Duration::from_secs(30);
        let percent = |seconds: u64| warmth.percent(slow_start, epoch + Duration::from_secs(seconds));
        assert_eq!(percent(0), 100, "what was there from the beginning is warm");
        warmth.lost(epoch + Duration::from_secs(10));
        assert_eq!([10, 12, 13, 16, 25, 39, 40, 1000].map(percent), [10, 10, 10, 20, 50, 95, 100, 100]);
        warmth.lost(epoch + Duration::from_secs(50));
        assert_eq!(percent(50), 10, "and again");
        assert_eq!(percent(20), 10, "a clock that was read before");
    }
}
