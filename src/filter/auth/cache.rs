//! Verified tokens are remembered, so that the same token's next request costs a hash and a lookup.
//!
//! One cache a provider. An entry is found by the SHA-256 of the whole token and believed only for the generation of
//! keys that verified it and within the token's own lifetime. Nothing enters that was not verified in full. What a
//! token may do is not remembered: routes ask for different things.
//!
//! Each shard keeps two halves. New and used entries are in the young one; when it is full it becomes the old one, and
//! what was still in the old one had not been used for half a cache of others. No list to keep in order, no sweep.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::lifetime::Lifetime;
use super::{Claims, Refused};
use crate::filter::prehashed::Prehashed;

/// Locks, so that threads seldom wait for each other.
const SHARDS: usize = 64;
/// Most tokens that are remembered by one provider.
pub const MAX_ENTRIES: usize = 65_536;
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

    /// What stands for credentials, made by other means.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Other bits than the table uses, or each shard's table would cluster.
    fn shard(self, shards: usize) -> usize {
        usize::from(self.0[31]) % shards
    }
}

impl std::hash::Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// A verified token's claims, and for how long they hold.
#[derive(Clone, Debug)]
struct Entry {
    generation: u64,
    lifetime: Lifetime,
    claims: Claims,
    weight: usize,
}

