//! The upstream itself: its endpoints, kept up with names and health, and what its versions have in common.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::sync::{Notify, watch};

use super::address::Address;
use super::balance::{self, Bond, Sticky, Wish};
use super::breaker::BreakerState;
use super::budget::Budget;
use super::counters::{Counters, Counts, EndpointStatus, Stuck};
use super::discovery::{self, Found, Resolver, Target};
use super::endpoint::{Endpoint, Place, State};
use super::endpoints::{Endpoints, Rules};
use super::guard::Guard;
use super::health::{self, Check};
use super::lease::{Lease, Tried, Unavailable};
use super::outlier;
use super::retry::{Failure, RetryPolicy};
use crate::config::{self, EndpointAddress, Name, Problem};

/// Work to be done in the background.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    name: Name,
    spec: config::Upstream,
    retry: RetryPolicy,
    template: HttpPeer,
    sticky: Option<Sticky>,
    check: Option<Arc<Check>>,
    /// What requests read
    endpoints: ArcSwap<Endpoints>,
    /// What it is made from; locked by those who replace it, never by a request
    known: Mutex<Known>,
    /// Names without a first answer
    unanswered: watch::Sender<BTreeSet<Target>>,
    /// New addresses: health checks want to know
    changed: Arc<Notify>,
}

/// What has been found out in the background.
#[derive(Clone, Debug)]
struct Known {
    lineage: Arc<Lineage>,
    /// Nothing was known before: who is found first is not new
    is_beginning: bool,
    /// What the file of endpoints lists; only that of this version
    listed: Vec<config::Endpoint>,
    resolved: HashMap<Target, Vec<Found>>,
    guard: Arc<Guard>,
    /// By address, as long as anybody holds them: an address that comes back finds its requests counted
    states: HashMap<Address, Weak<State>>,
}

/// A moment's view of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// What it is doing
    pub state: BreakerState,
    /// How often it has opened
    pub openings: u64,
    /// How much longer it refuses everything
    pub opens_in: Duration,
}

/// What the successive versions of one upstream have in common.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) name: Name,
    pub(super) counters: Counters,
    pub(super) budget: Budget,
    /// Of the endpoints there are now: locked by those who put one out
    pub(super) roster: Mutex<Vec<Arc<State>>>,
    /// Requests in flight at all endpoints, where that decides
    pub(super) in_flight: AtomicU32,
    /// Which version's tasks are at work; those of older ones end
    at_work: AtomicU64,
}

impl Lineage {
    fn new(name: &Name, now: Instant) -> Self {
        Self {
            name: Arc::clone(name),
            counters: Counters::default(),
            budget: Budget::new(now),
            roster: Mutex::default(),
            in_flight: AtomicU32::new(0),
            at_work: AtomicU64::new(0),
        }
    }
}

impl Upstream {
    /// Builds it from its configuration. Paths of problems are relative to `[upstreams.NAME]`.
    ///
    /// Binds nothing and starts nothing: a name has no address before [`tasks`](Self::tasks) run.
    pub fn build(name: &Name, spec: &config::Upstream) -> Result<Self, Problem> {
        let listed = spec.endpoints_file.iter().flat_map(|file| &file.endpoints);
        let all = spec.endpoints.iter().enumerate().map(|(index, endpoint)| (format!("endpoints[{index}]"), endpoint));
        for (key, endpoint) in all.chain(listed.clone().map(|endpoint| ("endpoints_file".to_owned(), endpoint))) {
            if let EndpointAddress::Unix(path) = &endpoint.address {
                super::peer::check_path(path).map_err(|why| Problem::new(key, why))?;
            }
        }
        let check = spec.health.as_ref().map(|health| Check::build(health, spec)).transpose()?;
        let lineage = Arc::new(Lineage::new(name, Instant::now()));
        let guard = Arc::new(Guard::build(name, spec, Instant::now()));
        let known = Known {
            lineage: Arc::clone(&lineage),
            is_beginning: true,
            listed: listed.cloned().collect(),
            resolved: HashMap::new(),
            guard: Arc::clone(&guard),
            states: HashMap::new(),
        };
        let none = Endpoints::new([].into(), Rules::of(spec), (lineage, guard), None, seed());
        let upstream = Self {
            name: Arc::clone(name),
            retry: RetryPolicy::build(&spec.retry),
            template: super::peer::template(name, spec)?,
            sticky: spec.sticky.as_ref().map(|sticky| Sticky::build(name, sticky)),
            check: check.map(Arc::new),
            endpoints: ArcSwap::from_pointee(none),
            unanswered: watch::Sender::new(targets(spec)),
            known: Mutex::new(known),
            changed: Arc::default(),
            spec: spec.clone(),
        };
        let mut known = upstream.known.lock();
        upstream.rebuild(&mut known);
        known.is_beginning = !upstream.unanswered.borrow().is_empty();
        drop(known);
        Ok(upstream)
    }

