//! How much a caller may: rates (GCRA) and requests in flight, exact per key, bounded in memory.
//!
//! A stage of several limits is taken in two steps: each is reserved in turn, and a refusal by one gives back what the
//! others took. So refused requests consume nothing, and the order in which limits are named does not matter.

mod adaptive;
mod answer;
mod concurrency;
mod gate;
mod key;
mod rate;
mod store;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use self::adaptive::{Found, Sample};
use self::answer::Policy;
pub use self::answer::{Admission, Refusal};
use self::concurrency::{Concurrency, Permit};
pub use self::gate::{AdaptiveStats, QueueStats};
use self::gate::{Gates, Place};
use self::key::{Key, Seed};
use self::rate::{Decision, Rate};
use self::store::{Fleet, Ticket, Verdict};
pub use self::store::{Links, StoreStats};
use super::Facts;
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
    Concurrency(Arc<Concurrency>),
    Gates(Arc<Gates>),
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
    Fleet { ticket: Ticket, remaining: u32, reset: u64 },
    Permit { permit: Permit, remaining: u32 },
    Place { place: Place, remaining: u32 },
    Uncounted,
}

/// Why one limit refused: how long until it would not.
struct Refused {
    seconds: u64,
}

/// The order in which they are asked: whoever would wait in a line is asked last, so that nobody waits only to be
/// refused by another. Those are asked in the order of their names, whatever a route says: two requests that each hold
/// what the other waits for would wait for ever.
pub fn arranged(limits: impl Iterator<Item = Arc<Limit>>) -> Vec<Arc<Limit>> {
    let mut limits: Vec<_> = limits.collect();
    limits.sort_by_key(|limit| limit.spec.queue.map(|_| limit.name.clone()));
    limits
}

impl Limit {
    /// An empty meter. A store is asked once [`tasks`](Self::tasks) run; `links` are the connections there are.
    ///
    /// # Errors
    /// A store that cannot be connected to as it says.
    pub fn build(name: &Name, spec: &config::Limit, links: &Links) -> Result<Self, Problem> {
        let meter = match (spec.kind, spec.queue) {
            (LimitKind::Rate { rate, burst }, _) => Meter::Rate(Rate::new(rate, burst, spec.max_keys)),
            (LimitKind::Concurrent(max), None) => Meter::Concurrency(Arc::new(Concurrency::new(max, spec.max_keys))),
            (LimitKind::Concurrent(max), queue) => {
                Meter::Gates(Arc::new(Gates::fixed(max.get(), queue, spec.max_keys)))
            }
            (LimitKind::Adaptive { min, max }, queue) => {
                Meter::Gates(Arc::new(Gates::adaptive((min.get(), max.get()), queue, spec.max_keys)))
            }
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
            Meter::Concurrency(concurrency) => concurrency.stats(),
            Meter::Gates(gates) => gates.stats(),
        };
        let keys = keys + self.fleet.as_ref().map_or(0, |fleet| fleet.keys());
        Stats {
            allowed: self.counts.allowed.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            shadowed: self.counts.shadowed.load(Ordering::Relaxed),
            keys,
            evicted,
            full,
        }
    }

    /// Whether requests may wait in a line of its.
    pub fn may_wait(&self) -> bool {
        self.spec.queue.is_some()
    }

    /// How waiting goes, where one may wait.
    pub fn queue(&self) -> Option<QueueStats> {
        match &self.meter {
            Meter::Gates(gates) => gates.queue_stats(),
            Meter::Rate(_) | Meter::Concurrency(_) => None,
        }
    }

    /// What it has found, where it finds something.
    pub fn found(&self) -> Option<AdaptiveStats> {
        match &self.meter {
            Meter::Gates(gates) => gates.adaptive_stats(),
            Meter::Rate(_) | Meter::Concurrency(_) => None,
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
            Meter::Gates(gates) => match gates.enter(key, now) {
                gate::Entry::Allow { place, remaining } => Ok(Taken::Place { place, remaining }),
                gate::Entry::Refuse => Err(Refused { seconds: 1 }),
                gate::Entry::Full => self.when_full(),
            },
        }
    }

    /// Waits for what could not be had at once, where that is allowed. `waited` grows by the time it takes.
    async fn wait(&self, facts: &Facts<'_>, waited: &mut Duration) -> Result<Taken, Refused> {
        let (Meter::Gates(gates), Some(queue)) = (&self.meter, self.spec.queue) else {
            return Err(Refused { seconds: 1 });
        };
        let begin = Instant::now();
        let came = gates.wait(self.seed.key(&self.spec.key, facts), queue, begin).await;
        *waited += begin.elapsed();
        came.map(|(place, remaining)| Taken::Place { place, remaining }).map_err(|_| Refused { seconds: 1 })
    }

    /// The same where a store decides.
    async fn reserve_of(&self, fleet: &Fleet, facts: &Facts<'_>, now: Instant) -> Result<Taken, Refused> {
        match fleet.take(facts).await {
            Verdict::Allow { ticket, remaining, reset } => Ok(Taken::Fleet { ticket, remaining, reset }),
            Verdict::Refuse { seconds } => Err(Refused { seconds }),
            Verdict::Failed(OnStoreFailure::Local) => self.reserve(facts, now),
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
    async fn refund(&self, taken: &Taken) {
        match (&self.meter, &self.fleet, taken) {
            (Meter::Rate(rate), _, Taken::Rate { key, .. }) => rate.give_back(*key),
            // Boxed, so that requests without a store do not carry the room for it.
            (_, Some(fleet), Taken::Fleet { ticket, .. }) => Box::pin(fleet.give_back(*ticket)).await,
            _ => {}
        }
    }
}

/// Takes from every limit of a stage, [arranged] as they are, or from none. Waits for stores, and where there is a
/// line: other limits of this gateway decide at once. `waited` grows by the time spent in lines.
///
/// Whoever waits is in flight for the limits that have let him pass, and has spent what they took: a client cannot have
/// more requests in our lines than it may have at once. Who is refused in the end has all of it given back.
///
/// # Errors
/// The first limit that refuses.
pub async fn admit(
    limits: &[Arc<Limit>],
    facts: &Facts<'_>,
    now: Instant,
    waited: &mut Duration,
) -> Result<Admission, Refusal> {
    let mut taken: Vec<(&Arc<Limit>, Taken)> = Vec::with_capacity(limits.len());
    for limit in limits {
        let mut reserved = match &limit.fleet {
            None => limit.reserve(facts, now),
            Some(fleet) => Box::pin(limit.reserve_of(fleet, facts, now)).await,
        };
        if reserved.is_err() && limit.spec.queue.is_some() && limit.spec.mode == Mode::Enforce {
            // Boxed, so that requests that do not wait do not carry the room for it.
            reserved = Box::pin(limit.wait(facts, waited)).await;
        }
        match reserved {
            Ok(one) => taken.push((limit, one)),
            Err(_) if limit.spec.mode == Mode::Shadow => {
                limit.counts.shadowed.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) => {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                for (other, taken) in &taken {
                    other.refund(taken).await;
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
