//! What other rooms keep as plain numbers, said in Prometheus' words. `docs/metrics.md` lists every one.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::Sources;
use crate::config::Mode;
use crate::snapshot::Snapshot;
use crate::telemetry::Scrape;
use crate::upstream::BreakerState;

/// The whole answer to a scrape.
pub(super) fn render(sources: &Sources, snapshot: &Snapshot) -> String {
    sources.metrics.render(|scrape| {
        process(scrape, sources, snapshot);
        auth(scrape, snapshot);
        limits(scrape, snapshot);
        upstreams(scrape, snapshot);
        protection(scrape, snapshot);
        endpoints(scrape, snapshot);
        certificates(scrape, snapshot);
    })
}

fn process(scrape: &mut Scrape, sources: &Sources, snapshot: &Snapshot) {
    let alone = |value: f64| [(vec![], value)];
    scrape.gauge(
        "tollgate_config_generation",
        "The configuration that serves, counted from 1, upgrades included.",
        &[],
        alone(snapshot.generation as f64),
    );
    scrape.gauge(
        "tollgate_ready",
        "1 while /readyz says so: every listener accepts and the process does not leave.",
        &[],
        alone(bit(sources.is_ready())),
    );
    if let Some(reload) = sources.status.last_reload() {
        scrape.gauge(
            "tollgate_config_last_reload_successful",
            "Whether the last reload changed the configuration; 0 until a later one does.",
            &[],
            alone(bit(reload.error.is_none())),
        );
    }
    scrape.counter(
        "tollgate_access_log_dropped_total",
        "Lines of the access log that could not be written.",
        &[],
        [(vec![], sources.access_log.dropped())],
    );
    let shadowed = snapshot.config.routes.iter().filter(|(_, route)| route.auth_mode == Mode::Shadow);
    scrape.gauge(
        "tollgate_auth_shadow",
        "1 for each route that lets callers through whatever its auth decides (auth_mode = \"shadow\").",
        &["route"],
        shadowed.map(|(name, _)| (vec![&**name], 1.0)),
    );
}

fn auth(scrape: &mut Scrape, snapshot: &Snapshot) {
    let all: Vec<_> = snapshot.authenticators.iter().map(|(name, auth)| (&**name, auth.counts())).collect();
    scrape.counter(
        "tollgate_auth_decisions_total",
        "Requests that were known, refused, or would have been refused (shadow).",
        &["auth", "result"],
        all.iter()
            .flat_map(|(name, counts)| counts.decisions.iter().map(|(result, count)| (vec![*name, *result], *count))),
    );
    scrape.counter(
        "tollgate_jwks_refresh_total",
        "Attempts to fetch keys, by how they went.",
        &["auth", "result"],
        all.iter()
            .flat_map(|(name, counts)| counts.refreshes.iter().map(|(result, count)| (vec![*name, *result], *count))),
    );
    scrape.counter(
        "tollgate_auth_requests_total",
        "Questions to services that decide, by how they went; busy and resting were not asked.",
        &["auth", "result"],
        all.iter().flat_map(|(name, counts)| counts.asked.iter().map(|(result, count)| (vec![*name, *result], *count))),
    );
    scrape.gauge(
        "tollgate_jwks_age_seconds",
        "Since the keys in use were fetched.",
        &["auth"],
        all.iter().filter_map(|(name, counts)| Some((vec![*name], counts.jwks_age?.as_secs_f64()))),
    );
    scrape.gauge(
        "tollgate_auth_keys",
        "Keys that callers are known by now; 0 turns every caller away.",
        &["auth"],
        all.iter().filter_map(|(name, counts)| Some((vec![*name], counts.keys? as f64))),
    );
    scrape.gauge(
        "tollgate_auth_remembered_tokens",
        "Verified credentials that are remembered now.",
        &["auth"],
        all.iter().filter_map(|(name, counts)| Some((vec![*name], counts.remembered? as f64))),
    );
}

