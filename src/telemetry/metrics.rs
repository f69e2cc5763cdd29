//! What is counted per request, with every counter found when the snapshot is built.
//!
//! Labels are names from the configuration, methods of a closed list and status codes: nothing a client sends can
//! make a new series. A series appears with its first count, so that a route does not begin with hundreds of zeros.

use std::sync::{Arc, OnceLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::handshakes::{HandshakeFailure, Handshakes};
use super::route::Routes;
use super::{RouteMetrics, Scrape};
use crate::config::Name;
use crate::http::Reason;

/// Route label of requests that no route took.
const NO_ROUTE: &str = "_none";
/// All metrics of the process, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: Routes,
    refused: IntCounterVec,
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    handshakes: IntCounterVec,
    handshake_errors: IntCounterVec,
    reloads: IntCounterVec,
    upgrades: IntCounterVec,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(counters.clone())).expect("registered once");
            counters
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(gauges.clone())).expect("registered once");
            gauges
        };
        let metrics = Self {
            routes: Routes::default(),
            refused: counters(
                "tollgate_refused_total",
                "Requests and connections that we answered or ended ourselves.",
                &["listener", "reason"],
            ),
            connections: gauges("tollgate_connections", "Open client connections.", &["listener"]),
            accepted: counters(
                "tollgate_connections_total",
                "Client connections accepted, failures to accept, and those of the accepted that came too fast (rate_limited).",
                &["listener", "result"],
            ),
            handshakes: counters(
                "tollgate_tls_handshakes_total",
                "TLS handshakes that succeeded, by version and whether a session was resumed.",
                &["listener", "version", "resumed"],
            ),
            handshake_errors: counters(
                "tollgate_tls_handshake_errors_total",
                "TLS handshakes that failed.",
                &["listener", "kind"],
            ),
            reloads: counters("tollgate_config_reloads_total", "Reloads of the configuration.", &["result"]),
            upgrades: counters("tollgate_upgrades_total", "Hand-overs to a successor.", &["result"]),
            registry,
        };
        // Zeros from the start: a first failure that makes its series shows no increase.
        for counters in [&metrics.reloads, &metrics.upgrades] {
            for succeeded in [true, false] {
                counters.with_label_values(&[outcome(succeeded)]);
            }
        }
        metrics.register_process();
        metrics
    }

    fn register_process(&self) {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        self.registry.register(Box::new(process)).expect("registered once");
        let info =
            Opts::new("tollgate_build_info", "The running version.").const_label("version", env!("CARGO_PKG_VERSION"));
        let info = IntGauge::with_opts(info).expect("a valid name");
        info.set(1);
        self.registry.register(Box::new(info)).expect("registered once");
    }

    /// The counters of one listener.
    pub fn listener(&self, name: &Name) -> ListenerMetrics {
        ListenerMetrics {
            refusals: self.refusals(name),
            open: self.connections.with_label_values(&[&**name]),
            accepted: self.accepted.with_label_values(&[&**name, "accepted"]),
            failed: self.accepted.with_label_values(&[&**name, "failed"]),
            rate_limited: self.accepted.with_label_values(&[&**name, "rate_limited"]),
            handshakes: Handshakes::new(name, &self.handshakes, &self.handshake_errors),
        }
    }

    /// The counters of one route, for each listener it may be reached by, and of the upstream it leads to.
    pub fn route<'a>(
        &self,
        listeners: impl Iterator<Item = &'a Name>,
        route: &Name,
        upstream: Option<&Name>,
    ) -> RouteMetrics {
        self.routes.route(listeners, route, upstream)
    }

    /// The counters of requests that no route took.
    pub fn unrouted<'a>(&self, listeners: impl Iterator<Item = &'a Name>) -> RouteMetrics {
        self.route(listeners, &Name::from(NO_ROUTE), None)
    }

    /// The counters of what one listener's clients were refused.
    pub fn refusals(&self, listener: &Name) -> Refusals {
        Refusals(Arc::new(RefusalCounters {
            listener: listener.clone(),
            refused: self.refused.clone(),
            children: Reason::ALL.iter().map(|_| OnceLock::new()).collect(),
        }))
    }

    /// A reload came to its end.
    pub fn reloaded(&self, succeeded: bool) {
        self.reloads.with_label_values(&[outcome(succeeded)]).inc();
    }

    /// A hand-over came to its end.
    pub fn upgraded(&self, succeeded: bool) {
        self.upgrades.with_label_values(&[outcome(succeeded)]).inc();
    }

    /// Everything in Prometheus' text format; `add` brings what other rooms keep themselves.
    pub fn render(&self, add: impl FnOnce(&mut Scrape)) -> String {
        let mut scrape = Scrape::new(self.registry.gather());
        self.routes.add_to(&mut scrape);
        add(&mut scrape);
        scrape.text()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

/// What is counted at one listener.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    refusals: Refusals,
    open: IntGauge,
    accepted: IntCounter,
    failed: IntCounter,
    rate_limited: IntCounter,
    handshakes: Handshakes,
}

