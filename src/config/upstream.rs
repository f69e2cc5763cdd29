//! `[upstreams.NAME]`: where requests go.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{EndpointAddress, FileContent, Queue};

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
}

/// One entry of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An address, a name to resolve, or a Unix socket
    pub address: EndpointAddress,
    /// Share of the traffic, relative to the others; default: 1, at most 1000
    pub weight: u32,
}

/// A file of endpoints, which is followed while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsFile {
    /// Where it is
    pub path: PathBuf,
    /// What it held when the configuration was read; at least one
    pub endpoints: Vec<Endpoint>,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin
    RoundRobin,
    /// The less busy of two picked at random, by requests in flight over weight
    LeastRequest,
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
    /// To the response's head; default: 30s
    pub first_byte: Duration,
    /// Between two reads or writes; default: 30s
    pub idle: Duration,
    /// An idle pooled connection; default: 50s
    pub keepalive: Duration,
}

/// `[upstreams.NAME.health]`, `type = "http"`
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The path asked for; default: "/"
    pub path: String,
    /// Host header; default: the endpoint's address
    pub host: Option<String>,
    /// Default: the endpoint's
    pub port: Option<u16>,
    /// Default: 200-299
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Default: 5s
    pub interval: Duration,
    /// Default: 1s
    pub timeout: Duration,
    /// Good answers in a row that make an endpoint healthy; default: 2
    pub healthy_after: NonZeroU32,
    /// Bad answers in a row that make it unhealthy; default: 3
    pub unhealthy_after: NonZeroU32,
}

/// `[upstreams.NAME.retry]`
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Default: 1; 0 turns retries off
    pub max_retries: u32,
    /// Default: connect_failure and reset
    pub on: Vec<RetryOn>,
    /// Methods that may be sent again after a reset; default: the idempotent ones (RFC 9110 section 9.2.2)
    pub methods: Vec<http::Method>,
}

/// What is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// Nothing was sent: safe for every method
    ConnectFailure,
    /// The connection broke before the first byte of the response
    Reset,
}