type Table = HashMap<Fingerprint, Entry, Prehashed>;

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
        let half = Half { entries: MAX_ENTRIES / SHARDS / 2, bytes: MAX_BYTES / SHARDS / 2 };
        Self::of(SHARDS, half)
    }

    fn of(shards: usize, half: Half) -> Self {
        Self { shards: (0..shards).map(|_| Mutex::default()).collect(), half }
    }

    fn shard(&self, token: Fingerprint) -> &Mutex<Shard> {
        &self.shards[token.shard(self.shards.len())]
    }

    /// What is remembered of a token that keys of this generation verified: its claims, or that its time is not now.
    pub(super) fn find(
        &self,
        token: Fingerprint,
        generation: u64,
        wall: SystemTime,
    ) -> Option<Result<Claims, Refused>> {
        let mut shard = self.shard(token).lock();
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
    pub(super) fn remember(&self, token: Fingerprint, generation: u64, lifetime: Lifetime, claims: &Claims) {
        let weight = ENTRY_BYTES + weight(claims);
        if weight > self.half.bytes {
            return;
        }
        let entry = Entry { generation, lifetime, claims: Arc::clone(claims), weight };
        let outgrown = self.shard(token).lock().keep(token, entry, self.half);
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
    fn answer(&self, wall: SystemTime) -> Result<Claims, Refused> {
        self.lifetime.check(wall).map(|()| Arc::clone(&self.claims))
    }
}

/// What the members of an object take in memory, about. As text JSON is far smaller: `[0,0,0]` is seven bytes there and
/// a hundred here.
fn weight(members: &Map<String, Value>) -> usize {
    // A node of the tree has room for eleven members and is at least half full.
    let node = 11 * (size_of::<String>() + size_of::<Value>()) + 24;
    members.len().div_ceil(5) * node + members.iter().map(|(name, value)| name.len() + behind(value)).sum::<usize>()
}

/// What a value takes besides its own place.
fn behind(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + behind(item)).sum(),
        Value::Object(members) => weight(members),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { unreachable!("an object was written") };
        Arc::new(claims)
    }

    fn subject(cache: &Cache, token: &str, generation: u64, wall: SystemTime) -> Option<Result<String, Refused>> {
        let found = cache.find(Fingerprint::of(token), generation, wall)?;
        Some(found.map(|claims| claims["sub"].as_str().expect("a subject").to_owned()))
    }

    /// What all entries weigh, after a look at the books.
    fn bytes(cache: &Cache) -> usize {
        let weigh = |table: &Table| table.values().map(|entry| entry.weight).sum::<usize>();
        let shards = cache.shards.iter().map(|shard| {
            let shard = shard.lock();
            assert_eq!(shard.young_bytes, weigh(&shard.young));
            shard.young_bytes + weigh(&shard.old)
        });
        shards.sum()
    }

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_whole_token() {
        let hex: String = Fingerprint::of("abc").0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn however_many_tokens_come_their_number_and_weight_are_bounded() {
        let (entries, most) = (32, 4 * 64 * 1024);
        let cache = Cache::of(4, Half { entries: 4, bytes: 32 * 1024 });
        for index in 0..100 * entries {
            let claims = claims(json!({"sub": "x".repeat(index * 7919 % 30_000)}));
            cache.remember(Fingerprint::of(&index.to_string()), 1, Lifetime::new(0, 10), &claims);
            assert!(cache.len() <= entries && bytes(&cache) <= most, "{} {}", cache.len(), bytes(&cache));
        }
        for _ in 0..3 {
            // The same ones again and again: each is counted once, and most are there.
            for index in 0..entries / 2 {
                let claims = claims(json!({"sub": index}));
                cache.remember(Fingerprint::of(&index.to_string()), 1, Lifetime::new(0, 10), &claims);
                assert!(bytes(&cache) <= most);
            }
        }
        let shards = cache.shards.iter().map(|shard| shard.lock());
        assert!(shards.into_iter().all(|shard| shard.young.keys().all(|token| !shard.old.contains_key(token))));
        assert!(cache.len() >= entries / 4, "{}", cache.len());
    }

    #[test]
    fn a_token_that_weighs_too_much_is_not_remembered() {
        let cache = Cache::of(1, Half { entries: 4, bytes: 1000 });
        let token = Fingerprint::of("a");
        cache.remember(token, 1, Lifetime::new(0, 10), &claims(json!({"list": vec![0; 100]})));
        assert_eq!(cache.len(), 0, "201 bytes of JSON, but three thousand of memory");
        cache.remember(token, 1, Lifetime::new(0, 10), &claims(json!({"list": [0]})));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_token_in_use_outlives_those_that_are_not() {
        let cache = Cache::of(2, Half { entries: 8, bytes: MAX_BYTES });
        let remember = |token: &str| {
            cache.remember(Fingerprint::of(token), 1, Lifetime::new(0, 10), &claims(json!({"sub": token})));
        };
        remember("used");
        remember("idle");
        for index in 0..1000 {
            remember(&index.to_string());
            assert_eq!(subject(&cache, "used", 1, at(5)), Some(Ok("used".to_owned())), "after {index}");
        }
        assert_eq!(subject(&cache, "idle", 1, at(5)), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Remember { token: u8, generation: u64, begins: u64, ends: u64 },
        Find { token: u8, generation: u64, now: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let remember = (0u8..12, 1u64..4, 0u64..20, 0u64..20)
            .prop_map(|(token, generation, begins, ends)| Step::Remember { token, generation, begins, ends });
        let find =
            (0u8..12, 1u64..4, 0u64..20).prop_map(|(token, generation, now)| Step::Find { token, generation, now });
        proptest::collection::vec(prop_oneof![remember, find], 1..200)
    }

    proptest! {
        /// It may forget; but what it says was said of this very token, by this generation of keys, and is true now.
        #[test]
        fn it_never_answers_for_another_token_generation_or_time(steps in steps(), entries in 1usize..4) {
            let cache = Cache::of(1, Half { entries, bytes: MAX_BYTES });
            let mut last = HashMap::new();
            for step in steps {
                match step {
                    Step::Remember { token, generation, begins, ends } => {
                        let name = format!("token {token}");
                        let claims = claims(json!({"sub": name, "generation": generation}));
                        cache.remember(Fingerprint::of(&name), generation, Lifetime::new(begins, ends), &claims);
                        last.insert(token, (generation, begins, ends));
                    }
                    Step::Find { token, generation, now } => {
                        let name = format!("token {token}");
                        match (cache.find(Fingerprint::of(&name), generation, at(now)), last.get(&token)) {
                            (None, _) => {}
                            (Some(_), None) => prop_assert!(false, "never remembered"),
                            (Some(answer), Some((verified_by, begins, ends))) => {
                                prop_assert_eq!(generation, *verified_by);
                                prop_assert_eq!(answer.is_ok(), (*begins..*ends).contains(&now));
                                if now >= *ends {
                                    prop_assert_eq!(answer.as_ref().err(), Some(&Refused::Expired));
                                }
                                if let Ok(claims) = answer {
                                    prop_assert_eq!(&claims["sub"], &Value::from(name));
                                    prop_assert_eq!(&claims["generation"], &Value::from(generation));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
