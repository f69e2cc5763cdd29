//! From the parts of a request that a limit counts by to a key of fixed size.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use super::Facts;
use crate::config::Selector;
use crate::http::network;

/// 128 bits of a keyed hash. Two callers share one by chance only, and nobody outside can make it happen: the seed is
/// random, and SipHash with an unknown seed cannot be steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) high: u64,
    pub(super) low: u64,
}

impl Key {
    pub(super) fn bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

/// The seed of one limit.
#[derive(Debug)]
pub(super) struct Seed {
    high: RandomState,
    low: RandomState,
}

impl Seed {
    pub(super) fn new() -> Self {
        Self { high: RandomState::new(), low: RandomState::new() }
    }

    /// Parts are hashed with their length, so that no two lists of parts run into one another. A part that is missing
    /// counts as one shared empty value.
    pub(super) fn key(&self, selectors: &[Selector], facts: &Facts<'_>) -> Key {
        let (mut high, mut low) = (self.high.build_hasher(), self.low.build_hasher());
        let mut part = |bytes: &[u8]| {
            for hasher in [&mut high, &mut low] {
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            }
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
        Key { high: high.finish(), low: low.finish() }
    }
}