    /// Takes over what an earlier version of this upstream knows: resolved names, counts, and for each address that
    /// is still there its health and its requests in flight. To be called before [`tasks`](Self::tasks).
    pub fn inherit(&self, previous: &Upstream) {
        let inherited = previous.known.lock().clone();
        let mut known = self.known.lock();
        let mut guard = Guard::clone(&known.guard);
        if previous.spec.breaker == self.spec.breaker {
            guard.breaker.clone_from(&inherited.guard.breaker);
        }
        let listed = std::mem::take(&mut known.listed);
        *known = Known { listed, guard: Arc::new(guard), ..inherited };
        self.endpoints.store(previous.current());
        let targets = targets(&self.spec);
        known.resolved.retain(|target, _| targets.contains(target));
        self.unanswered.send_modify(|unanswered| unanswered.retain(|target| !known.resolved.contains_key(target)));
        self.rebuild(&mut known);
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What it was built from.
    pub fn spec(&self) -> &config::Upstream {
        &self.spec
    }

    /// When a failed try is worth another.
    pub fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    /// How clients are bound to endpoints, if they are.
    pub fn sticky(&self) -> Option<&Sticky> {
        self.sticky.as_ref()
    }

    /// The next endpoint for a request that has failed at those `tried`; its place is taken until the lease drops.
    pub fn pick(&self, tried: &Tried, wish: Wish) -> Result<Lease, Unavailable> {
        self.endpoints.load().pick(tried, wish, Instant::now)
    }

    /// The cookie for a client that was served by `lease`, if it needs another than it has.
    pub fn cookie(&self, lease: &Lease, bond: Option<Bond>, is_encrypted: bool) -> Option<HeaderValue> {
        let (sticky, tag) = (self.sticky.as_ref()?, lease.endpoint().tag()?);
        let stuck = match bond {
            None => Stuck::New,
            Some(bond) if bond.is_to(tag) => Stuck::Kept,
            Some(_) if lease.is_away() => Stuck::Away,
            Some(_) => Stuck::Moved,
        };
        lease.counters().stuck(stuck);
        let needs_none = stuck == Stuck::Away || bond.is_some_and(|bond| bond.holds(tag));
        (!needs_none).then(|| sticky.cookie(tag, SystemTime::now(), is_encrypted))
    }

    /// [`Self::pick`] for a request that has an answer already and would rather have another: notes that the try of
    /// `lease` failed, but only if there is a place elsewhere and the budget has a retry left.
    pub fn pick_another(
        &self,
        tried: &mut Tried,
        lease: &Lease,
        failure: Failure,
        wish: Wish,
        now: Instant,
    ) -> Option<Lease> {
        tried.note(lease, failure);
        let next = self.endpoints.load().choose(tried, wish, || now).ok().filter(|_| self.affords_retry(lease, now));
        match next {
            Some(_) => lease.counters().retried(failure),
            None => tried.forget_last(),
        }
        next
    }

    /// The first try of a request begins: retries may be a share of these.
    pub fn requested(&self, lease: &Lease, now: Instant) {
        if self.retry.budget().is_some() {
            lease.requested(now);
        }
    }

    /// Whether the budget has a retry left, which is then taken.
    pub fn affords_retry(&self, lease: &Lease, now: Instant) -> bool {
        self.retry.budget().is_none_or(|percent| lease.affords_retry(percent, now))
    }

    /// What runs in the background for it: one task a name, and one for health checks. Each holds the upstream weakly
    /// and ends when it is gone, or when the tasks of a version that inherited from it are at work.
    pub fn tasks(self: &Arc<Self>) -> Vec<Task> {
        let lineage = Arc::clone(&self.known.lock().lineage);
        let version = lineage.at_work.fetch_add(1, Ordering::Relaxed) + 1;
        let owner = Owner { upstream: Arc::downgrade(self), lineage, version };
        let mut tasks: Vec<Task> = Vec::new();
        let resolver = Resolver::new(&self.spec.nameservers);
        for target in targets(&self.spec) {
            let resolver = Arc::clone(&resolver);
            let resolve = move |target| Arc::clone(&resolver).resolve(target);
            tasks.push(Box::pin(discovery::follow(owner.clone(), target, resolve)));
        }
        if let Some(file) = &self.spec.endpoints_file {
            tasks.push(Box::pin(discovery::follow_list(owner.clone(), file.clone())));
        }
        if let Some(outlier) = self.known.lock().guard.outlier.clone().filter(|outlier| outlier.compares_rates()) {
            tasks.push(Box::pin(outlier::watch(owner.clone(), outlier)));
        }
        if let Some(check) = &self.check {
            tasks.push(Box::pin(health::watch(owner.clone(), Arc::clone(check))));
        }
        if let Some(slow_start) = self.spec.slow_start {
            tasks.push(Box::pin(balance::warm_up(owner, slow_start)));
        }
        tasks
    }

    /// Waits until every name has had its first answer, or has failed to give one in time. To be awaited, with the
    /// tasks running, before calling the first requests in.
    pub async fn settled(&self) {
        let mut unanswered = self.unanswered.subscribe();
        // Too late, or nobody left to answer: then requests find out.
        let _ = tokio::time::timeout(discovery::LOOKUP_TIMEOUT, unanswered.wait_for(BTreeSet::is_empty)).await;
    }

    /// The endpoints, for metrics and the admin side.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.endpoints.load().all().iter().map(|endpoint| endpoint.status()).collect()
    }

