//! The right to use one endpoint once, and how that went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use pingora_core::upstreams::peer::HttpPeer;

use super::breaker::Permit;
use super::counters::Counters;
use super::endpoint::{Endpoint, State};
use super::retry::Failure;

/// Why no endpoint can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No endpoint is healthy, or no name has resolved yet
    NoHealthyEndpoint,
    /// Every endpoint that could take the request is at its cap
    EndpointsBusy,
    /// The same, and as many requests wait as may
    QueueFull,
    /// The same, for as long as a request may wait
    QueueTimeout,
    /// This request has been everywhere: what it gets is the failure it met there
    AllTried,
    /// Most tries fail: the breaker refuses more of them for a while
    BreakerOpen,
}

impl Unavailable {
    /// Every one, in the order of the counters.
    pub const ALL: [Self; 6] = [
        Self::NoHealthyEndpoint,
        Self::EndpointsBusy,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::AllTried,
        Self::BreakerOpen,
    ];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::EndpointsBusy => "endpoints_busy",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::AllTried => "all_tried",
            Self::BreakerOpen => "breaker_open",
        }
    }
}

/// How a try went. The last one that was observed is what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response's head came
    Answered(StatusCode),
    /// Refused, unreachable, or failed otherwise before there was a connection
    ConnectFailed,
    /// No connection in time
    ConnectTimeout,
    /// No TLS, a certificate that does not verify included
    TlsFailed,
    /// The connection broke before the response began
    Reset,
    /// No response head in time
    Timeout,
    /// The response was not HTTP
    ProtocolError,
    /// The response broke off after it began
    Incomplete,
    /// Nobody waited for the end: the client left, or a limit of ours ended the exchange
    Abandoned,
}

impl Outcome {
    /// Names of the results in metrics; an answer counts as an error of the server from 500 on.
    pub(super) const RESULTS: [&str; 10] = [
        "abandoned",
        "answered",
        "server_error",
        "connect_failed",
        "connect_timeout",
        "tls_failed",
        "reset",
        "timeout",
        "protocol_error",
        "incomplete",
    ];

    /// Its place in [`Self::RESULTS`].
    fn result(self) -> u8 {
        match self {
            Self::Abandoned => UNKNOWN,
            Self::Answered(status) if status.is_server_error() => 2,
            Self::Answered(_) => WELL,
            Self::ConnectFailed => 3,
            Self::ConnectTimeout => 4,
            Self::TlsFailed => 5,
            Self::Reset => 6,
            Self::Timeout => 7,
            Self::ProtocolError => 8,
            Self::Incomplete => 9,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        Self::RESULTS[usize::from(self.result())]
    }
}

/// The result of a try nobody has said anything of: that of [`Outcome::Abandoned`].
const UNKNOWN: u8 = 0;
/// When a request will have been sent whole that is being sent.
const NOT_YET: u64 = u64::MAX;
/// That of an answer below 500.
const WELL: u8 = 1;

/// The right to use one endpoint once. Dropping it gives the endpoint's place back and counts the try.
#[derive(Debug)]
#[must_use = "a lease that is dropped is a place given back"]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// Index of the last outcome's result; 0, abandoned, until there is one
    result: AtomicU8,
    permit: Permit,
    /// When it was asked for or made, where that is of interest
    began: Option<Instant>,
    /// Nanoseconds after that: when the endpoint had all it needs to answer
    asked: AtomicU64,
    /// Where latency decides
    stopwatch: Option<Stopwatch>,
    /// It is among the requests in flight of the whole upstream, which are counted where that decides
    is_counted: bool,
    /// The client is only away from the endpoint that it is bound to, which has no room at the moment
    is_away: bool,
}

/// Tells an endpoint's average how long an answer took.
#[derive(Debug)]
struct Stopwatch {
    decay: Duration,
    was_told: AtomicBool,
}

impl Stopwatch {
    /// `took` is unknown while the request is being sent.
    fn observe(&self, endpoint: &Endpoint, outcome: Outcome, took: Option<Duration>) {
        let (now, ewma) = (Instant::now(), endpoint.ewma());
        let was_told = self.was_told.swap(true, Ordering::Relaxed);
        match (outcome, took) {
            (Outcome::Answered(status), took) if !status.is_server_error() => {
                if let Some(took) = took {
                    ewma.observe(took, now, self.decay);
                }
            }
            (Outcome::Abandoned, Some(took)) if !was_told => ewma.abandoned(took, now),
            (Outcome::Abandoned, _) => {}
            // How long a response ran before it broke off says nothing.
            (Outcome::Incomplete, _) => ewma.failed(Duration::ZERO, now),
            (_, took) => ewma.failed(took.unwrap_or_default(), now),
        }
    }
}

