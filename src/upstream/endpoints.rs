//! The endpoints of a moment, and the choice among them. This is the hot path: no lock, no allocation.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::balance::{Bond, Draw, Method, Random, Tag, Tier, Wish, ends, mix};
use super::breaker::Permit;
use super::endpoint::Endpoint;
use super::group::Lineage;
use super::guard::Guard;
use super::lease::{Lease, Tried, Unavailable};
use crate::config::{self, WhenAllDown};

/// How the choice is made, which a reload or a lookup does not change in passing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) method: Method,
    pub(super) cap: Option<NonZeroU32>,
    pub(super) slow_start: Option<Duration>,
    pub(super) when_all_down: WhenAllDown,
}

impl Rules {
    pub(super) fn of(spec: &config::Upstream) -> Self {
        let config::Upstream { max_requests_per_endpoint: cap, slow_start, when_all_down, .. } = *spec;
        Self { method: Method::of(spec), cap, slow_start, when_all_down }
    }

    /// How long a latency is remembered, where it decides.
    pub(super) fn decay(&self) -> Option<Duration> {
        match self.method {
            Method::PeakEwma { decay } => Some(decay),
            _ => None,
        }
    }

    /// Whether the choice depends on all requests in flight.
    pub(super) fn is_bounded(&self) -> bool {
        matches!(self.method, Method::ConsistentHash { factor: Some(_), .. })
    }
}

