//! A small HTTP server on loopback, for those that the demo puts behind the gateway.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once: more than a gateway with default limits opens.
const MAX_CONNECTIONS: usize = 1024;
/// A request's head within this; longer than an idle connection is kept by the gateway.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long accepting rests after a failure.
const REST: Duration = Duration::from_millis(100);

pub(super) type Answer = Response<Full<Bytes>>;

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    addr: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Server {
    /// Binds a free port and answers every request with `respond`.
    pub(super) async fn start<F, R>(respond: F) -> io::Result<Self>
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = socket.local_addr()?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(socket, respond));
        Ok(Self { addr, _accepting: accepting })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn accept<F, R>(socket: TcpListener, respond: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let capacity = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&capacity).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let respond = respond.clone();
        connections.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = respond(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A connection that breaks off is the gateway's to tell about.
            let _ = connection.await;
        });
    }
}

/// A response with JSON.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
