//! Who is next: the ways of choosing among the endpoints of one tier.
//!
//! A [`Tier`] is laid out anew when addresses, health or weights change, by those who find out; a request only reads
//! it. So choosing takes no lock and no memory: a turn or a random number, two endpoints looked at, one taken.

mod cycle;
mod ewma;
mod random;
mod ring;
mod sticky;
mod tier;
mod warmth;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::cycle::smooth_cycle;
pub(super) use self::ewma::Ewma;
use self::random::Shares;
pub(super) use self::random::{Random, mix};
pub(super) use self::ring::{Density, seed_of};
use self::ring::{Member, Ring, bound};
pub(super) use self::sticky::Tag;
pub use self::sticky::{Bond, Sticky};
pub(super) use self::tier::{Weights, ends};
pub(super) use self::warmth::{Warmth, watch as warm_up};
use super::endpoint::Endpoint;
use crate::config::{self, Balance};

/// Draws before all endpoints are looked through; with half of them out, 255 of 256 requests need no more.
const DRAWS: usize = 8;

/// What a request would like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// The same endpoint as others with this key; of use to `consistent_hash` alone
    pub key: Option<u64>,
    /// The endpoint that its client was at
    pub bond: Option<Bond>,
}

/// How the choice is made, which a reload or a lookup does not change in passing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    RoundRobin,
    LeastRequest,
    PeakEwma { decay: Duration },
    Random,
    ConsistentHash { density: Density, factor: Option<u32> },
}

impl Method {
    pub(super) fn of(spec: &config::Upstream) -> Self {
        match &spec.balance {
            Balance::RoundRobin => Self::RoundRobin,
            Balance::LeastRequest => Self::LeastRequest,
            Balance::PeakEwma { decay } => Self::PeakEwma { decay: *decay },
            Balance::Random => Self::Random,
            Balance::ConsistentHash { factor, .. } => {
                let listed = spec.endpoints_file.iter().flat_map(|file| &file.endpoints);
                let weights = spec.endpoints.iter().chain(listed).map(|endpoint| endpoint.weight);
                let density = Density::for_weights(weights);
                Self::ConsistentHash { density, factor: *factor }
            }
        }
    }
}

/// Endpoints of one priority, of this gateway's zone or of the others.
#[derive(Debug)]
pub(super) struct Tier {
    priority: u8,
    is_near: bool,
    /// Those of all endpoints that are here
    members: Box<[u32]>,
    weights: Weights,
    layout: Layout,
    /// Turns taken
    turn: AtomicU64,
}

/// The order of those that were healthy when this was laid out.
#[derive(Debug)]
enum Layout {
    /// Places, as often as their weights say
    Cycle(Box<[u32]>),
    /// Places, and how they are drawn
    Drawn { places: Box<[u32]>, shares: Shares, pace: Option<Duration> },
    /// All of them: one that is not healthy leaves its keys to the next
    Ring { ring: Arc<Ring>, factor: Option<u32> },
}

/// What a tier chooses by, besides its own order.
pub(super) struct Draw<'a, N> {
    pub(super) all: &'a [Arc<Endpoint>],
    pub(super) random: &'a Random,
    pub(super) key: Option<u64>,
    /// Requests in flight at all endpoints, where the method needs to know
    pub(super) in_flight: u32,
    pub(super) now: N,
}