    /// What its breaker is doing, if it has one.
    pub fn breaker(&self) -> Option<BreakerStatus> {
        let now = Instant::now();
        let breaker = self.known.lock().guard.breaker.clone()?;
        Some(BreakerStatus { state: breaker.state(now), openings: breaker.openings(), opens_in: breaker.opens_in(now) })
    }

    /// What was counted, since the process started.
    pub fn counts(&self) -> Counts {
        self.known.lock().lineage.counters.read()
    }

    pub(super) fn current(&self) -> Arc<Endpoints> {
        self.endpoints.load_full()
    }

    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// A lookup ended: with these addresses, or without any, which leaves those of the answer before.
    pub(super) fn resolved(&self, target: &Target, found: Option<Vec<Found>>) {
        if let Some(found) = found {
            let mut known = self.known.lock();
            if known.resolved.get(target) != Some(&found) {
                known.resolved.insert(target.clone(), found);
                self.rebuild(&mut known);
                self.changed.notify_one();
            }
        }
        self.unanswered.send_if_modified(|unanswered| unanswered.remove(target));
        if self.unanswered.borrow().is_empty() {
            self.known.lock().is_beginning = false;
        }
    }

    /// The file of endpoints lists others now.
    pub(super) fn listed(&self, endpoints: &[config::Endpoint]) {
        let mut known = self.known.lock();
        known.listed = endpoints.to_vec();
        self.rebuild(&mut known);
        self.changed.notify_one();
    }

    /// Stops, or starts again, to send requests to the endpoint at `address`, as logs and metrics show it. Those in
    /// flight go on, and it stays so across reloads until it is asked for otherwise. False if there is no such endpoint.
    pub fn drain(&self, address: &str, drained: bool) -> bool {
        let found = self.endpoints.load().all().iter().find(|endpoint| &**endpoint.text() == address).cloned();
        let Some(endpoint) = found else { return false };
        endpoint.drain(drained);
        self.lay_out_again();
        true
    }

    /// Health has changed: the turns are laid out anew.
    pub(super) fn lay_out_again(&self) {
        let _writer = self.known.lock();
        self.endpoints.store(Arc::new(self.endpoints.load().laid_out_again(seed())));
    }

