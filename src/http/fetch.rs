//! The one outbound HTTP client: small documents from servers the operator has named.
//!
//! Everything is bounded, the whole exchange by one timeout, and what is asked for is what is answered: no redirects are
//! followed, since a redirect is another server's choice of whom to trust. Nothing is kept between calls. Documents are
//! fetched minutes apart, so a kept connection would be dead and a kept set of root certificates out of date.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

/// A response's head: hyper reads no more than this at once.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What one exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From looking up the name to the last byte of the body
    pub timeout: Duration,
    /// Of the body
    pub max_bytes: usize,
}

/// A complete response, whatever its status.
#[derive(Debug)]
pub struct Fetched {
    /// As sent
    pub status: StatusCode,
    /// As sent
    pub headers: HeaderMap,
    /// Within the limit
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Neither https nor http to this machine
    #[error("only https, or http to a loopback address, is fetched")]
    Forbidden,
    /// No connection, or none that can be trusted
    #[error("no connection: {0}")]
    Unreachable(String),
    /// Not complete in time
    #[error("no complete response in time")]
    TimedOut,
    /// A body longer than allowed
    #[error("the response is too large")]
    TooLarge,
    /// The connection broke, or it was not HTTP
    #[error("the exchange failed: {0}")]
    Broken(String),
}

/// Gets `uri`.
///
/// # Errors
/// See [`FetchError`]. A response with a bad status is a response.
pub async fn fetch(uri: &Uri, limits: Limits) -> Result<Fetched, FetchError> {
    let exchange = async {
        match uri.scheme_str() {
            Some("https") => {
                // Reads files: not on a thread that has others to serve.
                let roots = tokio::task::spawn_blocking(native_roots).await.map_err(io::Error::other);
                let roots = roots.and_then(|roots| roots).map_err(|error| FetchError::Unreachable(error.to_string()));
                over_tls(uri, limits, roots?).await
            }
            Some("http") if is_loopback(uri) => get(HttpConnector::new(), uri, limits).await,
            _ => Err(FetchError::Forbidden),
        }
    };
    tokio::time::timeout(limits.timeout, exchange).await.unwrap_or(Err(FetchError::TimedOut))
}

/// `localhost` is this machine wherever RFC 6761 section 6.3 is kept.
fn is_loopback(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

fn native_roots() -> io::Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry a certificate or two that cannot be read; that is no reason to trust none.
    let (usable, _) = roots.add_parsable_certificates(loaded.certs);
    if usable == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this system has no root certificates"));
    }
    Ok(roots)
}

async fn over_tls(uri: &Uri, limits: Limits, roots: RootCertStore) -> Result<Fetched, FetchError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Unreachable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
    get(connector, uri, limits).await
}

async fn get<C>(connector: C, uri: &Uri, limits: Limits) -> Result<Fetched, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client: Client<C, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .http1_max_buf_size(MAX_HEAD_BYTES)
        .build(connector);
    let request = Request::get(uri.clone())
        .header(USER_AGENT, "tollgate")
        .header(ACCEPT, "application/json, */*;q=0.1")
        .body(Empty::new())
        .map_err(|error| FetchError::Broken(error.to_string()))?;
    let response = client.request(request).await.map_err(|error| {
        let text = chain(&error);
        if error.is_connect() { FetchError::Unreachable(text) } else { FetchError::Broken(text) }
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limits.max_bytes).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { FetchError::TooLarge } else { FetchError::Broken(chain(&*error)) }
    })?;
    Ok(Fetched { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// An error with its causes: the outermost seldom says what happened.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}