impl Tier {
    /// Lays out `members`, which are places in `all`. `before` is the same tier of the layout before.
    pub(super) fn new(
        (priority, is_near): (u8, bool),
        members: Vec<u32>,
        all: &[Arc<Endpoint>],
        method: Method,
        before: Option<&Self>,
    ) -> Self {
        let weight = |place: u32| all[place as usize].weight_now();
        let healthy: Vec<u32> = members.iter().copied().filter(|place| all[*place as usize].is_healthy()).collect();
        let total = |places: &[u32]| places.iter().map(|place| u64::from(all[*place as usize].weight())).sum();
        let weights = Weights { healthy: total(&healthy), all: total(&members) };
        let drawn = |pace| {
            let shares = Shares::new(&healthy.iter().map(|place| weight(*place)).collect::<Vec<_>>());
            Layout::Drawn { shares, places: healthy.clone().into(), pace }
        };
        let layout = match method {
            Method::LeastRequest | Method::Random => drawn(None),
            Method::PeakEwma { decay } => drawn(Some(decay)),
            Method::RoundRobin => {
                let cycle = smooth_cycle(&healthy.iter().map(|place| weight(*place)).collect::<Vec<_>>());
                Layout::Cycle(cycle.into_iter().map(|slot| healthy[slot as usize]).collect())
            }
            Method::ConsistentHash { density, factor } => {
                let member = |&place: &u32| Member { place, seed: all[place as usize].seed(), weight: weight(place) };
                let points: Vec<_> = members.iter().map(member).collect();
                let same = before.and_then(|before| match &before.layout {
                    Layout::Ring { ring, .. } if ring.is_for(&points) => Some(Arc::clone(ring)),
                    _ => None,
                });
                let ring = same.unwrap_or_else(|| Arc::new(Ring::new(&points, density)));
                Layout::Ring { ring, factor }
            }
        };
        let turn = AtomicU64::new(before.map_or(0, |before| before.turn.load(Ordering::Relaxed)));
        Self { priority, is_near, members: members.into(), weights, layout, turn }
    }

    pub(super) fn key(&self) -> (u8, bool) {
        (self.priority, self.is_near)
    }

    pub(super) fn weights(&self) -> Weights {
        self.weights
    }

    /// The method's choice among those that are open.
    pub(super) fn draw<'a, N: Fn() -> Instant>(
        &self,
        by: &Draw<'a, N>,
        method: Method,
        is_open: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        match &self.layout {
            Layout::Cycle(cycle) => self.in_turn(cycle, by, is_open),
            Layout::Drawn { places, shares, pace: None } if matches!(method, Method::Random) => {
                let drawn = |_| Some(at(by.all, places[shares.draw(by.random.next())])).filter(|drawn| is_open(drawn));
                let drawn = if places.is_empty() { None } else { (0..DRAWS).find_map(drawn) };
                drawn.or_else(|| self.any(by, is_open))
            }
            Layout::Drawn { places, shares, pace: None } => {
                let load = |endpoint: &Arc<Endpoint>| (endpoint.in_flight(), endpoint.weight_now());
                let is_relief = |first: &Arc<Endpoint>, second: &Arc<Endpoint>| is_relief(load(first), load(second));
                self.of_two(by, (places, shares), is_relief, &is_open)
                    .or_else(|| self.best(by, is_open, |best, next| is_less_busy(load(next), load(best))))
            }
            Layout::Drawn { places, shares, pace: Some(decay) } => {
                let now = (by.now)();
                let pace = |endpoint: &Arc<Endpoint>| Pace::of(endpoint, now, *decay);
                let is_relief = |first: &Arc<Endpoint>, second: &Arc<Endpoint>| pace(first).yields_to(pace(second));
                self.of_two(by, (places, shares), is_relief, &is_open)
                    .or_else(|| self.best(by, is_open, |best, next| pace(best).yields_to(pace(next))))
            }
            Layout::Ring { ring, factor } => {
                let key = by.key.unwrap_or_else(|| by.random.next());
                let open = |place| is_open(at(by.all, place));
                let bounded = factor.and_then(|factor| {
                    let has_room = |place| {
                        let endpoint = at(by.all, place);
                        let bound = bound(factor, by.in_flight, endpoint.weight(), self.weights.healthy);
                        endpoint.in_flight() < bound
                    };
                    ring.find(key, |place| has_room(place) && open(place))
                });
                bounded.or_else(|| ring.find(key, open)).map(|place| at(by.all, place))
            }
        }
    }

    /// Whose turn it is; if that one is closed, its share goes to the others by their weights, not to its neighbour.
    fn in_turn<'a, N>(
        &self,
        cycle: &[u32],
        by: &Draw<'a, N>,
        is_open: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        if !cycle.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % cycle.len() as u64;
            let next = at(by.all, cycle[turn as usize]);
            if is_open(next) {
                return Some(next);
            }
            for _ in 0..DRAWS {
                let other = at(by.all, cycle[by.random.below(cycle.len())]);
                if is_open(other) {
                    return Some(other);
                }
            }
        }
        self.any(by, is_open)
    }

    /// One drawn by weight, or another if that is a relief. What is idle is so used exactly by its weight, and what is
    /// busy by how busy it is.
    fn of_two<'a, N>(
        &self,
        by: &Draw<'a, N>,
        (places, shares): (&[u32], &Shares),
        is_relief: impl Fn(&Arc<Endpoint>, &Arc<Endpoint>) -> bool,
        is_open: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        if places.len() < 2 {
            return None;
        }
        for _ in 0..DRAWS {
            let random = by.random.next();
            let first = shares.draw(random);
            let second = at(by.all, places[shares.another(first, random)]);
            let first = at(by.all, places[first]);
            match (is_open(first), is_open(second)) {
                (true, true) if is_relief(first, second) => return Some(second),
                (true, _) => return Some(first),
                // Not the second, whose share would be that of its neighbours too: chance decides again, by weight.
                (false, _) => {}
            }
        }
        None
    }

    /// Any that is open, each as likely.
    fn any<'a, N>(&self, by: &Draw<'a, N>, is_open: impl Fn(&Arc<Endpoint>) -> bool) -> Option<&'a Arc<Endpoint>> {
        let start = by.random.below(self.members.len().max(1));
        let (before, after) = self.members.split_at(start.min(self.members.len()));
        after.iter().chain(before).map(|place| at(by.all, *place)).find(|endpoint| is_open(endpoint))
    }

    /// The best of all that are open; of equals the first, beginning anywhere.
    fn best<'a, N>(
        &self,
        by: &Draw<'a, N>,
        is_open: impl Fn(&Arc<Endpoint>) -> bool,
        is_better: impl Fn(&Arc<Endpoint>, &Arc<Endpoint>) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        let start = by.random.below(self.members.len().max(1));
        let (before, after) = self.members.split_at(start.min(self.members.len()));
        let open = after.iter().chain(before).map(|place| at(by.all, *place)).filter(|endpoint| is_open(endpoint));
        open.reduce(|best, next| if is_better(best, next) { next } else { best })
    }
}

