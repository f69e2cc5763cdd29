//! The outbound HTTP client: small documents from servers the operator has named.
//!
//! Everything is bounded, the whole exchange by one timeout, and what is asked for is what is answered: no redirects are
//! followed, since a redirect is another server's choice of whom to trust. Nothing is kept between calls. Documents are
//! fetched minutes apart, so a kept connection would be dead and a kept set of root certificates out of date.

use std::error::Error;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;

pub use super::trust::Trust;

/// A response's head: hyper reads no more than this at once.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

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

/// Gets `uri`, with `headers` besides those of every request.
///
/// # Errors
/// See [`FetchError`]. A response with a bad status is a response.
pub async fn fetch(uri: &Uri, headers: &HeaderMap, trust: &Trust, limits: Limits) -> Result<Fetched, FetchError> {
    let exchange = async {
        match uri.scheme_str() {
            Some("https") => {
                let config = trust.config().await.map_err(|error| FetchError::Unreachable(error.to_string()))?;
                over_tls(uri, headers, limits, config).await
            }
            Some("http") if is_loopback(uri) => get(HttpConnector::new(), uri, headers, limits).await,
            _ => Err(FetchError::Forbidden),
        }
    };
    tokio::time::timeout(limits.timeout, exchange).await.unwrap_or(Err(FetchError::TimedOut))
}

/// Whether [`fetch`] would try: an address with https, or with http to this machine, and nobody's password in it.
pub fn is_fetchable(uri: &Uri) -> bool {
    let has_no_user = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let is_allowed = uri.scheme_str() == Some("https") || uri.scheme_str() == Some("http") && is_loopback(uri);
    is_allowed && has_no_user && uri.host().is_some_and(|host| !host.is_empty())
}

/// `localhost` is this machine wherever RFC 6761 section 6.3 is kept.
fn is_loopback(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

async fn over_tls(uri: &Uri, headers: &HeaderMap, limits: Limits, config: ClientConfig) -> Result<Fetched, FetchError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
    get(connector, uri, headers, limits).await
}

async fn get<C>(connector: C, uri: &Uri, headers: &HeaderMap, limits: Limits) -> Result<Fetched, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client: Client<C, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .http1_max_buf_size(MAX_HEAD_BYTES)
        .build(connector);
    let mut request = Request::get(uri.clone())
        .header(USER_AGENT, "tollgate")
        .header(ACCEPT, "application/json, */*;q=0.1")
        // What is small is not worth being unpacked, and what unpacks to much is not wanted at all.
        .header(ACCEPT_ENCODING, "identity")
        .body(Empty::new())
        .map_err(|error| FetchError::Broken(error.to_string()))?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    received(client.request(request).await.map_err(|error| unsent(&error))?, limits.max_bytes).await
}

/// Why there is no response to a request.
pub(super) fn unsent(error: &legacy::Error) -> FetchError {
    let text = chain(error);
    if error.is_connect() { FetchError::Unreachable(text) } else { FetchError::Broken(text) }
}

