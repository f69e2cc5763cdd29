//! Keys and what is known of each: one number, its mark.
//!
//! A mark at or below the table's floor says nothing any more: the key is as good as one that was never seen, so it may
//! be forgotten, and only such keys are. For a rate the floor is now and a mark is when a budget is full again; for a
//! quota the floor is the beginning of the present period.
//!
//! A decision holds the lock of one small shard. Making room looks through a few shards of some hundred keys each, never
//! through the table, and a shard grows alone: no request ever pays for a million keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hasher;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::key::Key;
use crate::filter::prehashed::Prehashed;

/// Keys for which there is a shard: as many as may be looked through while somebody waits.
const KEYS_PER_SHARD: usize = 256;
/// Most shards of a table: beyond 16 million keys, each has more of them.
const MAX_SHARDS: usize = 1 << 16;
/// Shards besides its own in which a new key looks for room.
const FOREIGN_SHARDS: usize = 4;

/// All keys of one limit.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    max_keys: usize,
    keys: AtomicUsize,
    /// Where the next key that needs room looks for it
    cursor: AtomicUsize,
    evicted: AtomicU64,
    full: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    marks: HashMap<Slot, u64, Prehashed>,
    /// What was forgotten was so by this floor, and a clock that is behind it would bring it back to life
    floor: u64,
    /// Below this floor nothing can be forgotten, so looking for it is useless
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

impl Table {
    pub(super) fn new(max_keys: NonZeroUsize) -> Self {
        let shards = (max_keys.get() / KEYS_PER_SHARD).next_power_of_two().min(MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            max_keys: max_keys.get(),
            keys: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// Decides about one key. `raise` makes the floor of now from the last one; `decide` takes the floor and the key's
    /// mark, which is the floor where there is none, and gives its new mark.
    ///
    /// `None` if the key is new and there is no room: it is not tracked.
    pub(super) fn update<T>(
        &self,
        key: Key,
        raise: impl FnOnce(u64) -> u64,
        decide: impl FnOnce(u64, u64) -> (u64, T),
    ) -> Option<T> {
        let index = self.index(key);
        let mut shard = self.shards[index].lock();
        let floor = raise(shard.floor);
        shard.floor = floor;
        if let Some(mark) = shard.marks.get_mut(&Slot(key)) {
            let (new, verdict) = decide(floor, (*mark).max(floor));
            *mark = new;
            return Some(verdict);
        }
        if shard.marks.len() == shard.marks.capacity() {
            self.forget(&mut shard, floor);
        }
        if self.keys.fetch_add(1, Ordering::Relaxed) >= self.max_keys && !self.make_room(&mut shard, index, floor) {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            self.full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let (mark, verdict) = decide(floor, floor);
        shard.next_sweep = shard.next_sweep.min(mark);
        shard.marks.insert(Slot(key), mark);
        Some(verdict)
    }

    /// Changes the mark of a key, if it is tracked.
    pub(super) fn change(&self, key: Key, change: impl FnOnce(u64, u64) -> u64) {
        let mut shard = self.shards[self.index(key)].lock();
        let floor = shard.floor;
        if let Entry::Occupied(mut entry) = shard.marks.entry(Slot(key)) {
            let mark = change(floor, *entry.get());
            *entry.get_mut() = mark;
            shard.next_sweep = shard.next_sweep.min(mark);
        }
    }

    /// Keys, evictions, and decisions made while full.
    pub(super) fn stats(&self) -> (u64, u64, u64) {
        let keys = self.keys.load(Ordering::Relaxed).min(self.max_keys);
        (keys as u64, self.evicted.load(Ordering::Relaxed), self.full.load(Ordering::Relaxed))
    }

    /// Those of the highest marks, at most `count`: the one place that sees the whole table, one shard at a time and for
    /// a person who asked.
    pub(super) fn highest(&self, count: usize) -> Vec<(Key, u64)> {
        let mut highest: Vec<(Key, u64)> = Vec::new();
        for shard in &self.shards {
            let least = if highest.len() < count { 0 } else { highest.last().map_or(0, |(_, mark)| *mark) };
            let shard = shard.lock();
            let active = shard.marks.iter().filter(|(_, mark)| **mark > shard.floor && **mark > least);
            let found: Vec<_> = active.map(|(slot, mark)| (slot.0, *mark)).collect();
            drop(shard);
            if !found.is_empty() {
                highest.extend(found);
                highest.sort_unstable_by_key(|(_, mark)| std::cmp::Reverse(*mark));
                highest.truncate(count);
            }
        }
        highest
    }

    /// Room for one key, counted already: in its own shard, or in some that others have filled.
    fn make_room(&self, shard: &mut Shard, own: usize, floor: u64) -> bool {
        if self.forget(shard, floor) > 0 {
            return true;
        }
        let others = self.shards.len() - 1;
        (0..FOREIGN_SHARDS.min(others)).any(|_| {
            let at = self.cursor.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            // Who has both locks waits for neither.
            let other = (at != own).then(|| self.shards[at].try_lock()).flatten();
            other.is_some_and(|mut other| {
                let floor = floor.max(other.floor);
                other.floor = floor;
                self.forget(&mut other, floor) > 0
            })
        })
    }

    /// Forgets what says nothing any more, and says how much that was.
    fn forget(&self, shard: &mut Shard, floor: u64) -> usize {
        if floor < shard.next_sweep {
            return 0;
        }
        let before = shard.marks.len();
        let mut earliest = u64::MAX;
        shard.marks.retain(|_, mark| {
            let is_active = *mark > floor;
            if is_active {
                earliest = earliest.min(*mark);
            }
            is_active
        });
        shard.next_sweep = earliest;
        let after = shard.marks.len();
        // A flood is over: what it took is given back.
        if shard.marks.capacity() > 8 * after.max(8) {
            shard.marks.shrink_to(2 * after);
        }
        let forgotten = before - after;
        self.keys.fetch_sub(forgotten, Ordering::Relaxed);
        self.evicted.fetch_add(forgotten as u64, Ordering::Relaxed);
        forgotten
    }

    fn index(&self, key: Key) -> usize {
        // The map uses the high half: other bits choose the shard, or each shard's map would cluster.
        usize::try_from(key.low).unwrap_or(0) & (self.shards.len() - 1)
    }
}
