//! One active check.
//!
//! Over Pingora's connector, so that a check goes through the same TLS and speaks the same protocol as the traffic it
//! stands for. Not over Pingora's `HttpHealthCheck`, which has one Host for all endpoints, reads a body to its end,
//! and loads the system's certificates for each upstream, TLS or not.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, StatusCode, Uri};
use pingora::http::RequestHeader;
use pingora_core::connectors::http::Connector;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{BError, Error, ErrorType};

use super::{Thresholds, grpc};
use crate::config::{self, HealthKind, Problem, ProxyHeader, UpstreamProtocol};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::{announcement, dial};

/// Who asks.
const AGENT: HeaderValue = HeaderValue::from_static("tollgate-health");
/// Read instead of the system's certificates where those decide nothing.
const NO_CERTIFICATES: &str = "/dev/null";
/// How far a body is read in search of what is expected there.
const MAX_BODY: usize = 64 * 1024;

/// How an upstream's endpoints are checked.
pub(in crate::upstream) struct Check {
    question: Question,
    port: Option<u16>,
    timeout: Duration,
    intervals: Intervals,
    thresholds: Thresholds,
    speaks_h2: bool,
    announces: Option<ProxyHeader>,
    needs_system_certificates: bool,
    /// Made by the first check, since they read certificates from disk
    connector: OnceLock<Connector>,
    transport: OnceLock<TransportConnector>,
}

/// How often endpoints are asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct Intervals {
    pub(in crate::upstream) healthy: Duration,
    pub(in crate::upstream) unhealthy: Duration,
}

enum Question {
    /// Whether there is a connection to be had
    Connection,
    Http {
        path: PathAndQuery,
        host: Option<Authority>,
        expect_status: Vec<RangeInclusive<u16>>,
        expect_body: Option<String>,
    },
    Grpc {
        message: Bytes,
        host: Option<Authority>,
    },
}

/// Why an endpoint is not well.
enum Illness {
    Failed(BError),
    Answered(String),
}

impl From<BError> for Illness {
    fn from(error: BError) -> Self {
        Self::Failed(error)
    }
}

impl Check {
    pub(in crate::upstream) fn build(spec: &config::Health, upstream: &config::Upstream) -> Result<Self, Problem> {
        let speaks_h2 = upstream.protocol != UpstreamProtocol::Http1;
        Ok(Self {
            question: question(&spec.kind, speaks_h2)?,
            port: spec.port,
            timeout: spec.timeout,
            intervals: Intervals { healthy: spec.interval, unhealthy: spec.unhealthy_interval },
            thresholds: Thresholds { healthy_after: spec.healthy_after, unhealthy_after: spec.unhealthy_after },
            speaks_h2,
            announces: upstream.proxy_protocol,
            needs_system_certificates: upstream.tls.as_ref().is_some_and(|tls| tls.ca.is_none()),
            connector: OnceLock::new(),
            transport: OnceLock::new(),
        })
    }

    pub(in crate::upstream) fn intervals(&self) -> Intervals {
        self.intervals
    }

