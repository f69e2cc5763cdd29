//! Verified tokens are remembered, so that the same token's next request costs a hash and a lookup.
//!
//! One cache a provider. An entry is found by the SHA-256 of the whole token and believed only for the generation of
//! keys that verified it and within the token's own lifetime. Nothing enters that was not verified in full. What a
//! token may do is not remembered: routes ask for different things.
//!
//! Each shard keeps two halves. New and used entries are in the young one; when it is full it becomes the old one, and
//! what was still in the old one had not been used for half a cache of others. No list to keep in order, no sweep.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::Refused;
use super::verify::Lifetime;

/// Locks, so that threads seldom wait for each other.
const SHARDS: usize = 64;
/// Tokens remembered by one provider.
const MAX_ENTRIES: usize = 65_536;
/// What they may weigh together.
const MAX_BYTES: usize = 64 << 20;
/// What an entry weighs besides its claims: key, lifetime, counters of the `Arc`, its place in the table.
const ENTRY_BYTES: usize = 160;

/// SHA-256 of a whole token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    fn shard(self) -> usize {
        usize::from(self.0[31]) % SHARDS
    }
}

impl std::hash::Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Hashing a hash again would only cost time.
#[derive(Debug, Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints hash as u64");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A verified token's claims, and for how long they hold.
#[derive(Clone, Debug)]
struct Entry {
    generation: u64,
    lifetime: Lifetime,
    claims: Arc<Map<String, Value>>,
    weight: usize,
}

type Table = HashMap<Fingerprint, Entry, BuildHasherDefault<Prehashed>>;

#[derive(Debug, Default)]
struct Shard {
    young: Table,
    young_bytes: usize,
    old: Table,
}

/// What one half of one shard may hold.
#[derive(Clone, Copy, Debug)]
struct Half {
    entries: usize,
    bytes: usize,
}

/// The remembered tokens of one provider.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    half: Half,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self::with_room_for(MAX_ENTRIES, MAX_BYTES)
    }

    fn with_room_for(entries: usize, bytes: usize) -> Self {
        let half = Half { entries: entries / SHARDS / 2, bytes: bytes / SHARDS / 2 };
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), half }
    }

    /// What is remembered of a token that keys of this generation verified: its claims, or that its time is not now.
    pub(super) fn find(
        &self,
        token: Fingerprint,
        generation: u64,
        wall: SystemTime,
    ) -> Option<Result<Arc<Map<String, Value>>, Refused>> {
        let mut shard = self.shards[token.shard()].lock();
        if let Some(entry) = shard.young.get(&token) {
            return (entry.generation == generation).then(|| entry.answer(wall));
        }
        let entry = shard.old.get(&token).filter(|entry| entry.generation == generation)?.clone();
        let answer = entry.answer(wall);
        let outgrown = if answer.is_ok() { shard.keep(token, entry, self.half) } else { Table::default() };
        drop(shard);
        // Hundreds of entries may end here: not under the lock.
        drop(outgrown);
        Some(answer)
    }

    /// Remembers a token that has just been verified in full.
    pub(super) fn remember(
        &self,
        token: Fingerprint,
        generation: u64,
        lifetime: Lifetime,
        claims: &Arc<Map<String, Value>>,
    ) {
        let weight = ENTRY_BYTES + members_weight(claims);
        if weight > self.half.bytes {
            return;
        }
        let entry = Entry { generation, lifetime, claims: Arc::clone(claims), weight };
        let outgrown = self.shards[token.shard()].lock().keep(token, entry, self.half);
        drop(outgrown);
    }

    /// Tokens remembered now.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock()).map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

impl Shard {
    /// Puts an entry among the young, and hands out what has to go.
    fn keep(&mut self, token: Fingerprint, entry: Entry, half: Half) -> Table {
        let mut outgrown = Table::default();
        if self.young.len() >= half.entries || self.young_bytes + entry.weight > half.bytes {
            outgrown = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.young_bytes = 0;
        }
        self.old.remove(&token);
        self.young_bytes += entry.weight;
        if let Some(replaced) = self.young.insert(token, entry) {
            self.young_bytes -= replaced.weight;
        }
        outgrown
    }
}

impl Entry {
    fn answer(&self, wall: SystemTime) -> Result<Arc<Map<String, Value>>, Refused> {
        self.lifetime.check(wall).map(|()| Arc::clone(&self.claims))
    }
}

/// About what a value takes in memory. JSON is far smaller as text: `[0,0,0]` is seven bytes there and a hundred here.
fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => members_weight(members),
        }
}

fn members_weight(members: &Map<String, Value>) -> usize {
    // A tree's node has room for eleven members, however few there are.
    let spare = if members.is_empty() { 0 } else { 11 * (size_of::<String>() + size_of::<Value>()) };
    spare + members.iter().map(|(name, value)| size_of::<String>() + name.len() + weight(value)).sum::<usize>()
}