fn at(all: &[Arc<Endpoint>], place: u32) -> &Arc<Endpoint> {
    &all[place as usize]
}

/// Whether an endpoint with `a` would be less busy with one more request than one with `b`: (in flight + 1) / weight,
/// compared without dividing.
fn is_less_busy(a: (u32, u32), b: (u32, u32)) -> bool {
    let after_one_more = |(in_flight, _): (u32, u32), other: u32| (u64::from(in_flight) + 1) * u64::from(other);
    after_one_more(a, b.1) < after_one_more(b, a.1)
}

/// Whether `second` would with one more request be no busier than `first` is without it, by requests in flight over
/// weight. Among idle ones it never is, so that chance alone, which knows the weights, decides.
fn is_relief(first: (u32, u32), second: (u32, u32)) -> bool {
    (u64::from(second.0) + 1) * u64::from(first.1) <= u64::from(first.0) * u64::from(second.1)
}

/// How soon an endpoint answers: its latency, for itself and for each request that it has already.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Microseconds; `None` is not known yet
    latency: Option<f32>,
    in_flight: u32,
    weight: u32,
}

impl Pace {
    fn of(endpoint: &Endpoint, now: Instant, decay: Duration) -> Self {
        let in_flight = endpoint.in_flight();
        // An average that faded lets one request find out how it is now, not all at once.
        let latency = match in_flight {
            0 => endpoint.ewma().faded(now, decay),
            _ => endpoint.ewma().last(),
        };
        Self { latency, in_flight, weight: endpoint.weight_now() }
    }

    /// Whether `second` would answer one more request sooner than this one answers what it has. Where one of them is
    /// not known yet it is only a question of how busy they are: it is neither flooded nor left out.
    fn yields_to(self, second: Self) -> bool {
        let (Some(latency), Some(other)) = (self.latency, second.latency) else {
            return is_relief((self.in_flight, self.weight), (second.in_flight, second.weight));
        };
        // In flight over weight, so that the sizes of endpoints do not matter; the two weights together are the unit.
        let unit = (self.weight as f32 + second.weight as f32) / 2.0;
        let queue = |in_flight: f32, weight: u32| 1.0 + in_flight * unit / weight as f32;
        other * queue(second.in_flight as f32 + 1.0, second.weight)
            < latency * queue(self.in_flight as f32, self.weight)
    }
}

#[cfg(test)]
mod tests;