    /// Replaces the endpoints by what is configured and known now.
    fn rebuild(&self, known: &mut Known) {
        let places = places(self.spec.endpoints.iter().chain(&known.listed), &known.resolved, self.spec.zone.as_ref());
        let all = places.into_iter().map(|place| {
            let state = known.state_of(&place.address);
            let tag = self.sticky.as_ref().map(|sticky| sticky.tag(&place.address.to_string()));
            let (guard, lineage) = (Arc::clone(&known.guard), Arc::clone(&known.lineage));
            Arc::new(Endpoint::new(place, &self.template, guard, (state, lineage)).with_tag(tag))
        });
        let all: Box<[_]> = all.collect();
        let before = self.endpoints.load();
        let shared = (Arc::clone(&known.lineage), Arc::clone(&known.guard));
        *shared.0.roster.lock() = all.iter().map(|endpoint| Arc::clone(endpoint.state())).collect();
        self.endpoints.store(Arc::new(Endpoints::new(all, Rules::of(&self.spec), shared, Some(&before), seed())));
        known.states.retain(|_, state| state.strong_count() > 0);
    }
}

impl Known {
    fn state_of(&mut self, address: &Address) -> Arc<State> {
        if let Some(state) = self.states.get(address).and_then(Weak::upgrade) {
            return state;
        }
        let now = Instant::now();
        let state = Arc::new(State::new(now));
        if !self.is_beginning {
            state.begin_anew(now);
        }
        self.states.insert(address.clone(), Arc::downgrade(&state));
        state
    }
}

/// How a task holds the upstream it works for.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    upstream: Weak<Upstream>,
    lineage: Arc<Lineage>,
    version: u64,
}

impl Owner {
    /// The upstream, unless it is gone or a later version has taken over.
    pub(super) fn upstream(&self) -> Option<Arc<Upstream>> {
        (self.lineage.at_work.load(Ordering::Relaxed) == self.version).then(|| self.upstream.upgrade()).flatten()
    }
}

/// Every address there is to go to, each once: an address that is written twice, or also found behind a name, has the
/// weights of both.
fn places<'a>(
    endpoints: impl Iterator<Item = &'a config::Endpoint>,
    resolved: &HashMap<Target, Vec<Found>>,
    zone: Option<&Name>,
) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut seen: HashMap<Address, usize> = HashMap::new();
    for endpoint in endpoints {
        let found: Vec<(Address, u32, Arc<str>)> = match (&endpoint.address, target(&endpoint.address)) {
            (EndpointAddress::Socket(addr), _) => {
                let address = Address::from(*addr);
                let authority = address.to_string().into();
                vec![(address, 1, authority)]
            }
            (EndpointAddress::Unix(path), _) => vec![(Address::Unix(path.clone()), 1, "localhost".into())],
            (_, target) => {
                let found = target.and_then(|target| resolved.get(&target)).into_iter().flatten();
                found.map(|one| (Address::from(one.addr), one.weight, Arc::clone(&one.authority))).collect()
            }
        };
        for (address, share, authority) in found {
            let weight = endpoint.weight.max(1).saturating_mul(share);
            if let Some(place) = seen.get(&address) {
                let place = &mut places[*place];
                place.weight = place.weight.saturating_add(weight);
                continue;
            }
            seen.insert(address.clone(), places.len());
            places.push(Place {
                address,
                weight,
                authority,
                priority: endpoint.priority,
                zone: endpoint.zone.clone(),
                is_near: zone.is_some() && endpoint.zone.as_ref() == zone,
            });
        }
    }
    places
}

/// The names among the endpoints.
fn targets(spec: &config::Upstream) -> BTreeSet<Target> {
    spec.endpoints.iter().filter_map(|endpoint| target(&endpoint.address)).collect()
}

fn target(address: &EndpointAddress) -> Option<Target> {
    match address {
        EndpointAddress::Name { host, port } => Some(Target::Host { host: host.clone(), port: *port }),
        EndpointAddress::Service { name } => Some(Target::Service { name: name.clone() }),
        EndpointAddress::Socket(_) | EndpointAddress::Unix(_) => None,
    }
}

/// A number nobody can foretell.
pub(super) fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// `interval`, a tenth more or less.
pub(super) fn jittered(interval: Duration) -> Duration {
    let per_mille = 900 + u32::try_from(seed() % 201).unwrap_or(100);
    interval * per_mille / 1000
}
