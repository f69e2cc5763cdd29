//! One active HTTP check.
//!
//! Over Pingora's connector, so that a check goes through the same TLS and speaks the same protocol as the traffic it
//! stands for. Not over Pingora's `HttpHealthCheck`, which has one Host for all endpoints, reads a body to its end,
//! and loads the system's certificates for each upstream, TLS or not.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, StatusCode, Uri};
use pingora::http::RequestHeader;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{BError, Error, ErrorType};

use super::Thresholds;
use crate::config::{self, Problem, ProxyHeader, UpstreamProtocol};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::{announcement, dial};

/// Who asks.
const AGENT: HeaderValue = HeaderValue::from_static("tollgate-health");
/// Read instead of the system's certificates where those decide nothing.
const NO_CERTIFICATES: &str = "/dev/null";

/// How an upstream's endpoints are checked.
pub(in crate::upstream) struct Check {
    path: PathAndQuery,
    host: Option<Authority>,
    port: Option<u16>,
    expect_status: Vec<RangeInclusive<u16>>,
    timeout: Duration,
    interval: Duration,
    thresholds: Thresholds,
    speaks_h2: bool,
    announces: Option<ProxyHeader>,
    needs_system_certificates: bool,
    /// Made by the first check, since it reads certificates from disk
    connector: OnceLock<Connector>,
}

impl Check {
    pub(in crate::upstream) fn build(spec: &config::Health, upstream: &config::Upstream) -> Result<Self, Problem> {
        let path = spec.path.parse().map_err(|_| Problem::new("health.path", "not a path that can be requested"))?;
        let host = spec.host.as_ref().map(|host| host.parse());
        Ok(Self {
            path,
            host: host.transpose().map_err(|_| Problem::new("health.host", "not a host"))?,
            port: spec.port,
            expect_status: spec.expect_status.clone(),
            timeout: spec.timeout,
            interval: spec.interval,
            thresholds: Thresholds { healthy_after: spec.healthy_after, unhealthy_after: spec.unhealthy_after },
            speaks_h2: upstream.protocol != UpstreamProtocol::Http1,
            announces: upstream.proxy_protocol,
            needs_system_certificates: upstream.tls.as_ref().is_some_and(|tls| tls.ca.is_none()),
            connector: OnceLock::new(),
        })
    }

    pub(in crate::upstream) fn interval(&self) -> Duration {
        self.interval
    }

    pub(in crate::upstream) fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// Asks once; the error says why the endpoint is not well.
    pub(in crate::upstream) async fn run(&self, endpoint: &Endpoint) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.ask(endpoint)).await {
            Ok(Ok(status)) if self.expect_status.iter().any(|range| range.contains(&status.as_u16())) => Ok(()),
            Ok(Ok(status)) => Err(format!("the check was answered with {}", status.as_u16())),
            Ok(Err(error)) => Err(format!("the check failed: {error}")),
            Err(_) => Err(format!("the check was not answered within {:?}", self.timeout)),
        }
    }

    /// A connection of its own each time: one that is already there says nothing about the next.
    async fn ask(&self, endpoint: &Endpoint) -> Result<StatusCode, BError> {
        let peer = self.peer(endpoint);
        let request = self.request(endpoint, &peer)?;
        let (mut session, _) = self.connector().get_http_session(&peer).await?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            let status = session.response_header().map_or(StatusCode::BAD_GATEWAY, |response| response.status);
            // An interim response (RFC 9110 section 15.2) is followed by another; 101 is none that was asked for.
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(status);
            }
        }
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

    fn request(&self, endpoint: &Endpoint, peer: &HttpPeer) -> Result<RequestHeader, BError> {
        let host = self.host.as_ref().map_or_else(|| endpoint.authority(), Authority::as_str);
        let mut request = RequestHeader::build(Method::GET, self.path.as_str().as_bytes(), None)?;
        request.insert_header(USER_AGENT, AGENT)?;
        if !self.speaks_h2 {
            request.insert_header(HOST, host)?;
            return Ok(request);
        }
        let scheme = if peer.is_tls() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(self.path.clone()).build();
        request.set_uri(
            uri.map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "no target for the check", error))?,
        );
        Ok(request)
    }

    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| {
            let mut options = ConnectorOptions::new(1);
            if !self.needs_system_certificates {
                options.ca_file = Some(NO_CERTIFICATES.to_owned());
            }
            Connector::new(Some(options))
        })
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({} every {:?})", self.path, self.interval)
    }
}
