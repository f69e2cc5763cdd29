//! One budget for a fleet of gateways, kept by a Redis server.
//!
//! `strict` asks it for each request; `batched` leases shares. Either way the server decides by its own clock, in one
//! atomic step. Where it gives no good answer in time, `on_store_failure` decides, and nobody else waits.

mod connect;
mod key;
mod lease;
mod link;
mod measured;
mod partition;
mod script;
mod sentinel;
mod terms;
mod tls;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::key::{Hash, Keys};
use self::lease::{Leases, Spend};
use self::link::{Failure, Link};
use self::partition::Partitions;
pub(super) use self::terms::Terms;
use self::terms::{Answer, Standing};
use super::key::Partition;
use super::rate::seconds;
use crate::config::{self, Name, OnStoreFailure, Problem, RedisServer, StoreMode};
use crate::filter::Facts;

/// What one limit has of a store.
#[derive(Debug)]
pub(super) struct Fleet {
    link: Arc<Link>,
    keys: Keys,
    terms: Terms,
    on_failure: OnStoreFailure,
    /// In `batched` alone
    leases: Option<Leases>,
    /// Where clients are told by which key they are counted
    partitions: Option<Partitions>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    timed_out: AtomicU64,
    refused: AtomicU64,
    down: AtomicU64,
}

/// How a limit gets on with its store, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Whether it answers
    pub is_up: bool,
    /// Questions by how they went; `down` were not asked, since it was known
    pub requests: [(&'static str, u64); 4],
}

/// What the store, or whoever stands in for it, says to one request.
#[derive(Debug)]
pub(super) enum Verdict {
    Allow {
        ticket: Ticket,
        remaining: u32,
        reset: u64,
    },
    Refuse {
        seconds: u64,
    },
    /// There is no answer
    Failed(OnStoreFailure),
}

/// What a request has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    hash: Hash,
    cost: u32,
    /// Of a quota, in which period
    ends: u64,
}

/// The connections of a configuration: limits that name the same server, in the same way, share one.
#[derive(Debug, Default)]
pub struct Links(Mutex<Vec<Arc<Link>>>);

impl Links {
    /// Those that these limits have.
    pub fn of<'a>(limits: impl Iterator<Item = &'a Arc<super::Limit>>) -> Self {
        Self(Mutex::new(limits.filter_map(|limit| Some(Arc::clone(&limit.fleet.as_ref()?.link))).collect()))
    }

    fn find(&self, server: &RedisServer) -> Result<Arc<Link>, Problem> {
        let mut links = self.0.lock();
        if let Some(link) = links.iter().find(|link| link.server() == server) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::build(server)?);
        links.push(Arc::clone(&link));
        Ok(link)
    }
}

impl Fleet {
    /// Connects to nothing before [`Self::tasks`] run.
    pub(super) fn build(
        name: &Name,
        spec: &config::Limit,
        store: &config::Store,
        terms: Terms,
        links: &Links,
    ) -> Result<Self, Problem> {
        let is_batched = store.mode == StoreMode::Batched;
        Ok(Self {
            link: links.find(&store.server)?,
            keys: Keys::new(name, &spec.key, terms),
            terms,
            on_failure: store.on_failure,
            leases: is_batched.then(|| Leases::new(terms, spec.max_keys)),
            partitions: spec.partition_key.then(Partitions::default),
            counts: Counts::default(),
        })
    }

    /// Takes `cost` from the budget of the fleet.
    pub(super) async fn take(&self, facts: &Facts<'_>, cost: NonZeroU32) -> Verdict {
        let (hash, cost) = (self.keys.hash(facts), cost.get());
        let Some(leases) = &self.leases else {
            return self.verdict(hash, cost, self.ask(hash, cost, cost).await);
        };
        let now = Instant::now();
        match leases.spend(hash, cost, now, self.link.server().timeout) {
            Spend::Paid(standing) => self.allow(hash, cost, standing),
            Spend::Refused(standing) => self.refuse(standing, cost),
            Spend::Alone => self.verdict(hash, cost, self.ask(hash, cost, cost).await),
            Spend::Lease(wanted) => {
                let answer = self.ask(hash, wanted, cost).await;
                match answer {
                    Ok(answer) => leases.leased(hash, answer, cost, now),
                    Err(_) => leases.failed(hash),
                }
                self.verdict(hash, cost, answer)
            }
        }
    }

