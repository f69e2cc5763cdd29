//! What one request carries between Pingora's phases.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method};

use super::affinity::Affinity;
use super::ahead::Reading;
use crate::filter::limit::Admission;
use crate::filter::{Clock, Passage};
use crate::http::{ClientCertificate, Connection, Deadline, Reason, Reply, Request, RequestId};
use crate::snapshot::{Route, RouteAction, Snapshot};
use crate::telemetry::{AccessLog, InFlight};
use crate::upstream::{Lease, Tried, Upstream};

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
    /// When reading from the client and writing to it give up
    pub deadline: Option<Arc<Deadline>>,
    /// Who sent it, after trusted proxies were believed
    pub client: IpAddr,
    /// What was asked for, made canonical
    pub target: Target,
    /// Which route took it
    pub route: Option<Arc<Route>>,
    /// Permits of the listener's limits, given back when the request ends
    pub listener_admission: Admission,
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
    /// Where the request leaves its line should it be dropped before its end: only what runs under a watch is
    pub unlogged: Option<AccessLog>,
}

/// The request's target in canonical form.
#[derive(Debug, Default)]
pub struct Target {
    /// As sent
    pub method: Method,
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
    /// Those that failed and were followed by another
    pub tried: Tried,
    /// What the request would like, where the upstream asks
    pub(super) affinity: Option<Affinity>,
    /// The endpoint in use; holding it counts as a request in flight there
    pub lease: Option<Lease>,
    /// Where the next attempt goes, if that is decided already
    pub next: Option<Lease>,
    /// When the try in use is given up, if its head has not come
    pub gives_up: Option<Instant>,
    /// What is waited for before it
    pub wait: Duration,
    /// What has been read of the response ahead of the client
    pub(super) reading: Option<Reading>,
    /// How many have been made
    pub count: u32,
    /// When the last one began
    pub began: Option<Instant>,
    /// When the last one had all of the request: from here on it is the upstream that takes its time
    pub asked: Option<Instant>,
    /// Where the last attempt went
    pub endpoint: Option<Arc<str>>,
    /// The whole exchange must be over by then; a stream's head
    pub last: Option<Instant>,
    /// When a caller by gRPC stops waiting, if it says so: the end of its stream too
    pub call_ends: Option<Instant>,
}

/// How far request and response have come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the request's body in the current attempt
    pub body_bytes: u64,
    /// Bytes of the response's body
    pub sent_bytes: u64,
    /// The request's body has arrived whole
    pub request_done: bool,
    /// A WebSocket, gRPC or server-sent events exchange
    pub stream: bool,
    /// When the response's head came from the upstream
    pub answered: Option<Instant>,
}

impl RequestCtx {
    pub(super) fn new() -> Self {
        let clock = Clock { steady: Instant::now(), wall: SystemTime::now() };
        Self {
            clock,
            id: RequestId::at(clock.wall),
            snapshot: None,
            connection: None,
            deadline: None,
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            target: Target::default(),
            route: None,
            listener_admission: Admission::default(),
            passage: Passage::default(),
            attempt: Attempts::default(),
            progress: Progress::default(),
            reason: None,
            reply: None,
            in_flight: None,
            unlogged: None,
        }
    }

    /// The request as filters see it.
    pub(super) fn request<'a>(&'a self, method: &'a Method, headers: &'a HeaderMap) -> Request<'a> {
        Request {
            method,
            host: &self.target.host,
            path: &self.target.path,
            query: self.target.query.as_deref(),
            headers,
            client: self.client,
            client_certificate: self.client_certificate(),
            route: self.route.as_ref().map_or("", |route| &route.name),
            scheme: if self.connection.as_ref().is_some_and(|it| it.is_encrypted()) { "https" } else { "http" },
            id: self.id.as_str(),
        }
    }

    /// The certificate the client has shown.
    pub(super) fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.connection.as_ref()?.tls.as_ref()?.client.as_ref()
    }

    /// Where the route sends its requests, if it does not answer them by itself.
    pub(super) fn upstream(&self) -> Option<&Arc<Upstream>> {
        match &self.route.as_ref()?.action {
            RouteAction::Upstream(upstream) => Some(upstream),
            RouteAction::Answered => None,
        }
    }

    /// Whether the whole exchange has taken too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.attempt.last.is_some_and(|last| now >= last)
    }

    /// Whether the try in use has waited long enough for its head.
    pub(super) fn has_waited(&self, now: Instant) -> bool {
        self.progress.answered.is_none() && self.attempt.gives_up.is_some_and(|at| now >= at)
    }

    /// What remains for the whole exchange.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        self.attempt.last.map(|last| last.saturating_duration_since(now))
    }
}

impl Drop for RequestCtx {
    fn drop(&mut self) {
        if let Some(access_log) = self.unlogged.take() {
            super::log::dropped(self, &access_log);
        }
    }
}

pub(super) fn is_http2(connection: &Connection) -> bool {
    connection.http2
}
