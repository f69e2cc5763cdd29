//! What the gateway is doing at this moment, as plain data: the JSON of `/api/status`, and what the status page shows.
//!
//! Nothing in it is secret: names, addresses and counts, never a token, a key, a header's value or an address that
//! could carry a password.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Sources, describe};
use crate::config::{self, Auth, AuthChoice, AuthKind, Mode, Name};
use crate::control;
use crate::filter::auth::Authenticator;
use crate::filter::limit::Limit;
use crate::snapshot::{Listener, Snapshot};
use crate::upstream::{EndpointStatus, Upstream};

/// The whole of it. Times are seconds since 1970, UTC.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    pub(super) version: &'static str,
    pub(super) phase: &'static str,
    pub(super) ready: bool,
    pub(super) started_at: u64,
    pub(super) uptime_seconds: u64,
    pub(super) config_generation: u64,
    /// Absent until there was one
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_reload: Option<Reload>,
    pub(super) connections: usize,
    pub(super) access_log_dropped: u64,
    pub(super) upstreams: Vec<UpstreamReport<'a>>,
    pub(super) routes: Vec<RouteReport<'a>>,
    pub(super) limits: Vec<LimitReport<'a>>,
    pub(super) auth: Vec<AuthReport<'a>>,
    pub(super) listeners: Vec<ListenerReport<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Reload {
    pub(super) at: u64,
    pub(super) succeeded: bool,
    /// What the operator was told; absent if it succeeded
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct UpstreamReport<'a> {
    pub(super) name: &'a str,
    pub(super) balance: &'static str,
    pub(super) protocol: &'static str,
    pub(super) tls: bool,
    pub(super) health_checked: bool,
    pub(super) endpoints: Vec<Endpoint>,
    /// Tries by result, as `tollgate_upstream_requests_total`
    pub(super) requests: BTreeMap<&'static str, u64>,
    /// As `tollgate_retries_total`
    pub(super) retries: BTreeMap<&'static str, u64>,
    pub(super) retries_over_budget: u64,
    /// As `tollgate_ejections_total`
    pub(super) ejections: BTreeMap<&'static str, u64>,
    /// Absent where there is none
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) breaker: Option<BreakerReport>,
    /// As `tollgate_sticky_requests_total`; empty where nobody is bound
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sticky: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct BreakerReport {
    pub(super) state: &'static str,
    pub(super) openings: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) weight: u32,
    /// What it has of that now: less with `slow_start`
    pub(super) weight_now: f64,
    pub(super) priority: u8,
    /// Absent where none is written
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<String>,
    pub(super) healthy: bool,
    /// What the last check found; absent while it is healthy
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unhealthy_because: Option<String>,
    pub(super) drained: bool,
    pub(super) suspect: bool,
    /// Absent while it is not ejected
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ejected_until: Option<u64>,
    pub(super) ejections: u64,
    pub(super) requests_in_flight: u32,
    /// Absent where latency does not decide, and before the first answer
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ewma_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct RouteReport<'a> {
    pub(super) name: &'a str,
    /// Empty = any, here and below
    pub(super) hosts: Vec<String>,
    pub(super) path: String,
    pub(super) methods: Vec<&'a str>,
    pub(super) listeners: Vec<&'a str>,
    /// Empty = open
    pub(super) auth: Vec<&'a str>,
    pub(super) auth_mode: &'static str,
    pub(super) scopes: &'a [String],
    pub(super) limits: Vec<&'a str>,
    pub(super) action: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LimitReport<'a> {
    pub(super) name: &'a str,
    pub(super) allowance: String,
    pub(super) key: Vec<String>,
    pub(super) mode: &'static str,
    pub(super) allowed: u64,
    pub(super) refused: u64,
    pub(super) shadowed: u64,
    pub(super) keys: u64,
    pub(super) evicted: u64,
    pub(super) full: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct AuthReport<'a> {
    pub(super) name: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Absent where there is none
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<&'a str>,
    pub(super) keys_from: &'static str,
    /// Who is asked; absent where nobody is
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<String>,
    /// Absent where there are none to have
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<usize>,
    /// Since they were fetched; absent where none are, and before the first were
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys_age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remembered_tokens: Option<usize>,
    /// As `tollgate_auth_requests_total`; absent where nobody is asked
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) requests: BTreeMap<&'static str, u64>,
    /// As `tollgate_auth_decisions_total`
    pub(super) decisions: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ListenerReport<'a> {
    pub(super) name: &'a str,
    pub(super) addresses: Vec<String>,
    pub(super) protocols: Vec<&'static str>,
    /// Empty = no TLS
    pub(super) certificates: Vec<CertificateReport<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct CertificateReport<'a> {
    pub(super) names: &'a [String],
    pub(super) not_after: u64,
}

impl<'a> Report<'a> {
    pub(super) fn new(sources: &Sources, snapshot: &'a Snapshot) -> Self {
        let started = sources.status.started();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            phase: sources.phase().0,
            ready: sources.is_ready(),
            started_at: seconds(started),
            // The clock may have been set back since.
            uptime_seconds: started.elapsed().unwrap_or(Duration::ZERO).as_secs(),
            config_generation: snapshot.generation,
            last_reload: sources.status.last_reload().map(Reload::new),
            connections: sources.drain.connections(),
            access_log_dropped: sources.access_log.dropped(),
            upstreams: snapshot.upstreams.iter().map(|(name, upstream)| UpstreamReport::new(name, upstream)).collect(),
            routes: snapshot.config.routes.iter().map(|(name, route)| RouteReport::new(name, route)).collect(),
            limits: each(&snapshot.limits, &snapshot.config.limits, LimitReport::new),
            auth: each(&snapshot.authenticators, &snapshot.config.auth, AuthReport::new),
            listeners: snapshot
                .listeners()
                .iter()
                .map(|(name, listener)| ListenerReport::new(name, listener))
                .collect(),
        }
    }
}

