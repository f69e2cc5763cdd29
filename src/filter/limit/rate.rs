//! The generic cell rate algorithm: per key one number, the moment at which its budget would be full again.
//!
//! A request of a key moves that moment by the time it takes to earn one request; it is refused if the moment would
//! then lie further ahead than a whole burst takes to earn. So in any time t at most `burst + rate * t` requests pass,
//! and no counter is ever reset (ITU-T I.371, "virtual scheduling").

use std::collections::HashMap;
use std::hash::Hasher;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::key::Key;
use crate::config;
use crate::filter::prehashed::Prehashed;

/// Most shards of a table; a small table has fewer, so that its bound stays meaningful.
const MAX_SHARDS: usize = 64;
/// Keys a shard should hold before there is another.
const KEYS_PER_SHARD: usize = 1024;

/// A table of budgets.
#[derive(Debug)]
pub(super) struct Rate {
    /// Nanoseconds that earn one request, rounded up
    interval: u64,
    /// Nanoseconds that earn a whole burst
    burst: u64,
    /// What times are counted from
    epoch: Instant,
    shards: Box<[Mutex<Shard>]>,
    keys_per_shard: usize,
    evicted: AtomicU64,
    full: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// By the high half of a key: its low half and when its budget is full again, in nanoseconds since the epoch
    full_at: HashMap<Slot, u64, Prehashed>,
    /// Before this moment no key is fully refilled, so looking for one is useless
    next_sweep: u64,
}

/// A key that hashes as its high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(Key);

impl std::hash::Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.high);
    }
}

/// What a budget says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Taken; so many more would pass at once, and all is refilled in so many seconds
    Allow { remaining: u32, reset: u64 },
    /// Not taken; one would pass in so many seconds, rounded up
    Refuse { seconds: u64 },
    /// Every tracked key is active
    Full,
}

impl Rate {
    pub(super) fn new(rate: config::Rate, burst: NonZeroU32, max_keys: NonZeroUsize) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rate.count.get()));
        let shards = (max_keys.get() / KEYS_PER_SHARD).next_power_of_two().clamp(1, MAX_SHARDS);
        Self {
            interval,
            burst: interval.saturating_mul(u64::from(burst.get())),
            epoch: Instant::now(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            keys_per_shard: max_keys.get().div_ceil(shards),
            evicted: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// Nanoseconds that earn one request, and a whole burst.
    pub(super) fn terms(&self) -> (u64, u64) {
        (self.interval, self.burst)
    }

    /// Takes one request from the key's budget.
    pub(super) fn take(&self, key: Key, now: Instant) -> Decision {
        let now = self.nanos(now);
        let mut shard = self.shard(key).lock();
        if let Some(full_at) = shard.full_at.get_mut(&Slot(key)) {
            let moved = (*full_at).max(now).saturating_add(self.interval);
            if moved - now > self.burst {
                return Decision::Refuse { seconds: seconds(moved - now - self.burst) };
            }
            *full_at = moved;
            return self.allow(moved - now);
        }
        if shard.full_at.len() >= self.keys_per_shard && !self.sweep(&mut shard, now) {
            self.full.fetch_add(1, Ordering::Relaxed);
            return Decision::Full;
        }
        shard.full_at.insert(Slot(key), now.saturating_add(self.interval));
        self.allow(self.interval)
    }

    /// Undoes one [`Self::take`].
    pub(super) fn give_back(&self, key: Key) {
        if let Some(full_at) = self.shard(key).lock().full_at.get_mut(&Slot(key)) {
            *full_at = full_at.saturating_sub(self.interval);
        }
    }

    /// Keys, evictions, and decisions made while full.
    pub(super) fn stats(&self) -> (u64, u64, u64) {
        let keys: usize = self.shards.iter().map(|shard| shard.lock().full_at.len()).sum();
        (keys as u64, self.evicted.load(Ordering::Relaxed), self.full.load(Ordering::Relaxed))
    }

    fn allow(&self, owed: u64) -> Decision {
        let remaining = self.burst.saturating_sub(owed) / self.interval;
        Decision::Allow { remaining: u32::try_from(remaining).unwrap_or(u32::MAX), reset: seconds(owed) }
    }

    /// Forgets keys that are fully refilled: a forgotten one starts full again, which is what it is. Says whether
    /// there is room now.
    fn sweep(&self, shard: &mut Shard, now: u64) -> bool {
        if now < shard.next_sweep {
            return false;
        }
        let before = shard.full_at.len();
        let mut earliest = u64::MAX;
        shard.full_at.retain(|_, full_at| {
            if *full_at > now {
                earliest = earliest.min(*full_at);
            }
            *full_at > now
        });
        let evicted = before - shard.full_at.len();
        self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        shard.next_sweep = if evicted == 0 { earliest } else { 0 };
        evicted > 0
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        // The map uses the high half: other bits choose the shard, or each shard's map would cluster.
        &self.shards[usize::try_from(key.low % self.shards.len() as u64).unwrap_or(0)]
    }

    /// An instant from before the epoch is the epoch: clocks that disagree a little grant nothing.
    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Rounded up: never earlier than the truth.
pub(super) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}
