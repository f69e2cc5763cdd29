//! Requests in flight where there is more to it than a number: a line to wait in, or a limit that is found.
//!
//! One gate a key. One that nobody is at or waits for is forgotten, unless it has learnt something: then it stays until
//! its room is needed.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::adaptive::{Adaptive, Found, Sample};
use super::key::Key;
use crate::config::Queue;
use crate::filter::prehashed::Prehashed;
use crate::http::{Line, Missed};

const SHARDS: usize = 16;
/// Requests that wait in all lines of one limit.
const MAX_WAITING: usize = 10_000;

/// The gates of one limit.
#[derive(Debug)]
pub(super) struct Gates {
    terms: Terms,
    queue: Option<Queue>,
    max_keys: usize,
    keys: AtomicUsize,
    evicted: AtomicU64,
    full: AtomicU64,
    waiting: AtomicUsize,
    waits: Waits,
    shards: [Mutex<HashMap<Key, Arc<Gate>, Prehashed>>; SHARDS],
}

#[derive(Clone, Copy, Debug)]
enum Terms {
    Fixed(u32),
    Adaptive { min: u32, max: u32 },
}

/// How waiting went.
#[derive(Debug, Default)]
struct Waits {
    passed: AtomicU64,
    timed_out: AtomicU64,
    full: AtomicU64,
    left: AtomicU64,
    micros: AtomicU64,
}

/// How many wait, and how waiting went, for metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueStats {
    /// Waiting now
    pub waiting: usize,
    /// How many may
    pub bound: usize,
    /// Those that came to wait, by how it went
    pub results: [(&'static str, u64); 4],
    /// How long they have waited, all together
    pub waited: Duration,
}

/// What has been found, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveStats {
    /// Of the key with the smallest limit
    pub found: Option<Found>,
    /// What may be in flight of all keys now
    pub allowed: u64,
    /// Of all keys
    pub in_flight: u64,
}

/// The requests of one key.
#[derive(Debug)]
struct Gate {
    in_flight: AtomicU32,
    ceiling: Ceiling,
    line: Line,
}

#[derive(Debug)]
enum Ceiling {
    Fixed(u32),
    Found(Box<Adaptive>),
}

/// Somebody is at a gate, or waits for it.
struct Hold {
    gates: Arc<Gates>,
    key: Key,
    /// Present until it is dropped
    gate: Option<Arc<Gate>>,
}

/// One request in flight.
pub(super) struct Place {
    hold: Hold,
    entered: Instant,
}

/// The answer to one request.
#[derive(Debug)]
pub(super) enum Entry {
    /// Counted until the place is dropped; so many more would pass now
    Allow { place: Place, remaining: u32 },
    /// As many as may are in flight, or somebody waits already
    Refuse,
    /// As many keys as may be tracked are active
    Full,
}

impl Gates {
    pub(super) fn fixed(max: u32, queue: Option<Queue>, max_keys: NonZeroUsize) -> Self {
        Self::new(Terms::Fixed(max), queue, max_keys)
    }

    pub(super) fn adaptive((min, max): (u32, u32), queue: Option<Queue>, max_keys: NonZeroUsize) -> Self {
        Self::new(Terms::Adaptive { min, max }, queue, max_keys)
    }

    fn new(terms: Terms, queue: Option<Queue>, max_keys: NonZeroUsize) -> Self {
        Self {
            terms,
            queue,
            max_keys: max_keys.get(),
            keys: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            full: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waits: Waits::default(),
            shards: Default::default(),
        }
    }

    /// Counts one more request of the key, if it may be.
    pub(super) fn enter(self: &Arc<Self>, key: Key, now: Instant) -> Entry {
        let Some(hold) = self.hold(key, now) else { return Entry::Full };
        match hold.gate() {
            // Those who wait come first.
            gate if !gate.line.is_empty() => Entry::Refuse,
            gate => match gate.take() {
                Some(remaining) => Entry::Allow { place: Place { hold, entered: now }, remaining },
                None => Entry::Refuse,
            },
        }
    }

