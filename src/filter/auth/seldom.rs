//! What happens with every request is said now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds in between.
const INTERVAL: u64 = 60;

/// When something was last said, in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Seldom(AtomicU64);

impl Seldom {
    /// Whether it may be said now; if so, it counts as said.
    pub(super) fn is_due(&self, wall: SystemTime) -> bool {
        let now = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let last = self.0.load(Ordering::Relaxed);
        now.saturating_sub(last) >= INTERVAL
            && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
