//! What clients are told of their key (`pk`), where a fleet counts: the same from every gateway, and for nobody to find
//! out what it is of.
//!
//! What stands in the store is a hash without a key: whoever guesses a name could see whether it is his who is told it.
//! So what is told is hashed once more, with a seed that nobody knows but the fleet. The first gateway makes it, and it
//! stands in the store, which nobody reads who could not find out more there. It is no part of the configuration: a
//! password could be searched for by what is made of it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::rand;

use super::Fleet;
use super::key::Hash;
use super::link::Failure;
use super::script::Seed;
use crate::filter::limit::key::Partition;

/// The seed stays for so long after the last gateway has asked for it.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Gateways that have found a store empty at different times come to agree.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The hash of a fleet.
#[derive(Default)]
pub(super) struct Partitions(ArcSwapOption<Key>);

impl Partitions {
    /// Nothing, until the fleet's seed is known.
    pub(super) fn of(&self, hash: &Hash) -> Option<Partition> {
        let key = self.0.load();
        let tag = sign(key.as_ref()?, hash);
        tag.as_ref().first_chunk().copied()
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partitions(known: {})", self.0.load().is_some())
    }
}

/// Follows the seed of the fleet.
pub(super) async fn follow(fleet: Weak<Fleet>) {
    while let Some(strong) = fleet.upgrade() {
        let Some(partitions) = &strong.partitions else { return };
        // Nobody is asked before there is a connection.
        strong.link.settled().await;
        let found = learn(&strong).await;
        if let Ok(seed) = &found {
            partitions.0.store(Some(Arc::new(Key::new(HMAC_SHA256, seed))));
        }
        drop(strong);
        tokio::time::sleep(if found.is_ok() { PAUSE } else { PAUSE_AFTER_FAILURE }).await;
    }
}

async fn learn(fleet: &Fleet) -> Result<Seed, Failure> {
    let mut proposed = Seed::default();
    // Without randomness there is no seed.
    rand::fill(&mut proposed).map_err(|_| Failure::Down)?;
    fleet.link.seed(&fleet.keys.named("_seed"), &proposed, LIFE).await
}