/// Objects together with what was written about them.
fn each<'a, T, S, R>(
    objects: &'a BTreeMap<Name, Arc<T>>,
    specs: &'a BTreeMap<Name, S>,
    report: impl Fn(&'a str, &'a T, &'a S) -> R,
) -> Vec<R> {
    objects.iter().filter_map(|(name, object)| Some(report(name, object, specs.get(name)?))).collect()
}

impl Reload {
    fn new(reload: control::Reload) -> Self {
        Self { at: seconds(reload.at), succeeded: reload.error.is_none(), error: reload.error }
    }
}

impl<'a> UpstreamReport<'a> {
    fn new(name: &'a str, upstream: &'a Upstream) -> Self {
        let (spec, counts) = (upstream.spec(), upstream.counts());
        Self {
            name,
            balance: describe::balance(&spec.balance),
            protocol: describe::upstream_protocol(spec.protocol),
            tls: spec.tls.is_some(),
            health_checked: spec.health.is_some(),
            endpoints: upstream.endpoints().into_iter().map(Endpoint::new).collect(),
            requests: counts.results.into_iter().chain(counts.refused).collect(),
            retries: counts.retries.into_iter().collect(),
            retries_over_budget: counts.over_budget,
            ejections: counts.ejections.into_iter().collect(),
            breaker: upstream
                .breaker()
                .map(|breaker| BreakerReport { state: breaker.state.name(), openings: breaker.openings }),
            sticky: if spec.sticky.is_some() { counts.sticky.into_iter().collect() } else { BTreeMap::new() },
        }
    }
}

impl Endpoint {
    fn new(status: EndpointStatus) -> Self {
        let EndpointStatus { address, healthy, drained, suspect, in_flight, weight, .. } = status;
        let EndpointStatus { illness, ejected_for, ejections, .. } = status;
        let EndpointStatus { weight_now, priority, zone, latency, .. } = status;
        Self {
            address: address.to_string(),
            weight,
            weight_now: f64::from(weight_now) / 100.0,
            priority,
            zone: zone.as_deref().map(str::to_owned),
            healthy,
            drained,
            unhealthy_because: illness,
            suspect,
            ejected_until: ejected_for.map(|left| seconds(SystemTime::now() + left)),
            ejections,
            requests_in_flight: in_flight,
            ewma_seconds: latency.map(|latency| latency.as_secs_f64()),
        }
    }
}

impl<'a> RouteReport<'a> {
    fn new(name: &'a str, route: &'a config::Route) -> Self {
        let (auth, scopes): (&[_], &[_]) = match &route.auth {
            AuthChoice::Open => (&[], &[]),
            AuthChoice::AnyOf { names: by, require, .. } => (by, &require.scopes),
        };
        Self {
            name,
            hosts: route.hosts.iter().map(describe::host).collect(),
            path: describe::path(&route.path),
            methods: route.methods.iter().map(http::Method::as_str).collect(),
            listeners: names(&route.listeners),
            auth: names(auth),
            auth_mode: mode(route.auth_mode),
            scopes,
            limits: names(&route.limits),
            action: describe::action(&route.action),
        }
    }
}

impl<'a> LimitReport<'a> {
    fn new(name: &'a str, limit: &Limit, spec: &config::Limit) -> Self {
        let stats = limit.stats();
        Self {
            name,
            allowance: describe::allowance(&spec.kind),
            key: spec.key.iter().map(describe::selector).collect(),
            mode: mode(spec.mode),
            allowed: stats.allowed,
            refused: stats.refused,
            shadowed: stats.shadowed,
            keys: stats.keys,
            evicted: stats.evicted,
            full: stats.full,
        }
    }
}

impl<'a> AuthReport<'a> {
    fn new(name: &'a str, authenticator: &Authenticator, spec: &'a Auth) -> Self {
        let counts = authenticator.counts();
        let (issuer, keys_from) = match &spec.kind {
            AuthKind::Jwt(jwt) => (Some(&*jwt.issuer), describe::keys(&jwt.keys)),
            AuthKind::ClientCertificate(_) => (None, "client_ca_file"),
            AuthKind::ApiKey(_) => (None, "keys_file"),
            AuthKind::Basic(_) => (None, "users_file"),
            AuthKind::Introspection(introspection) => (introspection.issuer.as_deref(), "url"),
            AuthKind::Forward(_) => (None, "url"),
        };
        Self {
            name,
            kind: spec.kind.name(),
            issuer,
            keys_from,
            service: describe::service(&spec.kind),
            keys: counts.keys,
            keys_age_seconds: counts.jwks_age.map(|age| age.as_secs()),
            remembered_tokens: counts.remembered,
            requests: counts.asked.into_iter().collect(),
            decisions: counts.decisions.into_iter().collect(),
        }
    }
}

impl<'a> ListenerReport<'a> {
    fn new(name: &'a str, listener: &'a Listener) -> Self {
        let certificates = listener.tls.iter().flat_map(|tls| tls.certificates.iter());
        Self {
            name,
            addresses: listener.spec.addresses.iter().map(ToString::to_string).collect(),
            protocols: listener.spec.protocols.iter().map(|protocol| describe::protocol(*protocol)).collect(),
            certificates: certificates
                .map(|certificate| CertificateReport {
                    names: &certificate.names,
                    not_after: seconds(certificate.not_after),
                })
                .collect(),
        }
    }
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
