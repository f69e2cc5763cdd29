//! How much a caller may: rates (GCRA), quotas of the calendar and requests in flight, exact per key, bounded in memory.
//!
//! A stage of several limits is taken in two steps: each is reserved in turn, and a refusal by one gives back what the
//! others took. So refused requests consume nothing, and the order in which limits are named does not matter.

mod answer;
mod concurrency;
mod cost;
mod key;
mod quota;
mod rate;
mod store;
mod table;

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::answer::Policy;
pub use self::answer::{Admission, Refusal};
use self::concurrency::{Concurrency, Permit};
use self::key::{Key, Seed};
use self::quota::Quota;
use self::rate::{Decision, Rate};
use self::store::{Fleet, Ticket, Verdict};
pub use self::store::{Links, StoreStats};
use super::{Clock, Facts};
use crate::config::{self, LimitKind, Mode, Name, OnFull, OnStoreFailure, Problem};

/// Work to be done in the background.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One named limit. Every route that names it shares its budget.
#[derive(Debug)]
pub struct Limit {
    name: Name,
    spec: config::Limit,
    seed: Seed,
    meter: Meter,
    /// Present where a store keeps the budgets; the meter stands in for it
    fleet: Option<Arc<Fleet>>,
    policy: Policy,
    counts: Counts,
}

#[derive(Debug)]
enum Meter {
    Rate(Rate),
    Quota(Quota),
    Concurrency(Arc<Concurrency>),
}

#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    near: AtomicU64,
    refused: AtomicU64,
    shadowed: AtomicU64,
}

/// What a limit has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests let through
    pub allowed: u64,
    /// Those of them that left less than a tenth
    pub near: u64,
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
    Local { key: Key, cost: NonZeroU32, mark: u64, remaining: u32, reset: u64 },
    Fleet { ticket: Ticket, remaining: u32, reset: u64 },
    Permit { permit: Permit, remaining: u32 },
    Uncounted,
}

/// Why one limit refused: how long until it would not.
struct Refused {
    seconds: u64,
}

impl Limit {
    /// An empty meter. A store is asked once [`tasks`](Self::tasks) run; `links` are the connections there are.
    ///
    /// # Errors
    /// A store that cannot be connected to as it says.
    pub fn build(name: &Name, spec: &config::Limit, links: &Links) -> Result<Self, Problem> {
        let meter = match spec.kind {
            LimitKind::Rate { rate, burst } => Meter::Rate(Rate::new(rate, burst, spec.max_keys)),
            LimitKind::Quota { count, period } => Meter::Quota(Quota::new(count, period, spec.max_keys)),
            LimitKind::Concurrent(max) => Meter::Concurrency(Arc::new(Concurrency::new(max, spec.max_keys))),
        };
        let fleet = match (&spec.store, &meter) {
            (Some(store), Meter::Rate(rate)) => Some(Arc::new(Fleet::build(name, spec, store, rate.terms(), links)?)),
            _ => None,
        };
        Ok(Self {
            name: name.clone(),
            policy: Policy::new(name, spec.kind),
            spec: spec.clone(),
            seed: Seed::new(),
            meter,
            fleet,
            counts: Counts::default(),
        })
    }

    /// What runs in the background for it.
    pub fn tasks(&self) -> Vec<Task> {
        self.fleet.as_ref().map(Fleet::tasks).unwrap_or_default()
    }

    /// Waits for its store, but not for long. To be awaited, with the tasks running, before calling the first requests
    /// in.
    pub async fn settled(&self) {
        if let Some(fleet) = &self.fleet {
            fleet.settled().await;
        }
    }