/// Requests and connections of one listener that we answered or ended ourselves, by reason.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<RefusalCounters>);

#[derive(Debug)]
struct RefusalCounters {
    listener: Name,
    refused: IntCounterVec,
    /// In the order of the reasons, made when first counted
    children: Box<[OnceLock<IntCounter>]>,
}

impl Refusals {
    /// One more.
    pub fn count(&self, reason: Reason) {
        let RefusalCounters { listener, refused, children } = &*self.0;
        let Some(child) = Reason::ALL.iter().position(|other| *other == reason).and_then(|at| children.get(at)) else {
            return;
        };
        child.get_or_init(|| refused.with_label_values(&[&**listener, reason.name()])).inc();
    }
}

/// Counts as an open connection until dropped.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl ListenerMetrics {
    /// A connection or a request that ends before it has a route.
    pub fn refuse(&self, reason: Reason) {
        self.refusals.count(reason);
    }

    /// A connection was accepted.
    pub fn connection(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// A connection was closed because its address connects too fast.
    pub fn rate_limited(&self) {
        self.rate_limited.inc();
    }

    /// A TLS handshake succeeded.
    pub fn shaken(&self, version: &str, is_resumed: bool) {
        self.handshakes.done(version, is_resumed);
    }

    /// A TLS handshake failed, and with it the connection.
    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.refuse(Reason::TlsHandshake);
        self.handshakes.failed(failure);
    }

    /// Accepting failed for want of a resource.
    pub fn accept_failed(&self) {
        self.failed.inc();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;

    #[test]
    fn a_request_is_counted_by_listener_route_method_and_code() {
        let metrics = Metrics::new();
        let (http, route) = (Name::from("http"), Name::from("orders"));
        let counters = metrics.route(std::iter::once(&http), &route, Some(&"shop".into()));
        let in_flight = counters.start();
        let text = metrics.render(|_| {});
        assert!(text.contains("tollgate_http_requests_in_flight{route=\"orders\"} 1"), "{text}");
        assert!(!text.contains("tollgate_http_requests_total{"), "a series appears with its first count");
        drop(in_flight);
        counters.answered(Duration::from_millis(2));
        let brew = Method::from_bytes(b"BREW").expect("a token");
        counters.finish(&http, &Method::GET, StatusCode::OK, Duration::from_millis(3));
        counters.finish(&http, &brew, StatusCode::IM_A_TEAPOT, Duration::from_millis(3));
        let text = metrics.render(|_| {});
        for line in [
            "tollgate_http_requests_in_flight{route=\"orders\"} 0",
            "tollgate_http_requests_total{code=\"200\",listener=\"http\",method=\"GET\",route=\"orders\"} 1",
            "tollgate_http_requests_total{code=\"418\",listener=\"http\",method=\"_other\",route=\"orders\"} 1",
            "tollgate_http_request_duration_seconds_bucket{route=\"orders\",le=\"0.005\"} 2",
            "tollgate_upstream_request_duration_seconds_count{upstream=\"shop\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let metrics = Metrics::new();
        let refusals = metrics.refusals(&"http".into());
        refusals.count(Reason::NoRoute);
        refusals.count(Reason::NoRoute);
        metrics.listener(&"http".into()).refuse(Reason::BadHost);
        let text = metrics.render(|_| {});
        assert!(text.contains("tollgate_refused_total{listener=\"http\",reason=\"no_route\"} 2"), "{text}");
        assert!(text.contains("tollgate_refused_total{listener=\"http\",reason=\"bad_host\"} 1"), "{text}");
    }

    #[test]
    fn an_open_connection_is_counted_until_it_is_dropped() {
        let metrics = Metrics::new();
        let listener = metrics.listener(&"http".into());
        let open = listener.connection();
        assert!(metrics.render(|_| {}).contains("tollgate_connections{listener=\"http\"} 1"));
        drop(open);
        assert!(metrics.render(|_| {}).contains("tollgate_connections{listener=\"http\"} 0"));
    }
}