fn limits(scrape: &mut Scrape, snapshot: &Snapshot) {
    let limits: Vec<_> = snapshot.limits.iter().map(|(name, limit)| (&**name, limit.stats())).collect();
    scrape.counter(
        "tollgate_limit_decisions_total",
        "Requests that a limit allowed, refused, or would have refused (shadowed).",
        &["limit", "result"],
        limits.iter().flat_map(|(name, stats)| {
            [("allowed", stats.allowed), ("refused", stats.refused), ("shadowed", stats.shadowed)]
                .map(|(result, count)| (vec![*name, result], count))
        }),
    );
    scrape.counter(
        "tollgate_limit_near_total",
        "Requests that a limit allowed with less than a tenth left.",
        &["limit"],
        limits.iter().map(|(name, stats)| (vec![*name], stats.near)),
    );
    scrape.gauge(
        "tollgate_limit_keys",
        "Keys that a limit tracks now.",
        &["limit"],
        limits.iter().map(|(name, stats)| (vec![*name], stats.keys as f64)),
    );
    scrape.counter(
        "tollgate_limit_evictions_total",
        "Keys forgotten to make room; each had its whole budget.",
        &["limit"],
        limits.iter().map(|(name, stats)| (vec![*name], stats.evicted)),
    );
    scrape.counter(
        "tollgate_limit_full_total",
        "Decisions by on_full alone, since every tracked key was active.",
        &["limit"],
        limits.iter().map(|(name, stats)| (vec![*name], stats.full)),
    );
    let stores = snapshot.limits.iter().filter_map(|(name, limit)| Some((&**name, limit.store()?)));
    let stores: Vec<_> = stores.collect();
    scrape.counter(
        "tollgate_limit_store_requests_total",
        "Questions to the store of a limit, by how they went; what is down is not asked.",
        &["limit", "result"],
        stores
            .iter()
            .flat_map(|(name, stats)| stats.requests.iter().map(|(result, count)| (vec![*name, *result], *count))),
    );
    scrape.gauge(
        "tollgate_limit_store_up",
        "1 while the store of a limit answers; on_store_failure decides while it does not.",
        &["limit"],
        stores.iter().map(|(name, stats)| (vec![*name], bit(stats.is_up))),
    );
}

fn upstreams(scrape: &mut Scrape, snapshot: &Snapshot) {
    let upstreams: Vec<_> = snapshot.upstreams.iter().map(|(name, upstream)| (&**name, upstream.counts())).collect();
    scrape.counter(
        "tollgate_upstream_requests_total",
        "Tries at an upstream, by how they went.",
        &["upstream", "result"],
        upstreams.iter().flat_map(|(name, counts)| {
            let results = counts.results.iter().chain(&counts.refused);
            results.map(|(result, count)| (vec![*name, *result], *count))
        }),
    );
    scrape.counter(
        "tollgate_retries_total",
        "Tries that failed and were followed by another.",
        &["upstream", "reason"],
        upstreams
            .iter()
            .flat_map(|(name, counts)| counts.retries.iter().map(|(reason, count)| (vec![*name, *reason], *count))),
    );
    let binding = |name: &str| snapshot.upstreams.get(name).is_some_and(|upstream| upstream.sticky().is_some());
    scrape.counter(
        "tollgate_sticky_requests_total",
        "Responses to clients that are bound to endpoints, by whether they came from the one.",
        &["upstream", "result"],
        upstreams
            .iter()
            .filter(|(name, _)| binding(name))
            .flat_map(|(name, counts)| counts.sticky.iter().map(|(result, count)| (vec![*name, *result], *count))),
    );
}

