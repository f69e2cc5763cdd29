//! How much a caller may: rates (GCRA), quotas of the calendar and requests in flight, exact per key, bounded in memory.
//!
//! A stage of several limits is taken in two steps: each is reserved in turn, and a refusal by one gives back what the
//! others took. So refused requests consume nothing, and the order in which limits are named does not matter.

mod adaptive;
mod answer;
mod concurrency;
mod cost;
mod flood;
mod gate;
mod key;
mod names;
mod quota;
mod rate;
mod store;
mod table;

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use self::adaptive::{Found, Sample};
use self::answer::Policy;
pub use self::answer::{Admission, Refusal};
use self::concurrency::{Concurrency, Permit};
pub use self::flood::Flood;
pub use self::gate::{AdaptiveStats, QueueStats};
use self::gate::{Gates, Place};
use self::key::{Key, Partition, Seed};
use self::names::Names;
use self::quota::Quota;
use self::rate::{Decision, Rate};
use self::store::{Fleet, Terms, Ticket, Verdict};
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
    /// Where operators may see what keys stand for
    names: Option<Names>,
}

#[derive(Debug)]
enum Meter {
    Rate(Rate),
    Quota(Quota),
    Concurrency(Arc<Concurrency>),
    Gates(Arc<Gates>),
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

/// What the limits of a request have to say to its operator.
#[derive(Debug, Default)]
pub struct Notes {
    /// Which refused it
    pub refused_by: Option<Name>,
    /// Which would have, were they not in mode `shadow`
    pub shadowed_by: Vec<Name>,
    /// How long it stood in lines
    pub waited: Duration,
}

/// A key that has taken much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// What it stands for where that is shown and known, else its hash, which is another one in the next process
    pub key: String,
    /// How much of `most` is taken
    pub used: u64,
    /// What there is when nothing is
    pub most: u32,
}

/// What one limit gave: to be kept, or given back.
#[derive(Debug)]
enum Taken {
    Local {
        key: Key,
        cost: NonZeroU32,
        mark: u64,
        remaining: u32,
        reset: u64,
    },
    Fleet {
        ticket: Ticket,
        remaining: u32,
        reset: u64,
    },
    Permit {
        _permit: Permit,
        remaining: u32,
    },
    /// Given back when the limit has been told enough; nothing remains to be told of where it finds itself
    Place {
        place: Option<Place>,
        remaining: Option<u32>,
    },
    Uncounted,
}

impl Taken {
    fn remaining(&self) -> Option<u32> {
        match self {
            Self::Local { remaining, .. } | Self::Fleet { remaining, .. } | Self::Permit { remaining, .. } => {
                Some(*remaining)
            }
            Self::Place { remaining, .. } => *remaining,
            Self::Uncounted => None,
        }
    }

