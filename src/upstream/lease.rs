//! The right to use one endpoint once, and how that went.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use http::StatusCode;
use pingora_core::upstreams::peer::HttpPeer;

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
}

impl Unavailable {
    /// Every one, in the order of the counters.
    pub const ALL: [Self; 5] =
        [Self::NoHealthyEndpoint, Self::EndpointsBusy, Self::QueueFull, Self::QueueTimeout, Self::AllTried];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::EndpointsBusy => "endpoints_busy",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::AllTried => "all_tried",
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
            Self::Abandoned => 0,
            Self::Answered(status) if status.is_server_error() => 2,
            Self::Answered(_) => 1,
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

/// The right to use one endpoint once. Dropping it gives the endpoint's place back and counts the try.
#[derive(Debug)]
#[must_use = "a lease that is dropped is a place given back"]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// Index of the last outcome's result; 0, abandoned, until there is one
    result: AtomicU8,
}

impl Lease {
    /// For an endpoint whose place has been reserved.
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, result: AtomicU8::new(Outcome::Abandoned.result()) }
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
        self.result.store(outcome.result(), Ordering::Relaxed);
        match outcome {
            Outcome::Answered(_) => self.endpoint.answered(),
            Outcome::ConnectFailed | Outcome::ConnectTimeout | Outcome::TlsFailed => {
                self.endpoint.unreachable(outcome.name(), Instant::now());
            }
            // The endpoint took the connection. A reset is most often a pooled connection that it had just closed.
            Outcome::Reset | Outcome::Timeout | Outcome::ProtocolError | Outcome::Incomplete | Outcome::Abandoned => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.release();
        self.endpoint.counters().finished(usize::from(self.result.load(Ordering::Relaxed)));
    }
}

/// The endpoints one request has failed at. Empty, as nearly always, it holds no memory.
#[derive(Debug, Default)]
pub struct Tried(Vec<(Arc<State>, Failure)>);

impl Tried {
    /// Notes that the try of `lease` failed and that another one follows.
    pub fn add(&mut self, lease: &Lease, failure: Failure) {
        lease.endpoint.counters().retried(failure);
        self.0.push((Arc::clone(lease.endpoint.state()), failure));
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
