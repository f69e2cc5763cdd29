//! The endpoints of a moment, and the choice among them. This is the hot path: no lock, no allocation.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::balance::{Random, is_less_busy, smooth_cycle};
use super::breaker::Permit;
use super::endpoint::Endpoint;
use super::group::Lineage;
use super::guard::Guard;
use super::lease::{Lease, Tried, Unavailable};
use crate::config::{self, Balance, WhenAllDown};

/// Draws before the whole list is looked through; with half the endpoints out, 255 of 256 requests need no more.
const DRAWS: usize = 8;

/// How the choice is made, which a reload or a lookup does not change in passing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) balance: Balance,
    pub(super) cap: Option<NonZeroU32>,
    pub(super) when_all_down: WhenAllDown,
}

impl Rules {
    pub(super) fn of(spec: &config::Upstream) -> Self {
        let config::Upstream { balance, max_requests_per_endpoint: cap, when_all_down, .. } = *spec;
        Self { balance, cap, when_all_down }
    }
}

/// Immutable but for its counters; replaced as a whole when addresses or health change.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Box<[Arc<Endpoint>]>,
    rules: Rules,
    lineage: Arc<Lineage>,
    guard: Arc<Guard>,
    /// Places in `all` of those that were healthy when this was laid out: the round-robin cycle, or each once
    slots: Box<[u32]>,
    /// Turns taken
    turn: AtomicU64,
    random: Random,
}

/// What a request accepts, from the first wish to the last resort.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standard {
    /// Fit, above suspicion, not tried yet
    Good,
    /// Fit and not tried yet: healthy, and not ejected
    Fit,
    /// Not tried yet, whatever is said of it but that it is drained
    Any,
    /// Fit; tried, but it had taken the connection: where a pooled one broke, a new one may hold
    Again,
}

impl Endpoints {
    /// Lays out the turns over those of `all` that are healthy now. `turn` is how many were taken before.
    pub(super) fn new(
        all: Box<[Arc<Endpoint>]>,
        rules: Rules,
        (lineage, guard): (Arc<Lineage>, Arc<Guard>),
        turn: u64,
        seed: u64,
    ) -> Self {
        let healthy = || (0_u32..).zip(&*all).filter(|(_, endpoint)| endpoint.is_healthy());
        let places: Vec<u32> = healthy().map(|(place, _)| place).collect();
        let slots = match rules.balance {
            Balance::LeastRequest => places,
            Balance::RoundRobin => {
                let weights: Vec<u32> = healthy().map(|(_, endpoint)| endpoint.weight()).collect();
                smooth_cycle(&weights).into_iter().map(|slot| places[slot as usize]).collect()
            }
        };
        let (turn, random) = (AtomicU64::new(turn), Random::new(seed));
        Self { all, rules, lineage, guard, slots: slots.into(), turn, random }
    }

    /// The same endpoints, laid out for who is healthy now.
    pub(super) fn laid_out_again(&self, seed: u64) -> Self {
        let shared = (Arc::clone(&self.lineage), Arc::clone(&self.guard));
        Self::new(self.all.clone(), self.rules, shared, self.turn(), seed)
    }

    pub(super) fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Chooses and takes a place.
    pub(super) fn pick(&self, tried: &Tried, now: impl Fn() -> Instant + Copy) -> Result<Lease, Unavailable> {
        self.choose(tried, now).inspect_err(|why| self.lineage.counters.refused(*why))
    }

    /// The same for somebody who can do without.
    pub(super) fn choose(&self, tried: &Tried, now: impl Fn() -> Instant + Copy) -> Result<Lease, Unavailable> {
        let Some(breaker) = &self.guard.breaker else {
            let endpoint = self.take(tried, now).ok_or_else(|| self.why_not(tried, now))?;
            return Ok(Lease::new(endpoint, Permit::Usual));
        };
        let permit = breaker.admit(now).ok_or(Unavailable::BreakerOpen)?;
        match self.take(tried, now) {
            Some(endpoint) => Ok(Lease::new(endpoint, permit)),
            None => {
                breaker.give_back(permit);
                Err(self.why_not(tried, now))
            }
        }
    }

