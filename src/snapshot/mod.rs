//! One moment's whole truth, ready to serve.
//!
//! Nobody changes a snapshot. What changes while it serves (health, buckets, caches) are atomics inside the `Arc`s it
//! points to, and those are handed from one snapshot to the next wherever their configuration is the same.

mod live;
mod route;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::HeaderName;

pub use live::Live;
pub use route::{Route, RouteAction};

use crate::config::{self, AuthKind, Config, Cost, Name, Problem, TokenSource};
use crate::filter::auth::Authenticator;
use crate::filter::limit::{self, Flood, Limit, Links};
use crate::http::TrustedProxies;
use crate::router::Router;
use crate::telemetry::{Metrics, Refusals, RouteMetrics};
use crate::tls::{ServerTls, TlsTools};
use crate::upstream::Upstream;

/// Everything needed to serve a request.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was built from
    pub config: Config,
    /// Counts snapshots since the process started, from 1
    pub generation: u64,
    /// Which route takes a request
    pub router: Router<Arc<Route>>,
    /// Who may speak for a client
    pub trusted: TrustedProxies,
    /// Headers that only we may set: removed from every client request
    pub identity_headers: HashSet<HeaderName>,
    /// Headers in which trusted proxies alone may say what a request costs: removed from those of others
    pub cost_headers: HashSet<HeaderName>,
    /// Who connects too fast, where that is limited
    pub flood: Option<Arc<Flood>>,
    /// Query parameters in which tokens are looked for: never written to a log
    pub token_parameters: Arc<[String]>,
    /// By name
    pub authenticators: BTreeMap<Name, Arc<Authenticator>>,
    /// By name
    pub limits: BTreeMap<Name, Arc<Limit>>,
    /// Whether one of them lets requests wait in a line
    pub may_wait: bool,
    /// By name
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// What is counted of requests that no route took
    pub unrouted: RouteMetrics,
    listeners: BTreeMap<Name, Arc<Listener>>,
}

/// A listener's part of the snapshot.
#[derive(Debug)]
pub struct Listener {
    /// What was written
    pub spec: config::Listener,
    /// Present = TLS
    pub tls: Option<ServerTls>,
    /// Limits for everything that arrives here
    pub limits: Vec<Arc<Limit>>,
    /// What is counted of requests that we answered ourselves
    pub refusals: Refusals,
}

/// What building a snapshot needs besides the configuration.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where the counters of routes are found
    pub metrics: Arc<Metrics>,
    /// What listeners shake hands with
    pub tls: TlsTools,
}

