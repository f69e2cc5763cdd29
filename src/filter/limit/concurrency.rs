//! Requests in flight: an exact count per key, given back when a request ends however it ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::key::Key;
use crate::filter::prehashed::Prehashed;

const SHARDS: usize = 16;

/// Counts of requests in flight, by key.
#[derive(Debug)]
pub(super) struct Concurrency {
    max: u32,
    max_keys: usize,
    keys: AtomicUsize,
    full: AtomicU64,
    shards: [Mutex<HashMap<Key, u32, Prehashed>>; SHARDS],
}

/// The answer to one request.
#[derive(Debug)]
pub(super) enum Entry {
    /// Counted until the permit is dropped; so many more would pass now
    Allow { permit: Permit, remaining: u32 },
    /// As many as may are in flight
    Refuse,
    /// As many keys as may be tracked are active
    Full,
}

/// One request in flight.
#[derive(Debug)]
pub(super) struct Permit {
    counts: Arc<Concurrency>,
    key: Key,
}

impl Concurrency {
    pub(super) fn new(max: NonZeroU32, max_keys: NonZeroUsize) -> Self {
        Self {
            max: max.get(),
            max_keys: max_keys.get(),
            keys: AtomicUsize::new(0),
            full: AtomicU64::new(0),
            shards: Default::default(),
        }
    }

    /// Counts one more request of the key, if it may be.
    pub(super) fn enter(self: &Arc<Self>, key: Key) -> Entry {
        let mut shard = self.shard(key).lock();
        let count = match shard.entry(key) {
            Slot::Occupied(mut slot) => {
                if *slot.get() >= self.max {
                    return Entry::Refuse;
                }
                *slot.get_mut() += 1;
                *slot.get()
            }
            Slot::Vacant(slot) => {
                if self.keys.fetch_add(1, Ordering::Relaxed) >= self.max_keys {
                    self.keys.fetch_sub(1, Ordering::Relaxed);
                    self.full.fetch_add(1, Ordering::Relaxed);
                    return Entry::Full;
                }
                slot.insert(1);
                1
            }
        };
        drop(shard);
        Entry::Allow { permit: Permit { counts: Arc::clone(self), key }, remaining: self.max - count }
    }

    /// Keys, evictions (there are none: idle keys are not tracked), and requests met while full.
    pub(super) fn stats(&self) -> (u64, u64, u64) {
        (self.keys.load(Ordering::Relaxed) as u64, 0, self.full.load(Ordering::Relaxed))
    }

    fn shard(&self, key: Key) -> &Mutex<HashMap<Key, u32, Prehashed>> {
        &self.shards[key.shard(SHARDS)]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = self.counts.shard(self.key).lock();
        if let Slot::Occupied(mut slot) = shard.entry(self.key) {
            *slot.get_mut() -= 1;
            if *slot.get() == 0 {
                slot.remove();
                self.counts.keys.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