    /// The same for one that was refused: it waits for its turn.
    ///
    /// # Errors
    /// The line is too long, or it did not come to its turn in time.
    pub(super) async fn wait(self: &Arc<Self>, key: Key, queue: Queue, now: Instant) -> Result<(Place, u32), Missed> {
        let Some(hold) = self.hold(key, now) else { return Err(Missed::Full) };
        let mut waiting = Wait { gates: self, begin: now, result: &self.waits.left };
        // Counted before it is looked at: more than that never wait.
        let all = self.waiting.fetch_add(1, Ordering::Relaxed);
        let most = if all < MAX_WAITING { queue.length.get() as usize } else { 0 };
        let gate = Arc::clone(hold.gate());
        let take = || gate.take().map_or(ControlFlow::Continue(()), ControlFlow::Break);
        let taken = gate.line.wait(most, queue.timeout, take).await;
        waiting.result = match taken {
            Ok(_) => &self.waits.passed,
            Err(Missed::Full) => &self.waits.full,
            Err(Missed::TimedOut) => &self.waits.timed_out,
        };
        drop(waiting);
        // Before the hold: what holds a gate is counted.
        drop(gate);
        taken.map(|remaining| (Place { hold, entered: Instant::now() }, remaining))
    }

    /// Keys, evictions, and requests met while full.
    pub(super) fn stats(&self) -> (u64, u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (self.keys.load(Ordering::Relaxed) as u64, count(&self.evicted), count(&self.full))
    }

    pub(super) fn queue_stats(&self) -> Option<QueueStats> {
        let length = self.queue?.length.get() as usize;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Waits { passed, timed_out, full, left, micros } = &self.waits;
        Some(QueueStats {
            waiting: self.waiting.load(Ordering::Relaxed),
            bound: length.saturating_mul(self.max_keys).min(MAX_WAITING),
            results: [
                ("passed", count(passed)),
                ("timed_out", count(timed_out)),
                ("full", count(full)),
                ("left", count(left)),
            ],
            waited: Duration::from_micros(count(micros)),
        })
    }

    pub(super) fn adaptive_stats(&self) -> Option<AdaptiveStats> {
        if matches!(self.terms, Terms::Fixed(_)) {
            return None;
        }
        let mut stats = AdaptiveStats { found: None, allowed: 0, in_flight: 0 };
        for shard in &self.shards {
            for gate in shard.lock().values() {
                stats.in_flight += u64::from(gate.in_flight.load(Ordering::Relaxed));
                stats.allowed += u64::from(gate.limit());
                if let Ceiling::Found(adaptive) = &gate.ceiling {
                    let found = adaptive.found();
                    if stats.found.is_none_or(|least| found.limit < least.limit) {
                        stats.found = Some(found);
                    }
                }
            }
        }
        Some(stats)
    }

