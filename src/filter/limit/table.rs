//! Keys and what is known of each: one number, its mark.
//!
//! A mark at or below the table's floor says nothing any more: the key is as good as one that was never seen, so it may
//! be forgotten, and only such keys are. For a rate the floor is now and a mark is when a budget is full again; for a
//! quota the floor is the beginning of the present period.
//!
//! A decision holds the lock of one small shard. Making room looks through a few shards of some hundred keys each, never
//! through the table, and a shard grows alone: no request ever pays for a million keys.
//!
//! Of a table that is larger than the processor's caches a decision reads two places, the head of a shard and one line of
//! its cells: memory is what it waits for.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::key::Key;

/// Keys for which there is a shard: as many as may be looked through while somebody waits.
const KEYS_PER_SHARD: usize = 256;
/// Most shards of a table: beyond 16 million keys, each has more of them.
const MAX_SHARDS: usize = 1 << 16;
/// Shards besides its own in which a new key looks for room.
const FOREIGN_SHARDS: usize = 4;
/// A line of the cache: a shard has no fewer cells.
const CELLS_PER_LINE: usize = 4;

/// All keys of one limit.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Head]>,
    max_keys: usize,
    keys: AtomicUsize,
    /// Where the next key that needs room looks for it
    cursor: AtomicUsize,
    evicted: AtomicU64,
    full: AtomicU64,
}

/// A line of the cache for each, so that two workers at two shards do not wait for one another.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Head(Mutex<Shard>);

/// Cells by open addressing: a key stands in the first free cell from its own on. None is ever taken out alone, so
/// whoever meets a free cell has met all that there is; one that says nothing any more can be another key's.
#[derive(Debug, Default)]
struct Shard {
    /// At most three of four hold a key
    cells: Box<[Cell]>,
    keys: usize,
    /// What was forgotten was so by this floor, and a clock that is behind it would bring it back to life
    floor: u64,
    /// Below this floor nothing can be forgotten, so looking for it is useless
    next_sweep: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    key: Option<Key>,
    mark: u64,
}

impl Cell {
    const FREE: Self = Self { key: None, mark: 0 };
}

/// Where a key is, or could be.
enum Place {
    Tracked(usize),
    /// A cell whose key says nothing any more
    Stale(usize),
    Free,
}

impl Shard {
    /// Cells from the key's own on, each once.
    fn walk(&self, key: Key) -> impl Iterator<Item = usize> + use<> {
        let own = key.cell(self.cells.len());
        (own..self.cells.len()).chain(0..own)
    }

    fn find(&self, key: Key, floor: u64) -> Place {
        let mut stale = None;
        for at in self.walk(key) {
            let cell = self.cells[at];
            match cell.key {
                Some(other) if other == key => return Place::Tracked(at),
                Some(_) if stale.is_none() && cell.mark <= floor => stale = Some(at),
                Some(_) => {}
                None => break,
            }
        }
        stale.map_or(Place::Free, Place::Stale)
    }

    fn is_crowded(&self) -> bool {
        4 * (self.keys + 1) > 3 * self.cells.len()
    }

    /// A key that is not there yet, into a cell that is free.
    fn insert(&mut self, key: Key, mark: u64) {
        let at = self.walk(key).find(|at| self.cells[*at].key.is_none());
        self.cells[at.expect("not all are taken")] = Cell { key: Some(key), mark };
        self.keys += 1;
        self.next_sweep = self.next_sweep.min(mark);
    }

    fn active(&self, floor: u64) -> impl Iterator<Item = (Key, u64)> {
        self.cells.iter().filter_map(|cell| Some((cell.key?, cell.mark))).filter(move |(_, mark)| *mark > floor)
    }

    /// The same keys but for those that say nothing any more, and cells for as many again. Gives how many were
    /// forgotten.
    fn rebuild(&mut self, floor: u64) -> usize {
        let before = self.keys;
        let active = self.active(floor).count();
        let cells = (2 * active).next_multiple_of(CELLS_PER_LINE).max(CELLS_PER_LINE);
        let old = std::mem::replace(&mut self.cells, vec![Cell::FREE; cells].into_boxed_slice());
        (self.keys, self.next_sweep) = (0, u64::MAX);
        for cell in &old {
            if let Some(key) = cell.key.filter(|_| cell.mark > floor) {
                self.insert(key, cell.mark);
            }
        }
        before - self.keys
    }
}

impl Table {
    pub(super) fn new(max_keys: NonZeroUsize) -> Self {
        let shards = (max_keys.get() / KEYS_PER_SHARD).next_power_of_two().min(MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Head::default()).collect(),
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
        let mut shard = self.shard(key);
        let floor = raise(shard.floor);
        shard.floor = floor;
        let place = shard.find(key, floor);
        if let Place::Tracked(at) = place {
            let mark = &mut shard.cells[at].mark;
            let (new, verdict) = decide(floor, (*mark).max(floor));
            *mark = new;
            return Some(verdict);
        }
        let (mark, verdict) = decide(floor, floor);
        if mark <= floor {
            // Nothing was taken, so there is nothing to know.
            return Some(verdict);
        }
        if let Place::Stale(at) = place {
            shard.cells[at] = Cell { key: Some(key), mark };
            shard.next_sweep = shard.next_sweep.min(mark);
            self.evicted.fetch_add(1, Ordering::Relaxed);
            return Some(verdict);
        }
        if self.keys.fetch_add(1, Ordering::Relaxed) >= self.max_keys && !self.make_room(&mut shard, key, floor) {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            self.full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if shard.is_crowded() {
            self.count_forgotten(shard.rebuild(floor));
        }
        shard.insert(key, mark);
        Some(verdict)
    }

    /// Changes the mark of a key, if it is tracked.
    pub(super) fn change(&self, key: Key, change: impl FnOnce(u64, u64) -> u64) {
        let mut shard = self.shard(key);
        let floor = shard.floor;
        if let Place::Tracked(at) = shard.find(key, floor) {
            let mark = change(floor, shard.cells[at].mark);
            shard.cells[at].mark = mark;
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
        for Head(shard) in &self.shards {
            let least = if highest.len() < count { 0 } else { highest.last().map_or(0, |(_, mark)| *mark) };
            let shard = shard.lock();
            let found: Vec<_> = shard.active(shard.floor.max(least)).collect();
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
    fn make_room(&self, shard: &mut Shard, key: Key, floor: u64) -> bool {
        if self.forget(shard, floor) > 0 {
            return true;
        }
        let own = key.shard(self.shards.len());
        let others = self.shards.len() - 1;
        (0..FOREIGN_SHARDS.min(others)).any(|_| {
            let at = self.cursor.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            // Who has both locks waits for neither.
            let other = (at != own).then(|| self.shards[at].0.try_lock()).flatten();
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
        let (active, earliest) =
            shard.active(floor).fold((0, u64::MAX), |(count, earliest), (_, mark)| (count + 1, mark.min(earliest)));
        if active == shard.keys {
            shard.next_sweep = earliest;
            return 0;
        }
        let forgotten = shard.rebuild(floor);
        self.count_forgotten(forgotten);
        forgotten
    }

    fn count_forgotten(&self, forgotten: usize) {
        self.keys.fetch_sub(forgotten, Ordering::Relaxed);
        self.evicted.fetch_add(forgotten as u64, Ordering::Relaxed);
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        self.shards[key.shard(self.shards.len())].0.lock()
    }
}