    /// How it gets on with its store, if it has one.
    pub fn store(&self) -> Option<StoreStats> {
        self.fleet.as_ref().map(|fleet| fleet.stats())
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
            Meter::Quota(quota) => quota.stats(),
            Meter::Concurrency(concurrency) => concurrency.stats(),
        };
        let keys = keys + self.fleet.as_ref().map_or(0, |fleet| fleet.keys());
        Stats {
            allowed: self.counts.allowed.load(Ordering::Relaxed),
            near: self.counts.near.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            shadowed: self.counts.shadowed.load(Ordering::Relaxed),
            keys,
            evicted,
            full,
        }
    }

    fn reserve(&self, facts: &Facts<'_>, clock: Clock) -> Result<Taken, Refused> {
        let key = self.seed.key(&self.spec.key, facts);
        let cost = self.cost(facts);
        match &self.meter {
            Meter::Rate(rate) => self.taken(key, cost, rate.take(key, cost, clock.steady)),
            Meter::Quota(quota) => self.taken(key, cost, quota.take(key, cost, clock.wall)),
            Meter::Concurrency(concurrency) => match concurrency.enter(key) {
                concurrency::Entry::Allow { permit, remaining } => Ok(Taken::Permit { permit, remaining }),
                // Nobody knows when a request ends; a second is the shortest wait the field can say.
                concurrency::Entry::Refuse => Err(Refused { seconds: 1 }),
                concurrency::Entry::Full => self.when_full(),
            },
        }
    }

    fn taken(&self, key: Key, cost: NonZeroU32, decision: Decision) -> Result<Taken, Refused> {
        match decision {
            Decision::Allow { remaining, reset, mark } => Ok(Taken::Local { key, cost, mark, remaining, reset }),
            Decision::Refuse { seconds } => Err(Refused { seconds }),
            Decision::Full => self.when_full(),
        }
    }

    /// Not more than there ever is: what is dearer than all waits for all.
    fn cost(&self, facts: &Facts<'_>) -> NonZeroU32 {
        cost::of(&self.spec.cost, facts.request, self.most())
    }

    /// What there is when nothing is taken.
    fn most(&self) -> NonZeroU32 {
        match self.spec.kind {
            LimitKind::Rate { burst, .. } => burst,
            LimitKind::Quota { count, .. } => count,
            LimitKind::Concurrent(max) => max,
        }
    }

    /// The same where a store decides.
    async fn reserve_of(&self, fleet: &Fleet, facts: &Facts<'_>, clock: Clock) -> Result<Taken, Refused> {
        match fleet.take(facts, self.cost(facts)).await {
            Verdict::Allow { ticket, remaining, reset } => Ok(Taken::Fleet { ticket, remaining, reset }),
            Verdict::Refuse { seconds } => Err(Refused { seconds }),
            Verdict::Failed(OnStoreFailure::Local) => self.reserve(facts, clock),
            Verdict::Failed(OnStoreFailure::Allow) => Ok(Taken::Uncounted),
            // Nobody knows when a store comes back; a second is the shortest wait the field can say.
            Verdict::Failed(OnStoreFailure::Deny) => Err(Refused { seconds: 1 }),
        }
    }

    fn when_full(&self) -> Result<Taken, Refused> {
        match self.spec.on_full {
            OnFull::Allow => Ok(Taken::Uncounted),
            OnFull::Deny => Err(Refused { seconds: 1 }),
        }
    }

    /// A refusal by another limit of the stage: as if this one had not been asked. A permit returns itself.
    async fn refund(&self, taken: &Taken, clock: Clock) {
        match (&self.meter, &self.fleet, taken) {
            (Meter::Rate(rate), _, Taken::Local { key, cost, mark, .. }) => {
                rate.give_back(*key, *cost, *mark, clock.steady);
            }
            (Meter::Quota(quota), _, Taken::Local { key, cost, mark, .. }) => quota.give_back(*key, *cost, *mark),
            // Boxed, so that requests without a store do not carry the room for it.
            (_, Some(fleet), Taken::Fleet { ticket, .. }) => Box::pin(fleet.give_back(*ticket)).await,
            _ => {}
        }
    }
}

/// Takes from every limit of a stage, or from none. Waits for stores alone: limits of this gateway decide at once.
///
/// # Errors
/// The first limit that refuses.
pub async fn admit(limits: &[Arc<Limit>], facts: &Facts<'_>, clock: Clock) -> Result<Admission, Refusal> {
    let mut taken: Vec<(&Arc<Limit>, Taken)> = Vec::with_capacity(limits.len());
    for limit in limits {
        let reserved = match &limit.fleet {
            None => limit.reserve(facts, clock),
            Some(fleet) => Box::pin(limit.reserve_of(fleet, facts, clock)).await,
        };
        match reserved {
            Ok(one) => taken.push((limit, one)),
            Err(_) if limit.spec.mode == Mode::Shadow => {
                limit.counts.shadowed.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) => {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                for (other, taken) in &taken {
                    other.refund(taken, clock).await;
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
