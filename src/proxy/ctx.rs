//! What one request carries between Pingora's phases.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::filter::{Clock, Passage};
use crate::http::{Connection, Reason, Reply, Request, RequestId};
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::InFlight;
use crate::upstream::{Lease, Tried};

/// One request's memory. Created by Pingora when a head has arrived; dropped when the request is logged.
#[derive(Debug)]
pub struct RequestCtx {
    /// When the head was complete
    pub clock: Clock,
    /// Names the request in answers, logs and upstream
    pub id: RequestId,
    /// The truth this request is pinned to
    pub snapshot: Option<Arc<Snapshot>>,
    /// Where it came in
    pub connection: Option<Arc<Connection>>,
    /// Who sent it, after trusted proxies were believed
    pub client: IpAddr,
    /// What was asked for, made canonical
    pub target: Target,
    /// Which route took it
    pub route: Option<Arc<Route>>,
    /// What the filters gave it to take along
    pub passage: Passage,
    /// The attempts to have it answered
    pub attempt: Attempts,
    /// How far request and response have come
    pub progress: Progress,
    /// Why it did not go as usual
    pub reason: Option<Reason>,
    /// The answer to write where Pingora asks for one
    pub reply: Option<Reply>,
    /// Counted until dropped
    pub in_flight: Option<InFlight>,
}

/// The request's target in canonical form.
#[derive(Debug, Default)]
pub struct Target {
    /// Lower case, without a port
    pub host: String,
    /// The port of Host or :authority, if one was sent
    pub port: Option<u16>,
    /// Canonical path
    pub path: String,
    /// Without `?`
    pub query: Option<String>,
    /// The path is not what was sent, so the request upstream must be changed
    pub changed: bool,
}

/// The attempts to reach the upstream.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Endpoints that were tried
    pub tried: Tried,
    /// The endpoint in use; holding it counts as a request in flight there
    pub lease: Option<Lease>,
    /// Attempts after the first
    pub retries: u32,
    /// When the current attempt began
    pub began: Option<Instant>,
    /// The whole exchange must be over by then
    pub deadline: Option<Instant>,
}

/// How far request and response have come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the request's body in the current attempt
    pub body_bytes: u64,
    /// The request's body has arrived whole
    pub request_done: bool,
    /// A WebSocket, gRPC or server-sent events exchange
    pub stream: bool,
    /// When the response's head came from the upstream
    pub answered: Option<Instant>,
}

impl RequestCtx {
    pub(super) fn new() -> Self {
        Self {
            clock: Clock { steady: Instant::now(), wall: SystemTime::now() },
            id: RequestId::new(),
            snapshot: None,
            connection: None,
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            target: Target::default(),
            route: None,
            passage: Passage::default(),
            attempt: Attempts::default(),
            progress: Progress::default(),
            reason: None,
            reply: None,
            in_flight: None,
        }
    }

    /// The request as filters see it.
    pub(super) fn request<'a>(&'a self, method: &'a http::Method, headers: &'a http::HeaderMap) -> Request<'a> {
        Request {
            method,
            host: &self.target.host,
            path: &self.target.path,
            query: self.target.query.as_deref(),
            headers,
            client: self.client,
            route: self.route.as_ref().map_or("", |route| &route.name),
        }
    }

    /// Whether the whole exchange has taken too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.attempt.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// What remains for the whole exchange.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        self.attempt.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Something moved: the exchange may be silent for `silence` from `now` on, but not beyond its deadline.
    ///
    /// Only HTTP/1 connections are bound this way: on h2 one connection carries many requests.
    pub(super) fn extend(&self, now: Instant, silence: Duration) {
        let Some(connection) = self.connection.as_ref().filter(|connection| !is_http2(connection)) else {
            return;
        };
        let quiet_until = now + silence;
        connection.set_deadline(Some(self.attempt.deadline.map_or(quiet_until, |deadline| deadline.min(quiet_until))));
    }
}

pub(super) fn is_http2(connection: &Connection) -> bool {
    connection.tls.as_ref().is_some_and(|tls| tls.http2)
}
