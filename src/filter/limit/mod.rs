//! How much a caller may: rates (GCRA) and requests in flight, exact per key, bounded in memory.
//!
//! A stage of several limits is taken in two steps: each is reserved in turn, and a refusal by one gives back what the
//! others took. So refused requests consume nothing, and the order in which limits are named does not matter.

mod answer;
mod concurrency;
mod key;
mod rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::answer::Policy;
pub use self::answer::{Admission, Refusal};
use self::concurrency::{Concurrency, Permit};
use self::key::{Key, Seed};
use self::rate::{Decision, Rate};
use super::Facts;
use crate::config::{self, LimitKind, Mode, Name, OnFull};

/// One named limit. Every route that names it shares its budget.
#[derive(Debug)]
pub struct Limit {
    name: Name,
    spec: config::Limit,
    seed: Seed,
    meter: Meter,
    policy: Policy,
    counts: Counts,
}

#[derive(Debug)]
enum Meter {
    Rate(Rate),
    Concurrency(Arc<Concurrency>),
}

#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    refused: AtomicU64,
    shadowed: AtomicU64,
}

/// What a limit has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests let through
    pub allowed: u64,
    /// Requests refused
    pub refused: u64,
    /// Requests that would have been refused in mode `enforce`
    pub shadowed: u64,
    /// Keys tracked now
    pub keys: u64,
    /// Keys forgotten to make room, all of them fully refilled
    pub evicted: u64,
    /// Decisions made without counting because every tracked key was active
    pub full: u64,
}

/// What one limit gave: to be kept, or given back.
enum Taken {
    Rate { key: Key, remaining: u32, reset: u64 },
    Permit { permit: Permit, remaining: u32 },
    Uncounted,
}

/// Why one limit refused: how long until it would not.
struct Refused {
    seconds: u64,
}

impl Limit {
    /// An empty meter.
    pub fn build(name: &Name, spec: &config::Limit) -> Self {
        let meter = match spec.kind {
            LimitKind::Rate { rate, burst } => Meter::Rate(Rate::new(rate, burst, spec.max_keys)),
            LimitKind::Concurrent(max) => Meter::Concurrency(Arc::new(Concurrency::new(max, spec.max_keys))),
        };
        Self {
            name: name.clone(),
            policy: Policy::new(name, spec.kind),
            spec: spec.clone(),
            seed: Seed::new(),
            meter,
            counts: Counts::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether a part of its key is known only after the caller is.
    pub fn needs_identity(&self) -> bool {
        self.spec.key.iter().any(config::Selector::needs_identity)
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let (keys, evicted, full) = match &self.meter {
            Meter::Rate(rate) => rate.stats(),
            Meter::Concurrency(concurrency) => concurrency.stats(),
        };
        Stats {
            allowed: self.counts.allowed.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            shadowed: self.counts.shadowed.load(Ordering::Relaxed),
            keys,
            evicted,
            full,
        }
    }

    fn reserve(&self, facts: &Facts<'_>, now: Instant) -> Result<Taken, Refused> {
        let key = self.seed.key(&self.spec.key, facts);
        match &self.meter {
            Meter::Rate(rate) => match rate.take(key, now) {
                Decision::Allow { remaining, reset } => Ok(Taken::Rate { key, remaining, reset }),
                Decision::Refuse { seconds } => Err(Refused { seconds }),
                Decision::Full => self.when_full(),
            },
            Meter::Concurrency(concurrency) => match concurrency.enter(key) {
                concurrency::Entry::Allow { permit, remaining } => Ok(Taken::Permit { permit, remaining }),
                // Nobody knows when a request ends; a second is the shortest wait the field can say.
                concurrency::Entry::Refuse => Err(Refused { seconds: 1 }),
                concurrency::Entry::Full => self.when_full(),
            },
        }
    }

    fn when_full(&self) -> Result<Taken, Refused> {
        match self.spec.on_full {
            OnFull::Allow => Ok(Taken::Uncounted),
            OnFull::Deny => Err(Refused { seconds: 1 }),
        }
    }

    /// A refusal by another limit of the stage: as if this one had not been asked. A permit returns itself.
    fn refund(&self, taken: &Taken) {
        if let (Meter::Rate(rate), Taken::Rate { key, .. }) = (&self.meter, taken) {
            rate.give_back(*key);
        }
    }
}

/// Takes from every limit of a stage, or from none.
///
/// # Errors
/// The first limit that refuses.
pub fn admit(limits: &[Arc<Limit>], facts: &Facts<'_>, now: Instant) -> Result<Admission, Refusal> {
    let mut taken: Vec<(&Arc<Limit>, Taken)> = Vec::with_capacity(limits.len());
    for limit in limits {
        match limit.reserve(facts, now) {
            Ok(one) => taken.push((limit, one)),
            Err(_) if limit.spec.mode == Mode::Shadow => {
                limit.counts.shadowed.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) => {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                for (other, taken) in &taken {
                    other.refund(taken);
                }
                return Err(Refusal::new(Arc::clone(limit), refused.seconds));
            }
        }
    }
    let mut admission = Admission::default();
    for (limit, taken) in taken {
        limit.counts.allowed.fetch_add(1, Ordering::Relaxed);
        admission.add(limit, taken);
    }
    Ok(admission)
}

#[cfg(test)]
mod tests;