    /// The gate of a key, found or made; `None` when there is no room for another.
    fn hold(self: &Arc<Self>, key: Key, now: Instant) -> Option<Hold> {
        let mut shard = self.shard(key).lock();
        if let Some(gate) = shard.get(&key) {
            return Some(Hold { gates: Arc::clone(self), key, gate: Some(Arc::clone(gate)) });
        }
        if self.keys.fetch_add(1, Ordering::Relaxed) >= self.max_keys {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            // One that nobody is at has at most learnt something.
            let Some(idle) = shard.iter().find(|(_, gate)| Arc::strong_count(gate) == 1).map(|(key, _)| *key) else {
                self.full.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            // The one takes the other's place.
            shard.remove(&idle);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let ceiling = match self.terms {
            Terms::Fixed(max) => Ceiling::Fixed(max),
            Terms::Adaptive { min, max } => {
                // The key is a hash with a random seed: as good as a die.
                let jitter = f64::from(key.hash() as u32) / f64::from(u32::MAX);
                Ceiling::Found(Box::new(Adaptive::new(min, max, jitter, now)))
            }
        };
        let gate = Arc::new(Gate { in_flight: AtomicU32::new(0), ceiling, line: Line::default() });
        shard.insert(key, Arc::clone(&gate));
        drop(shard);
        Some(Hold { gates: Arc::clone(self), key, gate: Some(gate) })
    }

    fn shard(&self, key: Key) -> &Mutex<HashMap<Key, Arc<Gate>, Prehashed>> {
        &self.shards[key.shard(SHARDS)]
    }
}

impl Gate {
    fn limit(&self) -> u32 {
        match &self.ceiling {
            Ceiling::Fixed(max) => *max,
            Ceiling::Found(adaptive) => adaptive.limit(),
        }
    }

    /// Takes a place; so many more would be left.
    fn take(&self) -> Option<u32> {
        let limit = self.limit();
        let one_more = |count: u32| (count < limit).then_some(count + 1);
        let before = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(limit - before - 1)
    }
}

impl Hold {
    fn gate(&self) -> &Arc<Gate> {
        self.gate.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        if matches!(gate.ceiling, Ceiling::Fixed(_)) {
            // Under the lock under which gates are found: the last of two that leave at once sees that it is the last.
            let mut shard = self.gates.shard(self.key).lock();
            if Arc::strong_count(&gate) == 2
                && let Slot::Occupied(slot) = shard.entry(self.key)
            {
                slot.remove();
                self.gates.keys.fetch_sub(1, Ordering::Relaxed);
            }
            drop(gate);
        }
    }
}

impl Place {
    /// Tells how the request went. True if it has been told all it wants to know: what it counts is over.
    pub(super) fn observe(&self, sample: Sample, now: Instant) -> bool {
        let gate = self.hold.gate();
        let Ceiling::Found(adaptive) = &gate.ceiling else { return false };
        if adaptive.observe(sample, self.entered, gate.in_flight.load(Ordering::Relaxed), now) {
            gate.line.call();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gate = self.hold.gate();
        if matches!(&gate.ceiling, Ceiling::Found(adaptive) if adaptive.is_probing()) {
            self.observe(Sample::Nothing, Instant::now());
        }
        gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.hold.gates.queue.is_some() {
            gate.line.call();
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({} in flight)", self.hold.gate().in_flight.load(Ordering::Relaxed))
    }
}

/// Somebody waits; left, until it is known how that went.
struct Wait<'a> {
    gates: &'a Gates,
    begin: Instant,
    result: &'a AtomicU64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.gates.waiting.fetch_sub(1, Ordering::Relaxed);
        self.result.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.gates.waits.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicI64;

    use futures_util::future::join_all;

    use super::*;

    fn key(number: u64) -> Key {
        Key::of(number + 1)
    }

    fn keys(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("not zero")
    }

    fn queue(length: u32) -> Queue {
        Queue { length: NonZeroU32::new(length).expect("not zero"), timeout: Duration::from_secs(60) }
    }

    #[test]
    fn a_gate_that_nobody_is_at_is_forgotten_and_one_that_has_learnt_makes_room() {
        let now = Instant::now();
        let fixed = Arc::new(Gates::fixed(1, Some(queue(1)), keys(2)));
        let held: Vec<_> = (0..2).map(|number| fixed.enter(key(number), now)).collect();
        assert!(matches!(fixed.enter(key(1), now), Entry::Refuse));
        assert!(matches!(fixed.enter(key(2), now), Entry::Full));
        assert_eq!(fixed.stats(), (2, 0, 1));
        drop(held);
        assert_eq!(fixed.stats(), (0, 0, 1));
        let adaptive = Arc::new(Gates::adaptive((1, 9), None, keys(1)));
        drop(adaptive.enter(key(0), now));
        assert_eq!(adaptive.stats(), (1, 0, 0));
        let held = adaptive.enter(key(1), now);
        assert_eq!(adaptive.stats(), (1, 1, 0), "of the same shard");
        assert!(matches!(adaptive.enter(key(0), now), Entry::Full), "somebody is there");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_rises_calls_those_who_wait() {
        let now = Instant::now();
        let gates = Arc::new(Gates::adaptive((1, 100), Some(queue(50)), keys(1)));
        let mut held: Vec<_> = (0..20).map(|_| gates.enter(key(0), now)).collect();
        let waiting = gates.wait(key(0), queue(50), now);
        let rise = async {
            tokio::task::yield_now().await;
            // Each answer makes room for one; those below make room by what they tell.
            for (count, entry) in held.iter().enumerate() {
                let Entry::Allow { place, .. } = entry else { panic!("{entry:?}") };
                let at = now + Duration::from_millis(20 * count as u64);
                place.observe(Sample::Took(Duration::from_millis(5)), at);
            }
        };
        let (came, ()) = tokio::join!(waiting, rise);
        assert!(came.is_ok(), "{came:?}");
        held.clear();
    }

    #[test]
    fn among_threads_no_more_are_in_than_may_and_nothing_is_left_behind() {
        const THREADS: usize = 4;
        let gates = Arc::new(Gates::fixed(3, Some(queue(1000)), keys(10)));
        let inside: [AtomicI64; 2] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("built");
                    let task = async |number: u64| {
                        for turn in 0..200 {
                            let place = match gates.enter(key(number), Instant::now()) {
                                Entry::Allow { place, .. } => place,
                                _ => gates.wait(key(number), queue(1000), Instant::now()).await.expect("a turn").0,
                            };
                            let inside = &inside[number as usize];
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                            if turn % 4 == 0 {
                                tokio::task::yield_now().await;
                            }
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    };
                    runtime.block_on(join_all((0..8).map(|number| task(number % 2))));
                });
            }
        });
        assert_eq!((gates.stats(), gates.waiting.load(Ordering::Relaxed)), ((0, 0, 0), 0));
    }
}
