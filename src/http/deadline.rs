//! When to give up on an exchange: when nothing moves for too long, and at a fixed moment whatever moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NEVER: u64 = u64::MAX;

/// The patience with one exchange, shared between who serves it and who owns the socket. It starts without bounds.
#[derive(Debug)]
pub struct Deadline {
    /// Instants are nanoseconds after this one
    base: Instant,
    /// When to give up as things stand
    at: AtomicU64,
    /// When to give up even if things move
    last: AtomicU64,
    /// How long nothing may move
    silence: AtomicU64,
}

impl Default for Deadline {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            at: AtomicU64::new(NEVER),
            last: AtomicU64::new(NEVER),
            silence: AtomicU64::new(NEVER),
        }
    }
}

impl Deadline {
    /// From `now` on nothing may move for `silence`, and all must be over at `last`.
    pub fn allow(&self, now: Instant, silence: Duration, last: Option<Instant>) {
        self.silence.store(nanos(silence), Ordering::Relaxed);
        self.last.store(last.map_or(NEVER, |last| self.since_base(last)), Ordering::Relaxed);
        self.moved(now);
    }

    /// Something moved: the silence starts anew.
    pub fn moved(&self, now: Instant) {
        let quiet = self.since_base(now).saturating_add(self.silence.load(Ordering::Relaxed));
        self.at.store(quiet.min(self.last.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// No bounds any more.
    pub fn lift(&self) {
        self.silence.store(NEVER, Ordering::Relaxed);
        self.last.store(NEVER, Ordering::Relaxed);
        self.at.store(NEVER, Ordering::Relaxed);
    }

    /// When to give up, unless something moves before.
    pub fn at(&self) -> Option<Instant> {
        match self.at.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(self.base + Duration::from_nanos(nanos)),
        }
    }

    /// Whether it is time to give up.
    pub fn has_passed(&self, now: Instant) -> bool {
        self.at().is_some_and(|at| now >= at)
    }

    fn since_base(&self, instant: Instant) -> u64 {
        nanos(instant.saturating_duration_since(self.base))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_starts_anew_when_something_moves_but_the_last_moment_stays() {
        let deadline = Deadline::default();
        assert_eq!(deadline.at(), None);
        let now = Instant::now();
        deadline.allow(now, 2 * SECOND, Some(now + 3 * SECOND));
        assert_eq!(deadline.at(), Some(now + 2 * SECOND));
        deadline.moved(now + SECOND / 2);
        assert_eq!(deadline.at(), Some(now + SECOND / 2 + 2 * SECOND));
        deadline.moved(now + 2 * SECOND);
        assert_eq!(deadline.at(), Some(now + 3 * SECOND));
        assert!(!deadline.has_passed(now + 2 * SECOND));
        assert!(deadline.has_passed(now + 3 * SECOND));
    }

    #[test]
    fn a_lifted_deadline_does_not_come_back_when_something_moves() {
        let deadline = Deadline::default();
        deadline.allow(Instant::now(), SECOND, None);
        deadline.lift();
        deadline.moved(Instant::now());
        assert_eq!(deadline.at(), None);
    }
}