/// The whole of a response.
pub(super) async fn received(response: Response<Incoming>, max_bytes: usize) -> Result<Fetched, FetchError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max_bytes).collect().await.map_err(|error| {
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own the tasks that they start")]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMITS: Limits = Limits { timeout: Duration::from_secs(20), max_bytes: 100 };

    async fn simply(uri: &Uri, limits: Limits) -> Result<Fetched, FetchError> {
        fetch(uri, &HeaderMap::new(), &Trust::System, limits).await
    }

    async fn bound() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        (listener, port)
    }

    /// Reads a head and answers with these bytes.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        // A client that has read enough may be gone.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let _ = stream.shutdown().await;
        String::from_utf8(head).expect("text")
    }

    /// One exchange over plain TCP: the head that was sent, and what came of it.
    async fn exchanged(bytes: &str, limits: Limits) -> (String, Result<Fetched, FetchError>) {
        let (listener, port) = bound().await;
        let uri: Uri = format!("http://127.0.0.1:{port}/x?y").parse().expect("a URI");
        let serve = async { answer(listener.accept().await.expect("a client").0, bytes).await };
        tokio::join!(serve, simply(&uri, limits))
    }

    #[tokio::test]
    async fn a_response_is_handed_over_whole_and_whatever_its_status() {
        let (head, fetched) =
            exchanged("HTTP/1.1 404 Not Found\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok", LIMITS).await;
        let fetched = fetched.expect("a response");
        assert_eq!((fetched.status, &*fetched.body), (StatusCode::NOT_FOUND, &b"ok"[..]));
        assert_eq!(fetched.headers["x-a"], "b");
        assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("user-agent: tollgate\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_redirect_is_a_response_like_any_other() {
        let (listener, port) = bound().await;
        let elsewhere =
            format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n");
        let (_, fetched) = exchanged(&elsewhere, LIMITS).await;
        assert_eq!(fetched.expect("a response").status, StatusCode::FOUND);
        tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.map(drop).expect_err("nobody comes");
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let of = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
        assert_eq!(exchanged(&of(100), LIMITS).await.1.expect("a response").body.len(), 100);
        assert!(matches!(exchanged(&of(101), LIMITS).await.1, Err(FetchError::TooLarge)));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n".to_owned()
            + &"x".repeat(101)
            + "\r\n0\r\n\r\n";
        assert!(matches!(exchanged(&chunked, LIMITS).await.1, Err(FetchError::TooLarge)));
    }

    #[tokio::test]
    async fn a_head_is_bounded_too() {
        let of = |length: usize| format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(length));
        exchanged(&of(1024), LIMITS).await.1.expect("a response");
        assert!(matches!(exchanged(&of(2 * MAX_HEAD_BYTES), LIMITS).await.1, Err(FetchError::Broken(_))));
    }

    #[tokio::test]
    async fn silence_is_not_waited_for() {
        let (listener, port) = bound().await;
        let uri: Uri = format!("http://127.0.0.1:{port}/").parse().expect("a URI");
        let limits = Limits { timeout: Duration::from_millis(50), ..LIMITS };
        assert!(matches!(simply(&uri, limits).await, Err(FetchError::TimedOut)));
        drop(listener);
        assert!(matches!(simply(&uri, LIMITS).await, Err(FetchError::Unreachable(_))));
    }

    #[tokio::test]
    async fn plain_http_goes_nowhere_but_to_this_machine() {
        for uri in [
            "http://id.example.com/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "http://127.0.0.1@example.com/",
            "http://[2001:db8::1]/",
            "ftp://127.0.0.1/",
            "/jwks.json",
        ] {
            let uri: Uri = uri.parse().expect("a URI");
            assert!(matches!(simply(&uri, LIMITS).await, Err(FetchError::Forbidden)), "{uri}");
        }
        for uri in ["http://127.9.9.9/", "http://[::1]:80/", "http://LocalHost/", "http://[::ffff:127.0.0.1]/"] {
            assert!(is_loopback(&uri.parse().expect("a URI")), "{uri}");
            assert!(is_fetchable(&uri.parse().expect("a URI")), "{uri}");
        }
        assert!(is_fetchable(&Uri::from_static("https://id.example.com/")));
        for uri in ["http://id.example.com/", "https://me:secret@id.example.com/", "ftp://127.0.0.1/", "/jwks.json"] {
            assert!(!is_fetchable(&uri.parse().expect("a URI")), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_server_is_trusted_for_its_certificate_and_its_name() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()))
            .expect("a certificate with its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, port) = bound().await;
        let serve = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us ends the handshake.
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        });
        let mut known = RootCertStore::empty();
        known.add(cert.der().clone()).expect("a certificate");
        let uri = |host: &str| format!("https://{host}:{port}/").parse::<Uri>().expect("a URI");
        let trusting = |roots| Trust::Named(Arc::new(roots));
        let fetched =
            fetch(&uri("127.0.0.1"), &HeaderMap::new(), &trusting(known.clone()), LIMITS).await.expect("trusted");
        assert_eq!(fetched.body, "ok");
        for (host, roots) in [("127.0.0.1", RootCertStore::empty()), ("localhost", known)] {
            let fetched = fetch(&uri(host), &HeaderMap::new(), &trusting(roots), LIMITS).await;
            assert!(matches!(fetched, Err(FetchError::Unreachable(_))), "{host}: {fetched:?}");
        }
        serve.abort();
    }
}