/// Immutable but for its counters; replaced as a whole when addresses or health change.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Box<[Arc<Endpoint>]>,
    rules: Rules,
    lineage: Arc<Lineage>,
    guard: Arc<Guard>,
    /// By priority, those of this gateway's zone first
    tiers: Box<[Tier]>,
    /// Where the share of each tier ends, of 2^32
    ends: Box<[u64]>,
    /// Where clients are bound to endpoints: who each tag stands for, by tag
    tags: Box<[(Tag, u32)]>,
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
    /// Lays out the turns over those of `all` that are healthy now. They go on where those of `before` are.
    pub(super) fn new(
        all: Box<[Arc<Endpoint>]>,
        rules: Rules,
        (lineage, guard): (Arc<Lineage>, Arc<Guard>),
        before: Option<&Self>,
        seed: u64,
    ) -> Self {
        let now = Instant::now();
        all.iter().for_each(|endpoint| endpoint.grow(rules.slow_start, now));
        let mut keys: Vec<_> = all.iter().map(|endpoint| endpoint.tier()).collect();
        keys.sort_unstable_by_key(|(priority, is_near)| (*priority, !is_near));
        keys.dedup();
        let tier = |key: (u8, bool)| {
            let members = (0_u32..).zip(&*all).filter(|(_, endpoint)| endpoint.tier() == key).map(|(place, _)| place);
            let before = before.and_then(|before| before.tiers.iter().find(|tier| tier.key() == key));
            Tier::new(key, members.collect(), &all, rules.method, before)
        };
        let tiers: Box<[_]> = keys.into_iter().map(tier).collect();
        let ends = ends(&tiers.iter().map(Tier::weights).collect::<Vec<_>>()).into();
        let mut tags: Vec<_> =
            (0_u32..).zip(&*all).filter_map(|(place, endpoint)| Some((endpoint.tag()?, place))).collect();
        tags.sort_unstable();
        Self { all, rules, lineage, guard, tiers, ends, tags: tags.into(), random: Random::new(seed) }
    }

    /// The same endpoints, laid out for who is healthy now, and how warm.
    pub(super) fn laid_out_again(&self, seed: u64) -> Self {
        let shared = (Arc::clone(&self.lineage), Arc::clone(&self.guard));
        Self::new(self.all.clone(), self.rules, shared, Some(self), seed)
    }

    /// Whether somebody is warmer than it was.
    pub(super) fn is_outdated(&self, now: Instant) -> bool {
        self.all.iter().any(|endpoint| endpoint.has_grown(self.rules.slow_start, now))
    }

    /// Requests in flight at all endpoints, where that decides.
    pub(super) fn load(&self) -> u32 {
        if self.rules.is_bounded() { self.lineage.in_flight.load(Ordering::Relaxed) } else { 0 }
    }

    pub(super) fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Chooses and takes a place.
    pub(super) fn pick(
        &self,
        tried: &Tried,
        wish: Wish,
        now: impl Fn() -> Instant + Copy,
    ) -> Result<Lease, Unavailable> {
        self.choose(tried, wish, now).inspect_err(|why| self.lineage.counters.refused(*why))
    }

    /// The same for somebody who can do without.
    pub(super) fn choose(
        &self,
        tried: &Tried,
        wish: Wish,
        now: impl Fn() -> Instant + Copy,
    ) -> Result<Lease, Unavailable> {
        let permit = match &self.guard.breaker {
            Some(breaker) => breaker.admit(now).ok_or(Unavailable::BreakerOpen)?,
            None => Permit::Usual,
        };
        if let Some((endpoint, is_away)) = self.take(tried, wish, now) {
            let timed = self.rules.decay().map(|decay| (now(), decay));
            return Ok(Lease::new(Arc::clone(endpoint), permit, timed, self.rules.is_bounded(), is_away));
        }
        if let Some(breaker) = &self.guard.breaker {
            breaker.give_back(permit);
        }
        Err(self.why_not(tried, now))
    }

    /// Takes a place at the best there is, and says whether its client is only away from the endpoint it is bound to.
    fn take(&self, tried: &Tried, wish: Wish, now: impl Fn() -> Instant + Copy) -> Option<(&Arc<Endpoint>, bool)> {
        let mut is_away = false;
        if let Some(endpoint) = wish.bond.and_then(|bond| self.bonded(bond)) {
            if self.is_open(endpoint, Standard::Good, tried, now) && endpoint.take(self.rules.cap, false, now) {
                return Some((endpoint, false));
            }
            is_away = !endpoint.has_room(self.rules.cap) && self.is_accepted(endpoint, Standard::Good, tried, now);
        }
        let first = self.first_tier(wish);
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
            while let Some(endpoint) =
                self.draw(first, wish, now, |endpoint| self.is_open(endpoint, standard, tried, now))
            {
                if endpoint.take(self.rules.cap, standard != Standard::Good, now) {
                    return Some((endpoint, is_away));
                }
            }
        }
        None
    }

    /// The endpoint that a client was at, if it is still there.
    fn bonded(&self, bond: Bond) -> Option<&Arc<Endpoint>> {
        let found = self.tags.binary_search_by_key(&bond.tag, |(tag, _)| *tag).ok()?;
        Some(&self.all[self.tags[found].1 as usize])
    }

    /// Whose share of the traffic a request belongs to: by chance, or by its key, so that a key stays where it is.
    fn first_tier(&self, wish: Wish) -> usize {
        if self.tiers.len() < 2 {
            return 0;
        }
        let number = wish.key.map_or_else(|| self.random.next(), mix) >> 32;
        self.ends.iter().position(|end| number < *end).unwrap_or(0)
    }

    /// The choice of the `first` tier, or of the next one that has any.
    fn draw<N: Fn() -> Instant + Copy>(
        &self,
        first: usize,
        wish: Wish,
        now: N,
        is_open: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let draw = Draw { all: &self.all, random: &self.random, key: wish.key, in_flight: self.load(), now };
        let others = self.tiers.iter().enumerate().filter(|(index, _)| *index != first).map(|(_, tier)| tier);
        let mut tiers = self.tiers.get(first).into_iter().chain(others);
        tiers.find_map(|tier| tier.draw(&draw, self.rules.method, &is_open))
    }

    fn is_open(
        &self,
        endpoint: &Arc<Endpoint>,
        standard: Standard,
        tried: &Tried,
        now: impl Fn() -> Instant + Copy,
    ) -> bool {
        endpoint.has_room(self.rules.cap) && self.is_accepted(endpoint, standard, tried, now)
    }

    /// Whether it could be used if it had room.
    fn is_accepted(
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
            && (standard != Standard::Good || endpoint.permits(now))
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
