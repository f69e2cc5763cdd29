//! How often something happened lately: a sliding window that workers share without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Parts of a window; what is older than all of them is forgotten one part at a time.
const SLOTS: u32 = 10;
/// A slot's count stands in the low half of its word, and above it the tick that it belongs to.
const COUNT_BITS: u32 = 32;

/// Counts of the last `span`, to a tenth of it.
#[derive(Debug)]
pub(super) struct Window {
    epoch: Instant,
    tick_millis: u64,
    slots: [AtomicU64; SLOTS as usize],
}

impl Window {
    /// `epoch` is any moment that is not after the first `now`.
    pub(super) fn new(epoch: Instant, span: Duration) -> Self {
        let tick_millis = (span.as_millis() as u64 / u64::from(SLOTS)).max(1);
        Self { epoch, tick_millis, slots: Default::default() }
    }

    /// It happened once more.
    pub(super) fn add(&self, now: Instant) {
        let (tick, slot) = self.slot(now);
        let mut word = slot.load(Ordering::Relaxed);
        // Nearly always the slot is this tick's already; a worker that fell far behind counts for the present one.
        while is_after(tick, tick_of(word)) {
            let fresh = u64::from(tick) << COUNT_BITS | 1;
            match slot.compare_exchange_weak(word, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
        slot.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back what [`Self::add`] counted a moment ago.
    pub(super) fn take_back(&self, now: Instant) {
        let (_, slot) = self.slot(now);
        let less = |word: u64| (count_of(word) > 0).then(|| word - 1);
        // Nothing is left of it where the slot has gone to a later tick in between.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// How often it happened within the window.
    pub(super) fn sum(&self, now: Instant) -> u64 {
        let tick = self.tick(now);
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        // One that is ahead of `now` belongs to a worker that read its clock later.
        words.filter(|word| !is_after(tick, tick_of(*word).wrapping_add(SLOTS - 1))).map(count_of).sum()
    }

    /// Nothing has happened.
    pub(super) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    fn slot(&self, now: Instant) -> (u32, &AtomicU64) {
        let tick = self.tick(now);
        (tick, &self.slots[(tick % SLOTS) as usize])
    }

    fn tick(&self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.epoch).as_millis() as u64;
        // The slots before the first are full of nothing that is too old. It wraps after years at the earliest.
        (millis / self.tick_millis) as u32 + SLOTS
    }
}

fn tick_of(word: u64) -> u32 {
    (word >> COUNT_BITS) as u32
}

fn count_of(word: u64) -> u64 {
    word & ((1 << COUNT_BITS) - 1)
}

/// Whether tick `a` comes after tick `b`, over a wrap too.
fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_older_than_the_window_is_forgotten_bit_by_bit() {
        let epoch = Instant::now();
        let at = |millis| epoch + Duration::from_millis(millis);
        let window = Window::new(epoch, SPAN);
        assert_eq!(window.sum(epoch), 0);
        for millis in [0, 500, 1500, 9999] {
            window.add(at(millis));
        }
        assert_eq!(window.sum(at(9999)), 4);
        assert_eq!(window.sum(at(10_000)), 2, "the first second is out");
        assert_eq!(window.sum(at(11_000)), 1);
        assert_eq!(window.sum(at(19_000)), 0);
        window.add(at(100_000));
        assert_eq!(window.sum(at(100_000)), 1);
    }

    #[test]
    fn what_is_taken_back_has_not_happened() {
        let now = Instant::now();
        let window = Window::new(now, SPAN);
        window.add(now);
        window.add(now);
        window.take_back(now);
        assert_eq!(window.sum(now), 1);
        window.take_back(now + Duration::from_secs(1));
        assert_eq!(window.sum(now), 1, "another slot");
        window.clear();
        window.take_back(now);
        assert_eq!(window.sum(now), 0);
    }

    proptest! {
        #[test]
        fn it_counts_what_happened_in_the_span_to_a_tenth(steps in prop::collection::vec(0_u64..3000, 1..200)) {
            let epoch = Instant::now();
            let window = Window::new(epoch, SPAN);
            let mut times = Vec::new();
            let mut now = 0;
            for step in steps {
                now += step;
                window.add(epoch + Duration::from_millis(now));
                times.push(now);
                let within = |span: u64| times.iter().filter(|time| **time + span > now).count() as u64;
                let sum = window.sum(epoch + Duration::from_millis(now));
                prop_assert!((within(9000)..=within(10_000)).contains(&sum), "{sum}");
            }
        }
    }
}