    pub(in crate::upstream) fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// Asks once; the error says why the endpoint is not well.
    pub(in crate::upstream) async fn run(&self, endpoint: &Endpoint) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.ask(endpoint)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Illness::Answered(why))) => Err(format!("the check was answered with {why}")),
            Ok(Err(Illness::Failed(error))) => Err(format!("the check failed: {error}")),
            Err(_) => Err(format!("the check was not answered within {:?}", self.timeout)),
        }
    }

    /// A connection of its own each time: one that is already there says nothing about the next.
    async fn ask(&self, endpoint: &Endpoint) -> Result<(), Illness> {
        let peer = self.peer(endpoint);
        match &self.question {
            Question::Connection => drop(self.transport().new_stream(&peer).await?),
            Question::Http { path, host, expect_status, expect_body } => {
                let request = self.request(Method::GET, path, host.as_ref(), endpoint, &peer)?;
                let (mut session, _) = self.connector().get_http_session(&peer).await?;
                session.write_request_header(Box::new(request)).await?;
                session.finish_request_body().await?;
                let status = status(&mut session).await?;
                if !expect_status.iter().any(|range| range.contains(&status.as_u16())) {
                    return Err(Illness::Answered(status.as_u16().to_string()));
                }
                if let Some(expected) = expect_body
                    && !contains(&body(&mut session).await?, expected.as_bytes())
                {
                    return Err(Illness::Answered("a body that does not hold what is expected".to_owned()));
                }
            }
            Question::Grpc { message, host } => {
                let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
                let mut request = self.request(Method::POST, &path, host.as_ref(), endpoint, &peer)?;
                request.insert_header(CONTENT_TYPE, "application/grpc")?;
                request.insert_header(TE, "trailers")?;
                let (mut session, _) = self.connector().get_http_session(&peer).await?;
                session.write_request_header(Box::new(request)).await?;
                session.write_request_body(message.clone(), true).await?;
                let status = status(&mut session).await?;
                if status != StatusCode::OK {
                    return Err(Illness::Answered(status.as_u16().to_string()));
                }
                if let Some(code) = session.response_header().and_then(|head| head.headers.get("grpc-status")) {
                    return Err(Illness::Answered(format!("grpc-status {}", code.to_str().unwrap_or("?"))));
                }
                grpc::serves(&body(&mut session).await?).map_err(|why| Illness::Answered(why.to_owned()))?;
            }
        }
        Ok(())
    }

    fn peer(&self, endpoint: &Endpoint) -> HttpPeer {
        let mut peer = endpoint.peer().clone();
        if let Some(port) = self.port {
            peer._address.set_port(port);
        }
        if let Some(version) = self.announces {
            dial::adapt(&mut peer, Some(announcement(version, None)), false);
        }
        // One stream a connection, so that no connection is kept for others to share.
        peer.options.max_h2_streams = 1;
        peer
    }

    fn request(
        &self,
        method: Method,
        path: &PathAndQuery,
        host: Option<&Authority>,
        endpoint: &Endpoint,
        peer: &HttpPeer,
    ) -> Result<RequestHeader, BError> {
        let host = host.map_or_else(|| endpoint.authority(), Authority::as_str);
        let mut request = RequestHeader::build(method, path.as_str().as_bytes(), None)?;
        request.insert_header(USER_AGENT, AGENT)?;
        if !self.speaks_h2 {
            request.insert_header(HOST, host)?;
            return Ok(request);
        }
        let scheme = if peer.is_tls() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path.clone()).build();
        request.set_uri(
            uri.map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "no target for the check", error))?,
        );
        Ok(request)
    }

    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| Connector::new(Some(self.connector_options())))
    }

    fn transport(&self) -> &TransportConnector {
        self.transport.get_or_init(|| TransportConnector::new(Some(self.connector_options())))
    }

    fn connector_options(&self) -> ConnectorOptions {
        let mut options = ConnectorOptions::new(1);
        if !self.needs_system_certificates {
            options.ca_file = Some(NO_CERTIFICATES.to_owned());
        }
        options
    }
}

fn question(kind: &HealthKind, speaks_h2: bool) -> Result<Question, Problem> {
    let authority = |host: &Option<String>| {
        let host = host.as_ref().map(|host| host.parse()).transpose();
        host.map_err(|_| Problem::new("health.host", "not a host"))
    };
    match kind {
        HealthKind::Tcp => Ok(Question::Connection),
        HealthKind::Http { path, host, expect_status, expect_body } => Ok(Question::Http {
            path: path.parse().map_err(|_| Problem::new("health.path", "not a path that can be requested"))?,
            host: authority(host)?,
            expect_status: expect_status.clone(),
            expect_body: expect_body.clone(),
        }),
        HealthKind::Grpc { .. } if !speaks_h2 => {
            Err(Problem::new("health.type", "gRPC is spoken over HTTP/2: it needs `protocol` \"h2\" or \"h2c\""))
        }
        HealthKind::Grpc { service, host } => {
            Ok(Question::Grpc { message: grpc::question(service), host: authority(host)? })
        }
    }
}

/// That of the final response.
async fn status(session: &mut HttpSession) -> Result<StatusCode, BError> {
    loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(StatusCode::BAD_GATEWAY, |response| response.status);
        // An interim response (RFC 9110 section 15.2) is followed by another; 101 is none that was asked for.
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(status);
        }
    }
}

/// The beginning of a body.
async fn body(session: &mut HttpSession) -> Result<Vec<u8>, BError> {
    let mut body = Vec::new();
    while body.len() < MAX_BODY
        && let Some(piece) = session.read_response_body().await?
    {
        body.extend_from_slice(&piece[..piece.len().min(MAX_BODY - body.len())]);
    }
    Ok(body)
}

fn contains(body: &[u8], expected: &[u8]) -> bool {
    body.windows(expected.len().max(1)).any(|window| window == expected)
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = match &self.question {
            Question::Connection => "a connection",
            Question::Http { path, .. } => path.as_str(),
            Question::Grpc { .. } => "gRPC",
        };
        write!(f, "Check({question} every {:?})", self.intervals.healthy)
    }
}