impl Lease {
    /// For an endpoint whose place has been reserved. `timed` is since when, where latency decides, and how long one is
    /// remembered.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        permit: Permit,
        timed: Option<(Instant, Duration)>,
        is_counted: bool,
        is_away: bool,
    ) -> Self {
        if is_counted {
            endpoint.lineage().in_flight.fetch_add(1, Ordering::Relaxed);
        }
        let guard = endpoint.guard();
        let began = timed.map(|(began, _)| began);
        let began = began.or_else(|| (guard.times() || guard.breaker.is_some()).then(Instant::now));
        let stopwatch = timed.map(|(_, decay)| Stopwatch { decay, was_told: AtomicBool::new(false) });
        let (result, asked) = (AtomicU8::new(UNKNOWN), AtomicU64::new(0));
        Self { endpoint, result, permit, began, asked, stopwatch, is_counted, is_away }
    }

    /// The client has yet to send its body: until it has, time says nothing of the endpoint.
    pub fn awaits_body(&self) {
        self.asked.store(NOT_YET, Ordering::Relaxed);
    }

    /// Whether the client has yet to send its body.
    pub fn is_awaiting_body(&self) -> bool {
        self.asked.load(Ordering::Relaxed) == NOT_YET
    }

    /// The request has been sent whole: what was waited for until now was the client.
    pub fn asked(&self) {
        if let Some(began) = self.began {
            let after = began.elapsed().as_nanos();
            self.asked.store(u64::try_from(after).unwrap_or(NOT_YET), Ordering::Relaxed);
        }
    }

    /// How long the endpoint has had all of the request.
    pub(super) fn took(&self) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Relaxed);
        let began = self.began.filter(|_| asked != NOT_YET)?;
        Some(began.elapsed().saturating_sub(Duration::from_nanos(asked)))
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    /// Where the request goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How to get there: a copy that the caller may adapt, such as the read timeout of a stream. `header` is said in
    /// front of everything else; a request that `upgrades` gets a connection of its own.
    pub fn peer(&self, header: Option<Vec<u8>>, upgrades: bool) -> Box<HttpPeer> {
        let mut peer = Box::new(self.endpoint.peer().clone());
        super::dial::adapt(&mut peer, header, upgrades);
        peer
    }

    /// Says how the try went; call it as soon as it is known, and again if it went on to end otherwise.
    pub fn observe(&self, outcome: Outcome) {
        let before = self.result.swap(outcome.result(), Ordering::Relaxed);
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.observe(&self.endpoint, outcome, self.took());
        }
        match outcome {
            Outcome::Answered(_) => self.endpoint.answered(),
            Outcome::ConnectFailed | Outcome::ConnectTimeout | Outcome::TlsFailed => {
                self.endpoint.unreachable(outcome.name(), Instant::now());
            }
            // The endpoint took the connection. A reset is most often a pooled connection that it had just closed.
            Outcome::Reset | Outcome::Timeout | Outcome::ProtocolError | Outcome::Incomplete | Outcome::Abandoned => {}
        }
        let guard = self.endpoint.guard();
        match before {
            UNKNOWN => {
                let took = guard.times().then(|| self.took()).flatten();
                guard.first(&self.endpoint, self.permit, outcome, took);
            }
            _ => guard.later(&self.endpoint, self.permit, outcome, self.began),
        }
    }
}

impl Lease {
    /// Counts the request as one that retries may be a share of.
    pub(super) fn requested(&self, now: Instant) {
        self.endpoint.lineage().budget.requested(now);
    }

    /// Takes a retry from the budget of the upstream.
    pub(super) fn affords_retry(&self, percent: u8, now: Instant) -> bool {
        let affordable = self.endpoint.lineage().budget.take(percent, now);
        if !affordable {
            self.counters().over_budget();
        }
        affordable
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.endpoint.lineage().counters
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.observe(&self.endpoint, Outcome::Abandoned, self.took());
        }
        if self.is_counted {
            self.endpoint.lineage().in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        let result = self.result.load(Ordering::Relaxed);
        let guard = self.endpoint.guard();
        match (result, &guard.breaker) {
            (UNKNOWN, Some(breaker)) => breaker.give_back(self.permit),
            (WELL, _) => guard.ended_well(&self.endpoint),
            _ => {}
        }
        self.counters().finished(usize::from(result));
        // Last: whoever waits for the place may be told that by another thread, and asks the breaker too.
        self.endpoint.release();
    }
}

/// The endpoints one request has failed at. Empty, as nearly always, it holds no memory.
#[derive(Debug, Default)]
pub struct Tried(Vec<(Arc<State>, Failure)>);

impl Tried {
    /// Notes that the try of `lease` failed and that another one follows.
    pub fn add(&mut self, lease: &Lease, failure: Failure) {
        lease.counters().retried(failure);
        self.note(lease, failure);
    }

    /// Notes that the try of `lease` failed.
    pub(super) fn note(&mut self, lease: &Lease, failure: Failure) {
        self.0.push((Arc::clone(lease.endpoint.state()), failure));
    }

    /// What was noted last is not so.
    pub(super) fn forget_last(&mut self) {
        self.0.pop();
    }

    /// How many tries have failed.
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Whether this is the first try.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The worst this request met at the endpoint with this state.
    pub(super) fn failure_at(&self, state: &Arc<State>) -> Option<Failure> {
        let here = self.0.iter().filter(|(tried, _)| Arc::ptr_eq(tried, state)).map(|(_, failure)| *failure);
        here.max()
    }
}
