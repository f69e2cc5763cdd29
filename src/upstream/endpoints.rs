//! The endpoints of a moment, and the choice among them. This is the hot path: no lock, no allocation.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::balance::{Random, is_less_busy, smooth_cycle};
use super::endpoint::Endpoint;
use super::group::Lineage;
use super::lease::{Lease, Tried, Unavailable};
use super::retry::Failure;
use crate::config::{self, Balance};

/// Draws before the whole list is looked through; with half the endpoints out, 255 of 256 requests need no more.
const DRAWS: usize = 8;

/// How the choice is made, which a reload or a lookup does not change in passing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) balance: Balance,
    pub(super) cap: Option<NonZeroU32>,
}

impl Rules {
    pub(super) fn of(spec: &config::Upstream) -> Self {
        Self { balance: spec.balance, cap: spec.max_requests_per_endpoint }
    }
}

/// Immutable but for its counters; replaced as a whole when addresses or health change.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Box<[Arc<Endpoint>]>,
    rules: Rules,
    lineage: Arc<Lineage>,
    /// Places in `all` of those that were healthy when this was laid out: the round-robin cycle, or each once
    slots: Box<[u32]>,
    /// Turns taken
    turn: AtomicU64,
    random: Random,
}

/// What a request accepts, from the first wish to the last resort.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standard {
    /// Healthy, above suspicion, not tried yet
    Good,
    /// Healthy and not tried yet
    Healthy,
    /// Healthy; tried, but it had taken the connection: where a pooled one broke, a new one may hold
    Again,
}

impl Endpoints {
    /// Lays out the turns over those of `all` that are healthy now. `turn` is how many were taken before.
    pub(super) fn new(all: Box<[Arc<Endpoint>]>, rules: Rules, lineage: Arc<Lineage>, turn: u64, seed: u64) -> Self {
        let healthy = || (0_u32..).zip(&*all).filter(|(_, endpoint)| endpoint.is_healthy());
        let places: Vec<u32> = healthy().map(|(place, _)| place).collect();
        let slots = match rules.balance {
            Balance::LeastRequest => places,
            Balance::RoundRobin => {
                let weights: Vec<u32> = healthy().map(|(_, endpoint)| endpoint.weight()).collect();
                smooth_cycle(&weights).into_iter().map(|slot| places[slot as usize]).collect()
            }
        };
        Self { all, rules, lineage, slots: slots.into(), turn: AtomicU64::new(turn), random: Random::new(seed) }
    }

    /// The same endpoints, laid out for who is healthy now.
    pub(super) fn laid_out_again(&self, seed: u64) -> Self {
        Self::new(self.all.clone(), self.rules, Arc::clone(&self.lineage), self.turn(), seed)
    }

    pub(super) fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    pub(super) fn lineage(&self) -> &Arc<Lineage> {
        &self.lineage
    }

    /// Chooses and takes a place.
    pub(super) fn pick(&self, tried: &Tried, now: impl Fn() -> Instant + Copy) -> Result<Lease, Unavailable> {
        for standard in [Standard::Good, Standard::Healthy, Standard::Again] {
            if standard == Standard::Again && tried.is_empty() {
                break;
            }
            // A place may be gone between looking and taking, but then somebody else got on: this ends.
            while let Some(endpoint) = self.draw(|endpoint| self.is_open(endpoint, standard, tried, now)) {
                if endpoint.take(self.rules.cap, standard != Standard::Good, now) {
                    return Ok(Lease::new(Arc::clone(endpoint)));
                }
            }
        }
        Err(self.why_not(tried))
    }

    fn is_open(&self, endpoint: &Arc<Endpoint>, standard: Standard, tried: &Tried, now: impl Fn() -> Instant) -> bool {
        let tried_before = match tried.failure_at(endpoint.state()) {
            None => true,
            Some(Failure::Refused | Failure::Reset) => standard == Standard::Again,
            Some(Failure::Connect) => false,
        };
        tried_before
            && endpoint.is_healthy()
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
    fn why_not(&self, tried: &Tried) -> Unavailable {
        let mut why = Unavailable::NoHealthyEndpoint;
        for endpoint in self.all.iter().filter(|endpoint| endpoint.is_healthy()) {
            match tried.failure_at(endpoint.state()) {
                Some(Failure::Connect) => why = Unavailable::AllTried,
                Some(Failure::Refused | Failure::Reset) | None => return Unavailable::EndpointsBusy,
            }
        }
        why
    }
}

/// The least busy; of equals the first.
fn least_busy<'a>(endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) -> Option<&'a Arc<Endpoint>> {
    let load = |endpoint: &Arc<Endpoint>| (endpoint.in_flight(), endpoint.weight());
    endpoints.reduce(|best, next| if is_less_busy(load(next), load(best)) { next } else { best })
}