    /// Another limit of the stage refuses: as if this one had not been asked.
    pub(super) async fn give_back(&self, Ticket { hash, cost, ends }: Ticket) {
        if self.leases.as_ref().is_some_and(|leases| leases.give_back(hash, cost, ends, Instant::now())) {
            return;
        }
        let given = self.link.give_back(&self.keys.text(&hash), self.terms, cost, ends).await;
        self.count(given.err());
    }

    /// What runs in the background: the connection, once for all limits that share it, giving back,
    /// and the seed of what clients are told.
    pub(super) fn tasks(self: &Arc<Self>) -> Vec<super::Task> {
        let mut tasks: Vec<super::Task> = Vec::new();
        if let Some(task) = self.link.task() {
            tasks.push(Box::pin(task));
        }
        if self.leases.is_some() {
            tasks.push(Box::pin(settle(Arc::downgrade(self))));
        }
        if self.partitions.is_some() {
            tasks.push(Box::pin(partition::follow(Arc::downgrade(self))));
        }
        tasks
    }

    pub(super) async fn settled(&self) {
        self.link.settled().await;
    }

    pub(super) fn stats(&self) -> StoreStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { answered, timed_out, refused, down } = &self.counts;
        StoreStats {
            is_up: self.link.is_up(),
            requests: [
                ("answered", count(answered)),
                ("timed_out", count(timed_out)),
                ("failed", count(refused)),
                ("down", count(down)),
            ],
        }
    }

    /// By what a caller is counted, for him to be told; nothing before that can be kept from others.
    pub(super) fn partition(&self, facts: &Facts<'_>) -> Option<Partition> {
        self.partitions.as_ref()?.of(&self.keys.hash(facts))
    }

    /// Keys of which a share is held here.
    pub(super) fn keys(&self) -> u64 {
        self.leases.as_ref().map_or(0, |leases| leases.keys() as u64)
    }

    async fn ask(&self, hash: Hash, wanted: u32, least: u32) -> Result<Answer, Failure> {
        let answer = self.link.take(&self.keys.text(&hash), self.terms, wanted, least).await;
        self.count(answer.err());
        answer
    }

    fn count(&self, failure: Option<Failure>) {
        let count = match failure {
            None => &self.counts.answered,
            Some(Failure::Down) => &self.counts.down,
            Some(Failure::TimedOut) => &self.counts.timed_out,
            Some(Failure::Refused) => &self.counts.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn verdict(&self, hash: Hash, cost: u32, answer: Result<Answer, Failure>) -> Verdict {
        match answer {
            Ok(Answer { granted: 0, standing }) => self.refuse(standing, cost),
            // What was granted besides is a share that is not spent yet.
            Ok(Answer { granted, standing }) => self.allow(hash, cost, standing.without(self.terms, granted - cost)),
            Err(_) => Verdict::Failed(self.on_failure),
        }
    }

    fn allow(&self, hash: Hash, cost: u32, standing: Standing) -> Verdict {
        Verdict::Allow {
            ticket: Ticket { hash, cost, ends: standing.ends },
            remaining: self.terms.remaining(standing.owed),
            reset: seconds(self.terms.reset(standing)),
        }
    }

    fn refuse(&self, standing: Standing, cost: u32) -> Verdict {
        Verdict::Refuse { seconds: seconds(self.terms.wait(standing, cost)) }
    }
}

/// Gives back what was leased and not spent, for as long as there is something.
async fn settle(fleet: Weak<Fleet>) {
    /// How often a quiet limit looks whether it is still wanted.
    const QUIET: Duration = Duration::from_secs(10);
    while let Some(strong) = fleet.upgrade() {
        let Some(leases) = &strong.leases else { return };
        if leases.keys() == 0 {
            // Too late is as good: then it is looked at once more.
            let _ = tokio::time::timeout(QUIET, leases.used()).await;
            continue;
        }
        for (hash, unspent, ends) in leases.sweep(Instant::now()) {
            let given = strong.link.give_back(&strong.keys.text(&hash), strong.terms, unspent, ends).await;
            strong.count(given.err());
        }
        drop(strong);
        tokio::time::sleep(lease::LIFE / 2).await;
    }
}

#[cfg(test)]
mod tests;
