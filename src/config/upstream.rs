//! `[upstreams.NAME]`: where requests go.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{Balance, EndpointAddress, FileContent, Name, Queue, Sticky};

/// `[upstreams.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// At least one, here or in the file
    pub endpoints: Vec<Endpoint>,
    /// `endpoints_file`: more of them; default: none
    pub endpoints_file: Option<EndpointsFile>,
    /// Whom names are asked of; default: the system's nameservers
    pub nameservers: Vec<SocketAddr>,
    /// Default: round_robin
    pub balance: Balance,
    /// Default: none
    pub sticky: Option<Sticky>,
    /// How long the share of a new or recovered endpoint grows; default: not at all
    pub slow_start: Option<Duration>,
    /// Where this gateway is: `[server] zone`
    pub zone: Option<Name>,
    /// Default: http/1.1
    pub protocol: UpstreamProtocol,
    /// Default: preserve
    pub host: Host,
    /// Whom a connection is for is said in front of it; default: off
    pub proxy_protocol: Option<ProxyHeader>,
    /// Requests in flight at one endpoint; default: none
    pub max_requests_per_endpoint: Option<NonZeroU32>,
    /// Who may wait while every endpoint is at that number; default: nobody
    pub queue: Option<Queue>,
    /// Present = TLS, always verified
    pub tls: Option<UpstreamTls>,
    /// `[upstreams.NAME.timeouts]`
    pub timeouts: Timeouts,
    /// `[upstreams.NAME.health]`; default: none, only passive signs
    pub health: Option<Health>,
    /// `[upstreams.NAME.retry]`
    pub retry: Retry,
    /// `[upstreams.NAME.outlier]`; default: none
    pub outlier: Option<Outlier>,
    /// `[upstreams.NAME.breaker]`; default: none
    pub breaker: Option<Breaker>,
    /// Default: refuse
    pub when_all_down: WhenAllDown,
}

#[cfg(test)]
impl Upstream {
    /// One of which nothing else is written.
    pub(crate) fn plain(endpoints: Vec<Endpoint>, balance: super::Balance) -> Self {
        Self {
            endpoints,
            endpoints_file: None,
            nameservers: Vec::new(),
            balance,
            sticky: None,
            slow_start: None,
            zone: None,
            protocol: UpstreamProtocol::Http1,
            host: Host::Preserve,
            proxy_protocol: None,
            max_requests_per_endpoint: None,
            queue: None,
            tls: None,
            timeouts: Timeouts::default(),
            health: None,
            retry: Retry::default(),
            outlier: None,
            breaker: None,
            when_all_down: WhenAllDown::Refuse,
        }
    }
}

/// One entry of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An address, a name to resolve, or a Unix socket
    pub address: EndpointAddress,
    /// Share of the traffic, relative to the others; default: 1, at most 1000
    pub weight: u32,
    /// A higher one is used as far as lower ones are not healthy enough; default: 0
    pub priority: u8,
    /// Where it is; default: nowhere in particular
    pub zone: Option<Name>,
}

/// A file of endpoints, which is followed while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsFile {
    /// Where it is
    pub path: PathBuf,
    /// What it held when the configuration was read; at least one
    pub endpoints: Vec<Endpoint>,
}

/// The protocol spoken to the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// `http/1.1`
    Http1,
    /// `h2`, over TLS
    Http2,
    /// `h2c`: h2 without TLS, by prior knowledge
    Http2Cleartext,
}

/// `proxy_protocol` of an upstream: how it is told of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// What the upstream sees as Host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// What the client sent
    Preserve,
    /// A fixed name
    Fixed(http::HeaderValue),
}

/// `[upstreams.NAME.tls]`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// The name the certificate must have; never empty
    pub server_name: String,
    /// Trust these instead of the system's; PEM
    pub ca: Option<FileContent>,
    /// `client_cert_file` and `client_key_file`; PEM
    pub client: Option<super::Certificate>,
}

