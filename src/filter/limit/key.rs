//! From the parts of a request that a limit counts by to a key of fixed size.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU64;

use super::Facts;
use crate::config::Selector;
use crate::http::network;

/// 64 bits of a keyed hash. Two callers share one by chance only: of a million, beside a thousand new ones a second, about
/// once in five hundred years. Nobody outside can make it happen: SipHash with an unknown seed cannot be steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(NonZeroU64);

/// By what a client is told that it is counted.
pub(super) type Partition = [u8; 8];

impl Key {
    /// Zero is nobody's, so that tables can tell a place that is free.
    pub(super) fn of(hash: u64) -> Self {
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    /// Which of so many shards, a power of two up to 2^16, it belongs to.
    pub(super) fn shard(self, shards: usize) -> usize {
        (self.0.get() >> 48) as usize & (shards - 1)
    }

    /// Which of so many cells of its shard is its own: by the bits that do not choose the shard.
    pub(super) fn cell(self, cells: usize) -> usize {
        ((u128::from(self.0.get() << 16) * cells as u128) >> 64) as usize
    }

    /// The hash.
    pub(super) fn hash(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The seeds of one limit.
#[derive(Debug)]
pub(super) struct Seed {
    keys: RandomState,
    /// Another one: who sees hashes of his choice must not learn which keys lie beside one another
    partitions: RandomState,
}

impl Seed {
    pub(super) fn new() -> Self {
        Self { keys: RandomState::new(), partitions: RandomState::new() }
    }

    /// By what the limit counts the request.
    pub(super) fn key(&self, selectors: &[Selector], facts: &Facts<'_>) -> Key {
        Key::of(hash(&self.keys, selectors, facts))
    }

    /// The same for its client to see: the same for each request of the same key, and for nobody to find out what it is
    /// of.
    pub(super) fn partition(&self, selectors: &[Selector], facts: &Facts<'_>) -> Partition {
        hash(&self.partitions, selectors, facts).to_be_bytes()
    }
}

/// Parts are hashed with their length, so that no two lists of parts run into one another. A part that is missing counts
/// as one shared empty value.
fn hash(seed: &RandomState, selectors: &[Selector], facts: &Facts<'_>) -> u64 {
    let mut hasher = seed.build_hasher();
    let mut part = |bytes: &[u8]| {
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    };
    for selector in selectors {
        match selector {
            Selector::ClientAddress => match network(facts.request.client) {
                IpAddr::V4(address) => part(&address.octets()),
                IpAddr::V6(address) => part(&address.octets()),
            },
            other => part(facts.read(other).as_deref().unwrap_or("").as_bytes()),
        }
    }
    hasher.finish()
}