    /// Takes a place at the best there is.
    fn take(&self, tried: &Tried, now: impl Fn() -> Instant + Copy) -> Option<Arc<Endpoint>> {
        for standard in [Standard::Good, Standard::Fit, Standard::Any, Standard::Again] {
            let skipped = match standard {
                Standard::Good | Standard::Fit => false,
                Standard::Any => self.rules.when_all_down == WhenAllDown::Refuse,
                Standard::Again => tried.is_empty(),
            };
            if skipped {
                continue;
            }
            // A place may be gone between looking and taking, but then somebody else got on: this ends.
            while let Some(endpoint) = self.draw(|endpoint| self.is_open(endpoint, standard, tried, now)) {
                if endpoint.take(self.rules.cap, standard != Standard::Good, now) {
                    return Some(Arc::clone(endpoint));
                }
            }
        }
        None
    }

    fn is_open(
        &self,
        endpoint: &Arc<Endpoint>,
        standard: Standard,
        tried: &Tried,
        now: impl Fn() -> Instant + Copy,
    ) -> bool {
        let tried_before = match tried.failure_at(endpoint.state()) {
            None => true,
            Some(failure) => failure.allows_again() && standard == Standard::Again,
        };
        tried_before
            && (is_fit(endpoint, now) || (standard == Standard::Any && !endpoint.is_drained()))
            && endpoint.has_room(self.rules.cap)
            && (standard != Standard::Good || endpoint.permits(now))
    }

    /// The balance's choice among those that are open.
    fn draw(&self, is_open: impl Fn(&Arc<Endpoint>) -> bool) -> Option<&Arc<Endpoint>> {
        match self.rules.balance {
            Balance::RoundRobin => self.draw_in_turn(is_open),
            Balance::LeastRequest => self.draw_less_busy(is_open),
        }
    }

    /// Whose turn it is; if that one is closed, its share goes to the others by their weights, not to its neighbour.
    fn draw_in_turn(&self, is_open: impl Fn(&Arc<Endpoint>) -> bool) -> Option<&Arc<Endpoint>> {
        if !self.slots.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.slots.len() as u64;
            let next = self.at(turn as usize);
            if is_open(next) {
                return Some(next);
            }
            for _ in 0..DRAWS {
                let other = self.at(self.random.below(self.slots.len(), 1).0);
                if is_open(other) {
                    return Some(other);
                }
            }
        }
        let start = self.random.below(self.all.len().max(1), 1).0;
        let (before, after) = self.all.split_at(start.min(self.all.len()));
        after.iter().chain(before).find(|endpoint| is_open(endpoint))
    }

    /// The less busy of two different ones; if chance finds none that is open, the least busy of all that are.
    fn draw_less_busy(&self, is_open: impl Fn(&Arc<Endpoint>) -> bool) -> Option<&Arc<Endpoint>> {
        let count = self.slots.len();
        if count > 1 {
            for _ in 0..DRAWS {
                let (first, step) = self.random.below(count, count - 1);
                let pair = [self.at(first), self.at((first + 1 + step) % count)];
                if let Some(endpoint) = least_busy(pair.into_iter().filter(|endpoint| is_open(endpoint))) {
                    return Some(endpoint);
                }
            }
        }
        least_busy(self.all.iter().filter(|endpoint| is_open(endpoint)))
    }

    fn at(&self, slot: usize) -> &Arc<Endpoint> {
        &self.all[self.slots[slot] as usize]
    }

    /// The reason that helps the operator most.
    fn why_not(&self, tried: &Tried, now: impl Fn() -> Instant + Copy) -> Unavailable {
        let mut why = Unavailable::NoHealthyEndpoint;
        let tries_all = self.rules.when_all_down == WhenAllDown::Try;
        for endpoint in
            self.all.iter().filter(|endpoint| is_fit(endpoint, now) || (tries_all && !endpoint.is_drained()))
        {
            match tried.failure_at(endpoint.state()) {
                Some(failure) if !failure.allows_again() => why = Unavailable::AllTried,
                Some(_) | None => return Unavailable::EndpointsBusy,
            }
        }
        why
    }
}

/// Healthy and not ejected.
fn is_fit(endpoint: &Endpoint, now: impl Fn() -> Instant + Copy) -> bool {
    endpoint.is_healthy() && !endpoint.is_ejected(now)
}

/// The least busy; of equals the first.
fn least_busy<'a>(endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) -> Option<&'a Arc<Endpoint>> {
    let load = |endpoint: &Arc<Endpoint>| (endpoint.in_flight(), endpoint.weight());
    endpoints.reduce(|best, next| if is_less_busy(load(next), load(best)) { next } else { best })
}