impl Snapshot {
    /// Builds everything or nothing. An object whose configuration equals that of `previous` is the same object, so
    /// its state survives. Binds no socket and starts no task.
    ///
    /// # Errors
    /// Everything that is wrong, by place.
    pub fn build(config: Config, previous: Option<&Self>, tools: &Tools) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let authenticators = each(&config.auth, "auth", &mut problems, |name, spec| {
            if let Some(authenticator) = kept(previous, name, |old| (&old.config.auth, &old.authenticators), spec) {
                return Ok(authenticator);
            }
            if matches!(spec.kind, AuthKind::ClientCertificate(_)) && !asks_for_certificates(&config) {
                let message =
                    "no listener asks for certificates: listeners.NAME.tls.client_ca_file says whose are believed";
                return Err(Problem::new("type", message));
            }
            let authenticator = Authenticator::build(name, spec)?;
            if let Some(old) = previous.and_then(|old| old.authenticators.get(name)) {
                authenticator.inherit(old);
            }
            Ok(Arc::new(authenticator))
        });
        let links = Links::of(previous.into_iter().flat_map(|old| old.limits.values()));
        let limits = each(&config.limits, "limits", &mut problems, |name, spec| {
            match kept(previous, name, |old| (&old.config.limits, &old.limits), spec) {
                Some(limit) => Ok(limit),
                None => Limit::build(name, spec, &links).map(Arc::new),
            }
        });
        let upstreams = each(&config.upstreams, "upstreams", &mut problems, |name, spec| {
            if let Some(upstream) = kept(previous, name, |old| (&old.config.upstreams, &old.upstreams), spec) {
                return Ok(upstream);
            }
            let upstream = Upstream::build(name, spec)?;
            if let Some(old) = previous.and_then(|old| old.upstreams.get(name)) {
                upstream.inherit(old);
            }
            Ok(Arc::new(upstream))
        });
        let listeners = each(&config.listeners, "listeners", &mut problems, |name, spec| {
            Listener::build(name, spec, &limits, tools).map(Arc::new)
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let parts = route::Parts { authenticators: &authenticators, limits: &limits, upstreams: &upstreams };
        let routes = each(&config.routes, "routes", &mut problems, |name, spec| {
            Route::build(name, spec, &parts, &tools.metrics, config.listeners.keys()).map(Arc::new)
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let entries = config.routes.iter().map(|(name, spec)| (name.clone(), spec, Arc::clone(&routes[name])));
        let router = Router::build(entries)?;
        Ok(Self {
            generation: previous.map_or(1, |old| old.generation + 1),
            router,
            trusted: TrustedProxies::new(config.server.trusted_proxies.clone()),
            identity_headers: identity_headers(&config),
            cost_headers: cost_headers(&config),
            flood: flood(&config, previous),
            token_parameters: token_parameters(&config),
            authenticators,
            may_wait: limits.values().any(|limit| limit.may_wait()),
            limits,
            upstreams,
            unrouted: tools.metrics.unrouted(config.listeners.keys()),
            listeners,
            config,
        })
    }

    /// A listener by name; one that a reload removed is gone from here before its connections are.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// The names of `auth` that have what they verify with.
    pub fn auth_with_keys(&self) -> Vec<Name> {
        let with_keys = self.authenticators.iter().filter(|(_, authenticator)| authenticator.is_ready());
        with_keys.map(|(name, _)| name.clone()).collect()
    }

    /// All listeners.
    pub fn listeners(&self) -> &BTreeMap<Name, Arc<Listener>> {
        &self.listeners
    }
}

impl Listener {
    fn build(
        name: &Name,
        spec: &config::Listener,
        limits: &BTreeMap<Name, Arc<Limit>>,
        tools: &Tools,
    ) -> Result<Self, Problem> {
        let tls = spec.tls.as_ref().map(|tls| ServerTls::build(name, tls, &spec.protocols, &tools.tls)).transpose()?;
        let limits = limit::arranged(spec.limits.iter().filter_map(|name| limits.get(name).cloned()));
        Ok(Self { spec: spec.clone(), tls, limits, refusals: tools.metrics.refusals(name) })
    }
}

/// Builds one object a table, collecting every problem.
fn each<S, T>(
    specs: &BTreeMap<Name, S>,
    section: &str,
    problems: &mut Vec<Problem>,
    build: impl Fn(&Name, &S) -> Result<T, Problem>,
) -> BTreeMap<Name, T> {
    let mut built = BTreeMap::new();
    for (name, spec) in specs {
        match build(name, spec) {
            Ok(object) => {
                built.insert(name.clone(), object);
            }
            Err(problem) => problems.push(problem.under(name).under(section)),
        }
    }
    built
}

/// The object of the previous snapshot, if what was written is still the same.
fn kept<'a, S: PartialEq + 'a, T: 'a>(
    previous: Option<&'a Snapshot>,
    name: &Name,
    tables: impl Fn(&'a Snapshot) -> (&'a BTreeMap<Name, S>, &'a BTreeMap<Name, Arc<T>>),
    spec: &S,
) -> Option<Arc<T>> {
    let (specs, objects) = tables(previous?);
    (specs.get(name) == Some(spec)).then(|| objects.get(name).cloned()).flatten()
}

fn asks_for_certificates(config: &Config) -> bool {
    config.listeners.values().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some()))
}

fn token_parameters(config: &Config) -> Arc<[String]> {
    let sources = config.auth.values().flat_map(|auth| &auth.sources);
    let named = sources.filter_map(|source| match source {
        TokenSource::Query(name) => Some(name.clone()),
        TokenSource::Bearer | TokenSource::Basic | TokenSource::Header(_) | TokenSource::Cookie(_) => None,
    });
    named.collect()
}

fn cost_headers(config: &Config) -> HashSet<HeaderName> {
    let named = config.limits.values().filter_map(|limit| match &limit.cost {
        Cost::Header(name) => Some(name.clone()),
        Cost::One | Cost::Method(_) => None,
    });
    named.collect()
}

/// The same one for as long as the rate is the same.
fn flood(config: &Config, previous: Option<&Snapshot>) -> Option<Arc<Flood>> {
    let rate = config.server.max_connection_rate_per_address?;
    let kept = previous.and_then(|old| old.flood.as_ref()).filter(|flood| flood.rate() == rate);
    Some(kept.map_or_else(|| Arc::new(Flood::new(rate)), Arc::clone))
}

fn identity_headers(config: &Config) -> HashSet<HeaderName> {
    let of_auth = config.auth.values().flat_map(|auth| &auth.identity_headers).map(|(header, _)| header);
    let clients = config.listeners.values().filter_map(|listener| listener.tls.as_ref()?.clients.as_ref());
    of_auth.chain(clients.flat_map(|clients| &clients.headers).map(|(header, _)| header)).cloned().collect()
}