    /// Seconds until all is there again, where time brings it.
    fn reset(&self) -> Option<u64> {
        match self {
            Self::Local { reset, .. } | Self::Fleet { reset, .. } => Some(*reset),
            Self::Permit { .. } | Self::Place { .. } | Self::Uncounted => None,
        }
    }
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
            (LimitKind::Quota { count, period }, _) => Meter::Quota(Quota::new(count, period, spec.max_keys)),
            (LimitKind::Concurrent(max), None) => Meter::Concurrency(Arc::new(Concurrency::new(max, spec.max_keys))),
            (LimitKind::Concurrent(max), queue) => {
                Meter::Gates(Arc::new(Gates::fixed(max.get(), queue, spec.max_keys)))
            }
            (LimitKind::Adaptive { min, max }, queue) => {
                Meter::Gates(Arc::new(Gates::adaptive((min.get(), max.get()), queue, spec.max_keys)))
            }
        };
        let terms = match (&meter, spec.kind) {
            (Meter::Rate(rate), _) => {
                let (interval, burst) = rate.terms();
                Some(Terms::Rate { interval, burst })
            }
            (_, LimitKind::Quota { count, period }) => Some(Terms::Quota { count: count.get(), period }),
            _ => None,
        };
        let fleet = match spec.store.as_ref().zip(terms) {
            Some((store, terms)) => Some(Arc::new(Fleet::build(name, spec, store, terms, links)?)),
            None => None,
        };
        Ok(Self {
            name: name.clone(),
            policy: Policy::new(name, spec.kind),
            spec: spec.clone(),
            seed: Seed::new(),
            meter,
            fleet,
            counts: Counts::default(),
            names: spec.show_keys.then(Names::default),
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

    /// How many keys it tracks at most.
    pub fn max_keys(&self) -> usize {
        self.spec.max_keys.get()
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
            Meter::Gates(gates) => gates.stats(),
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

    /// Whether requests may wait in a line of its.
    pub fn may_wait(&self) -> bool {
        self.spec.queue.is_some()
    }

    /// How waiting goes, where one may wait.
    pub fn queue(&self) -> Option<QueueStats> {
        self.gates()?.queue_stats()
    }

    /// What it has found, where it finds something.
    pub fn found(&self) -> Option<AdaptiveStats> {
        self.gates()?.adaptive_stats()
    }

    fn gates(&self) -> Option<&Gates> {
        match &self.meter {
            Meter::Gates(gates) => Some(gates),
            Meter::Rate(_) | Meter::Quota(_) | Meter::Concurrency(_) => None,
        }
    }

    fn reserve(&self, facts: &Facts<'_>, clock: Clock) -> Result<Taken, Refused> {
        let key = self.seed.key(&self.spec.key, facts);
        let cost = self.cost(facts);
        match &self.meter {
            Meter::Rate(rate) => self.taken(key, cost, facts, rate.take(key, cost, clock.steady)),
            Meter::Quota(quota) => self.taken(key, cost, facts, quota.take(key, cost, clock.wall)),
            Meter::Concurrency(concurrency) => match concurrency.enter(key) {
                concurrency::Entry::Allow { permit, remaining } => Ok(Taken::Permit { _permit: permit, remaining }),
                // Nobody knows when a request ends; a second is the shortest wait the field can say.
                concurrency::Entry::Refuse => Err(Refused { seconds: 1 }),
                concurrency::Entry::Full => self.when_full(),
            },
            Meter::Gates(gates) => match gates.enter(key, clock.steady) {
                gate::Entry::Allow { place, remaining } => Ok(self.placed(place, remaining)),
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
        came.map(|(place, remaining)| self.placed(place, remaining)).map_err(|_| Refused { seconds: 1 })
    }

    /// What is found is another number the next moment: nothing that a client could plan by, nor how near it is.
    fn placed(&self, place: Place, remaining: u32) -> Taken {
        let is_found = matches!(self.spec.kind, LimitKind::Adaptive { .. });
        Taken::Place { place: Some(place), remaining: (!is_found).then_some(remaining) }
    }

    fn taken(&self, key: Key, cost: NonZeroU32, facts: &Facts<'_>, decision: Decision) -> Result<Taken, Refused> {
        if let Some(names) = &self.names
            && !matches!(decision, Decision::Allow { remaining, .. } if !self.is_near(remaining))
        {
            names.remember(key, &self.spec.key, facts);
        }
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

    /// A request has passed, and left so much.
    fn count_allowed(&self, remaining: Option<u32>) {
        self.counts.allowed.fetch_add(1, Ordering::Relaxed);
        if remaining.is_some_and(|remaining| self.is_near(remaining)) {
            self.counts.near.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Less than a tenth is left.
    fn is_near(&self, remaining: u32) -> bool {
        u64::from(remaining) * 10 < u64::from(self.most().get())
    }

    /// By what the request is counted, for clients that are told; the same hash for the same key, and for nobody to
    /// find out what it is of.
    fn partition(&self, facts: &Facts<'_>) -> Option<Partition> {
        match &self.fleet {
            Some(fleet) => fleet.partition(facts),
            None => self.spec.partition_key.then(|| self.seed.partition(&self.spec.key, facts)),
        }
    }

    /// The keys that have taken most, at most `count`. Looks through all of them, a shard at a time: for a person who
    /// asks.
    pub fn busiest(&self, count: usize) -> Vec<Busy> {
        let busiest = match &self.meter {
            Meter::Rate(rate) => rate.busiest(count, Instant::now()),
            Meter::Quota(quota) => quota.busiest(count),
            Meter::Concurrency(_) | Meter::Gates(_) => Vec::new(),
        };
        let name = |key: Key| self.names.as_ref().and_then(|names| names.find(key)).unwrap_or_else(|| key.to_string());
        busiest.into_iter().map(|(key, used)| Busy { key: name(key), used, most: self.most().get() }).collect()
    }

    /// What there is when nothing is taken.
    fn most(&self) -> NonZeroU32 {
        match self.spec.kind {
            LimitKind::Rate { burst, .. } => burst,
            LimitKind::Quota { count, .. } => count,
            LimitKind::Concurrent(max) | LimitKind::Adaptive { max, .. } => max,
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

/// Takes from every limit of a stage, [arranged] as they are, or from none. Waits for stores, and where there is a
/// line: other limits of this gateway decide at once.
///
/// Whoever waits is in flight for the limits that have let him pass, and has spent what they took: a client cannot have
/// more requests in our lines than it may have at once. Who is refused in the end has all of it given back.
///
/// # Errors
/// The first limit that refuses.
pub async fn admit(
    limits: &[Arc<Limit>],
    facts: &Facts<'_>,
    clock: Clock,
    notes: &mut Notes,
) -> Result<Admission, Refusal> {
    let mut admission = Admission::of(limits.len());
    for limit in limits {
        let mut reserved = match &limit.fleet {
            None => limit.reserve(facts, clock),
            Some(fleet) => Box::pin(limit.reserve_of(fleet, facts, clock)).await,
        };
        if reserved.is_err() && limit.spec.queue.is_some() && limit.spec.mode == Mode::Enforce {
            // Boxed, so that requests that do not wait do not carry the room for it.
            reserved = Box::pin(limit.wait(facts, &mut notes.waited)).await;
        }
        match reserved {
            Ok(taken) => admission.add(limit, taken),
            Err(_) if limit.spec.mode == Mode::Shadow => {
                limit.counts.shadowed.fetch_add(1, Ordering::Relaxed);
                notes.shadowed_by.push(limit.name.clone());
            }
            Err(refused) => {
                limit.counts.refused.fetch_add(1, Ordering::Relaxed);
                admission.refund(clock).await;
                notes.refused_by = Some(limit.name.clone());
                return Err(Refusal::new(Arc::clone(limit), refused.seconds, limit.partition(facts)));
            }
        }
    }
    admission.pass(facts);
    Ok(admission)
}

#[cfg(test)]
mod tests;