/// `[upstreams.NAME.timeouts]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Default: 2s
    pub connect: Duration,
    /// One try, from the request's last byte to the response's head; default: none
    pub per_try: Option<Duration>,
    /// To the response's head; default: 30s
    pub first_byte: Duration,
    /// Between two reads or writes; default: 30s
    pub idle: Duration,
    /// An idle pooled connection; default: 50s
    pub keepalive: Duration,
}

/// `[upstreams.NAME.health]`
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// `type`
    pub kind: HealthKind,
    /// Default: the endpoint's
    pub port: Option<u16>,
    /// Default: 5s
    pub interval: Duration,
    /// While an endpoint is unhealthy; default: the interval
    pub unhealthy_interval: Duration,
    /// Default: 1s
    pub timeout: Duration,
    /// Good answers in a row that make an endpoint healthy; default: 2
    pub healthy_after: NonZeroU32,
    /// Bad answers in a row that make it unhealthy; default: 3
    pub unhealthy_after: NonZeroU32,
}

/// What is asked, and which answer is a good one.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthKind {
    /// `http`
    Http {
        /// The path asked for; default: "/"
        path: String,
        /// Host header; default: the endpoint's address
        host: Option<String>,
        /// Default: 200-299
        expect_status: Vec<RangeInclusive<u16>>,
        /// Text that the body has to hold; default: any body
        expect_body: Option<String>,
    },
    /// `tcp`: a connection, TLS included where the upstream has it
    Tcp,
    /// `grpc`: `grpc.health.v1.Health/Check`
    Grpc {
        /// The service asked about; default: "", the server as a whole
        service: String,
        /// The authority; default: the endpoint's address
        host: Option<String>,
    },
}

/// `[upstreams.NAME.outlier]`: what requests themselves tell of an endpoint
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// In a row, no response or one from 500 on; default: 5
    pub consecutive_failures: Option<NonZeroU32>,
    /// In a row, no response or 502, 503 or 504; default: none
    pub consecutive_gateway_errors: Option<NonZeroU32>,
    /// Percentage points that its success rate may be below the mean of the others; default: none
    pub success_rate_below: Option<u8>,
    /// How many times the others' mean its time to the response's head may be; default: none
    pub slower_than: Option<NonZeroU32>,
    /// Requests within an interval that make a rate worth comparing; default: 100
    pub min_requests: NonZeroU32,
    /// How often rates are compared; default: 10s
    pub interval: Duration,
    /// The first ejection, times the number of those in a row; default: 30s
    pub ejection: Duration,
    /// The longest; default: 5m
    pub max_ejection: Duration,
    /// Percent of the endpoints that may be out at once; default: 50
    pub max_ejected: u8,
}

/// `[upstreams.NAME.breaker]`
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// Percent of failures that open it; default: 50
    pub failures: u8,
    /// Tries within the window that make a share; default: 20
    pub min_requests: NonZeroU32,
    /// Default: 10s
    pub window: Duration,
    /// Before the first trial; default: 5s
    pub open_for: Duration,
    /// Trials in a row that have to succeed; default: 3
    pub trials: NonZeroU32,
}

/// What becomes of a request when every endpoint is unhealthy or ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllDown {
    /// 503
    Refuse,
    /// It is sent all the same: what is said of the endpoints may be wrong
    Try,
}

/// `[upstreams.NAME.retry]`
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Default: 1; 0 turns retries off
    pub max_retries: u32,
    /// Default: connect_failure and reset
    pub on: Vec<RetryOn>,
    /// Methods that may be sent again although the endpoint may have acted on them; default: the idempotent ones
    /// (RFC 9110 section 9.2.2)
    pub methods: Vec<http::Method>,
    /// Percent of the upstream's requests that may be retries; default: 20
    pub budget: Option<u8>,
    /// Before the first retry of those that wait, doubled for each one after it; default: 25ms
    pub backoff: Duration,
}

/// What is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// Nothing was sent: safe for every method
    ConnectFailure,
    /// The connection broke before the first byte of the response
    Reset,
    /// No response in time
    Timeout,
    /// A response with a status from the first to the last
    Status(u16, u16),
}
