//! The client for a service that is asked for each request: its connections are kept.
//!
//! Bounded like [`fetch`](super::fetch), and no redirect is followed here either. Each runtime has connections of its
//! own, since what drives a connection ends with the runtime that opened it: no worker waits for another's.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Handle, Id};
use tower_service::Service;

use super::fetch::{FetchError, Fetched, Limits, MAX_HEAD_BYTES, received, unsent};
use super::trust::Trust;
use crate::config::FileContent;

/// Connections that wait for the next call, in one runtime.
const MAX_IDLE: usize = 32;
/// And for how long: most servers wait longer.
const IDLE: Duration = Duration::from_secs(20);
/// The system's authorities are read again after this.
const TRUSTED_FOR: Duration = Duration::from_secs(60 * 60);

/// What is asked: everything but the address.
pub type Question = Request<Full<Bytes>>;

type Kept = Client<Connector, Full<Bytes>>;

/// Connections to one service.
#[derive(Debug)]
pub struct Pool {
    uri: Uri,
    limits: Limits,
    trust: Trust,
    /// At most one a runtime, with the time it was made
    clients: Mutex<HashMap<Id, (Kept, Instant)>>,
}

impl Pool {
    /// Connects to nobody yet. With `ca`, nobody's certificate is believed but theirs.
    ///
    /// # Errors
    /// What is wrong with `ca`.
    pub fn build(uri: &Uri, ca: Option<&FileContent>, limits: Limits) -> Result<Self, String> {
        let is_tls = uri.scheme_str() == Some("https");
        // Without TLS there is nobody to believe.
        let trust = if is_tls { Trust::build(ca)? } else { Trust::Named(Arc::new(RootCertStore::empty())) };
        Ok(Self { uri: uri.clone(), limits, trust, clients: Mutex::default() })
    }

    /// Asks. The address and who we are is written into the question here.
    ///
    /// A server may close a connection just as it is used again, so what ended without a word of an answer is asked
    /// once more: nothing may be asked here that cannot be asked twice.
    ///
    /// # Errors
    /// See [`FetchError`]. A response with a bad status is a response.
    pub async fn ask(&self, mut question: Question) -> Result<Fetched, FetchError> {
        *question.uri_mut() = self.uri.clone();
        question.headers_mut().insert(USER_AGENT, HeaderValue::from_static("tollgate"));
        let exchange = async {
            let client = self.client().await?;
            let response = match client.request(question.clone()).await {
                Err(error) if has_ended(&error) => client.request(question).await,
                answer => answer,
            };
            received(response.map_err(|error| unsent(&error))?, self.limits.max_bytes).await
        };
        tokio::time::timeout(self.limits.timeout, exchange).await.unwrap_or(Err(FetchError::TimedOut))
    }

    /// The client of the runtime that asks.
    async fn client(&self) -> Result<Kept, FetchError> {
        let runtime = Handle::current().id();
        let now = Instant::now();
        if let Some((client, made)) = self.clients.lock().get(&runtime)
            && (now.saturating_duration_since(*made) < TRUSTED_FOR || !matches!(self.trust, Trust::System))
        {
            return Ok(client.clone());
        }
        let config = self.trust.config().await.map_err(|error| FetchError::Unreachable(error.to_string()))?;
        let client = self.connecting(config);
        self.clients.lock().insert(runtime, (client.clone(), now));
        Ok(client)
    }

    fn connecting(&self, config: ClientConfig) -> Kept {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new().with_tls_config(config);
        let schemes = if self.uri.scheme_str() == Some("https") { tls.https_only() } else { tls.https_or_http() };
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(Connector { inner: schemes.enable_http1().wrap_connector(tcp), timeout: self.limits.timeout })
    }
}

/// Gives up in time, TLS included: when another connection is free first, connecting goes on with nobody to wait for it.
#[derive(Clone, Debug)]
struct Connector {
    inner: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(uri));
        Box::pin(async { connecting.await? })
    }
}

/// Whether the connection ended, and nothing of an answer had come.
fn has_ended(error: &legacy::Error) -> bool {
    let mut cause = error.source().filter(|_| !error.is_connect());
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_closed() || error.is_canceled())
        {
            return true;
        }
        if let Some(error) = inner.downcast_ref::<io::Error>()
            && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own the tasks that they start")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// Answers each request with the number of its connection.
    async fn serve(listener: TcpListener) {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(answer(stream, number));
        }
    }

    async fn answer(mut stream: TcpStream, number: usize) {
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if head.ends_with(b"\r\n\r\n") {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
                stream.write_all(answer.as_bytes()).await.expect("sent");
                head.clear();
            }
        }
    }

    #[test]
    fn connections_are_kept_and_no_runtime_waits_for_another_that_stands_still_or_has_ended() {
        let server = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).expect("bound");
        let uri: Uri = format!("http://{}/", listener.local_addr().expect("bound")).parse().expect("a URI");
        server.spawn(serve(listener));
        let limits = Limits { timeout: Duration::from_secs(20), max_bytes: 100 };
        let pool = Pool::build(&uri, None, limits).expect("built");
        let ask = |runtime: &Runtime| {
            let fetched = runtime.block_on(pool.ask(Question::new(Full::default()))).expect("answered");
            String::from_utf8(fetched.body.to_vec()).expect("a number")
        };
        let [one, two] = [0, 1].map(|_| Builder::new_current_thread().enable_all().build().expect("a runtime"));
        assert_eq!([ask(&one), ask(&one), ask(&two), ask(&two), ask(&one)], ["0", "0", "1", "1", "0"]);
        drop(one);
        assert_eq!(ask(&two), "1");
    }
}
