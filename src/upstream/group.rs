//! The upstream itself: its endpoints, kept up with names and health, and what its versions have in common.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::sync::{Notify, watch};

use super::address::Address;
use super::counters::{Counters, Counts, EndpointStatus};
use super::discovery::{self, Found, Resolver, Target};
use super::endpoint::{Endpoint, Place, State};
use super::endpoints::{Endpoints, Rules};
use super::health::{self, Check};
use super::lease::{Lease, Tried, Unavailable};
use super::queue::Queue;
use super::retry::RetryPolicy;
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
    /// What the file of endpoints lists; only that of this version
    listed: Vec<config::Endpoint>,
    resolved: HashMap<Target, Vec<Found>>,
    /// By address, as long as anybody holds them: an address that comes back finds its requests counted
    states: HashMap<Address, Weak<State>>,
}

/// What the successive versions of one upstream have in common.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) name: Name,
    pub(super) counters: Counters,
    pub(super) queue: Queue,
    /// Which version's tasks are at work; those of older ones end
    at_work: AtomicU64,
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
        let lineage = Lineage {
            name: Arc::clone(name),
            counters: Counters::default(),
            queue: Queue::default(),
            at_work: AtomicU64::new(0),
        };
        let lineage = Arc::new(lineage);
        let known = Known {
            lineage: Arc::clone(&lineage),
            listed: listed.cloned().collect(),
            resolved: HashMap::new(),
            states: HashMap::new(),
        };
        let upstream = Self {
            name: Arc::clone(name),
            retry: RetryPolicy::build(&spec.retry),
            template: super::peer::template(name, spec)?,
            check: check.map(Arc::new),
            endpoints: ArcSwap::from_pointee(Endpoints::new([].into(), Rules::of(spec), lineage, 0, seed())),
            unanswered: watch::Sender::new(targets(spec)),
            known: Mutex::new(known),
            changed: Arc::default(),
            spec: spec.clone(),
        };
        upstream.rebuild(&mut upstream.known.lock());
        Ok(upstream)
    }

    /// Takes over what an earlier version of this upstream knows: resolved names, counts, and for each address that
    /// is still there its health and its requests in flight. To be called before [`tasks`](Self::tasks).
    pub fn inherit(&self, previous: &Upstream) {
        let inherited = previous.known.lock().clone();
        let mut known = self.known.lock();
        *known = Known { listed: std::mem::take(&mut known.listed), ..inherited };
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

    /// The next endpoint for a request that has failed at those `tried`; its place is taken until the lease drops.
    /// Where there is a queue it waits for one, though not beyond `patience`; `waited` grows by the time it takes.
    pub async fn pick(
        &self,
        tried: &Tried,
        patience: Option<Duration>,
        waited: &mut Duration,
    ) -> Result<Lease, Unavailable> {
        let picked = match self.spec.queue {
            None => self.pick_now(tried),
            // Boxed, so that requests that do not wait do not carry the room for it.
            Some(queue) => match self.pick_in_turn(tried) {
                Err(Unavailable::EndpointsBusy) => Box::pin(self.wait(queue, tried, patience, waited)).await,
                picked => picked,
            },
        };
        if let Err(why) = picked {
            self.endpoints.load().lineage().counters.refused(why);
        }
        picked
    }

    pub(super) fn pick_now(&self, tried: &Tried) -> Result<Lease, Unavailable> {
        self.endpoints.load().pick(tried, Instant::now)
    }

    pub(super) fn lineage(&self) -> Arc<Lineage> {
        Arc::clone(self.endpoints.load().lineage())
    }

    /// How many requests wait, and how long all have waited, where one may.
    pub fn queue(&self) -> Option<(usize, Duration)> {
        self.spec.queue.map(|_| self.lineage().queue.stats())
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
        if let Some(check) = &self.check {
            tasks.push(Box::pin(health::watch(owner, Arc::clone(check))));
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
        self.lineage().queue.call();
    }

    /// Replaces the endpoints by what is configured and known now.
    fn rebuild(&self, known: &mut Known) {
        let places = places(self.spec.endpoints.iter().chain(&known.listed), &known.resolved);
        let all = places.into_iter().map(|place| {
            let state = known.state_of(&place.address);
            Arc::new(Endpoint::new(place, &self.template, self.check.is_some(), (state, Arc::clone(&known.lineage))))
        });
        let all: Box<[_]> = all.collect();
        let turn = self.endpoints.load().turn();
        let lineage = Arc::clone(&known.lineage);
        self.endpoints.store(Arc::new(Endpoints::new(all, Rules::of(&self.spec), lineage, turn, seed())));
        known.states.retain(|_, state| state.strong_count() > 0);
        if self.spec.queue.is_some() {
            known.lineage.queue.open();
        }
        known.lineage.queue.call();
    }
}

impl Known {
    fn state_of(&mut self, address: &Address) -> Arc<State> {
        if let Some(state) = self.states.get(address).and_then(Weak::upgrade) {
            return state;
        }
        let state = Arc::new(State::new(Instant::now()));
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
            places.push(Place { address, weight, authority });
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