/// What keeps an upstream that fails from failing more.
fn protection(scrape: &mut Scrape, snapshot: &Snapshot) {
    let upstreams: Vec<_> = snapshot.upstreams.iter().map(|(name, upstream)| (&**name, upstream.counts())).collect();
    scrape.counter(
        "tollgate_retries_over_budget_total",
        "Tries that failed and were not followed by another, since the budget for retries was spent.",
        &["upstream"],
        upstreams.iter().map(|(name, counts)| (vec![*name], counts.over_budget)),
    );
    scrape.counter(
        "tollgate_ejections_total",
        "Endpoints that were put out for what their answers were, by the key that asked for it.",
        &["upstream", "reason"],
        upstreams
            .iter()
            .flat_map(|(name, counts)| counts.ejections.iter().map(|(reason, count)| (vec![*name, *reason], *count))),
    );
    let breakers = snapshot.upstreams.iter().filter_map(|(name, upstream)| Some((&**name, upstream.breaker()?)));
    let breakers: Vec<_> = breakers.collect();
    scrape.gauge(
        "tollgate_breaker_state",
        "1 for what the breaker of an upstream is doing.",
        &["upstream", "state"],
        breakers.iter().flat_map(|(name, breaker)| {
            BreakerState::ALL.map(|state| (vec![*name, state.name()], bit(breaker.state == state)))
        }),
    );
    scrape.counter(
        "tollgate_breaker_openings_total",
        "How often the breaker of an upstream has opened.",
        &["upstream"],
        breakers.iter().map(|(name, breaker)| (vec![*name], breaker.openings)),
    );
}

fn endpoints(scrape: &mut Scrape, snapshot: &Snapshot) {
    let endpoints: Vec<_> = snapshot
        .upstreams
        .iter()
        .flat_map(|(name, upstream)| upstream.endpoints().into_iter().map(move |endpoint| (&**name, endpoint)))
        .collect();
    let labels = ["upstream", "endpoint"];
    scrape.gauge(
        "tollgate_endpoint_healthy",
        "What health checks say; 1 where nothing is checked.",
        &labels,
        endpoints.iter().map(|(name, endpoint)| (vec![*name, &*endpoint.address], bit(endpoint.healthy))),
    );
    scrape.gauge(
        "tollgate_endpoint_drained",
        "1 while an operator keeps new requests from an endpoint.",
        &labels,
        endpoints.iter().map(|(name, endpoint)| (vec![*name, &*endpoint.address], bit(endpoint.drained))),
    );
    scrape.gauge(
        "tollgate_endpoint_suspect",
        "1 while an endpoint is avoided because a connection to it failed.",
        &labels,
        endpoints.iter().map(|(name, endpoint)| (vec![*name, &*endpoint.address], bit(endpoint.suspect))),
    );
    scrape.gauge(
        "tollgate_endpoint_ejected",
        "1 while an endpoint is out for what its answers were.",
        &labels,
        endpoints.iter().map(|(name, endpoint)| (vec![*name, &*endpoint.address], bit(endpoint.ejected_for.is_some()))),
    );
    scrape.gauge(
        "tollgate_endpoint_requests_in_flight",
        "Requests that an endpoint is working on.",
        &labels,
        endpoints.iter().map(|(name, endpoint)| (vec![*name, &*endpoint.address], f64::from(endpoint.in_flight))),
    );
    scrape.gauge(
        "tollgate_endpoint_weight",
        "Share of the traffic, relative to the others of its tier; less than was written while it gets warm.",
        &labels,
        endpoints
            .iter()
            .map(|(name, endpoint)| (vec![*name, &*endpoint.address], f64::from(endpoint.weight_now) / 100.0)),
    );
    scrape.gauge(
        "tollgate_endpoint_ewma_seconds",
        "How long an endpoint takes to answer, where that decides.",
        &labels,
        endpoints
            .iter()
            .filter_map(|(name, endpoint)| Some((vec![*name, &*endpoint.address], endpoint.latency?.as_secs_f64()))),
    );
}

/// By the first name a certificate covers; of several with that name the one that ends first.
fn certificates(scrape: &mut Scrape, snapshot: &Snapshot) {
    let mut ends: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for (listener, served) in snapshot.listeners() {
        for certificate in served.tls.iter().flat_map(|tls| tls.certificates.iter()) {
            let name = certificate.names.first().map_or("_none", |name| name);
            let end = certificate.not_after.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
            let earliest = ends.entry((&**listener, name)).or_insert(end);
            *earliest = earliest.min(end);
        }
    }
    scrape.gauge(
        "tollgate_certificate_expiry_timestamp_seconds",
        "When a certificate ends.",
        &["listener", "name"],
        ends.iter().map(|((listener, name), end)| (vec![*listener, *name], *end)),
    );
}

fn bit(value: bool) -> f64 {
    f64::from(u8::from(value))
}
