//! Accepting, and one exchange a connection. Everything has a limit: whoever connects may be anybody.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::gate::Door;
use super::{Sources, answer};

/// Connections at once, at each of the two doors: a crowd at one does not keep a probe out of the other.
const MAX_CONNECTIONS: usize = 64;
/// A request's head within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The whole connection within this.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Header fields of a request.
const MAX_HEADERS: usize = 64;
/// Bytes of a body that nobody asked for which are read, so that the answer is not lost to a reset.
const MAX_DISCARDED: usize = 256 * 1024;
/// How long accepting rests when there is no descriptor left.
const REST: Duration = Duration::from_millis(200);

/// Serves until a successor does, or the process ends; then finishes what was begun.
pub(super) async fn serve(socket: TcpListener, door: Door, sources: Arc<Sources>, mut shutdown: ShutdownWatch) {
    let mut connections = JoinSet::new();
    let status = Arc::clone(&sources.status);
    tokio::select! {
        () = accept(&socket, door, &sources, &mut connections) => {}
        () = status.handed_over() => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

async fn accept(socket: &TcpListener, door: Door, sources: &Arc<Sources>, connections: &mut JoinSet<()>) {
    let capacity = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failing = false;
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&capacity).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let sources = Arc::clone(sources);
                connections.spawn(async move {
                    let _permit = permit;
                    // Too late or broken off: nobody is left to be told.
                    let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange(stream, door, sources)).await;
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !failing {
                    log::warn!("the admin side cannot accept: {error}");
                }
                failing = true;
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// One request and its answer. No keep-alive: probes and scrapes come seconds apart, and every place is needed.
async fn exchange(stream: TcpStream, door: Door, sources: Arc<Sources>) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        ready(Ok::<_, Infallible>(answer::respond(door, &sources, &request.into_parts().0)))
    });
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if poll_fn(|context| connection.poll_without_shutdown(context)).await.is_ok() {
        part(connection.into_parts().io.into_inner()).await;
    }
}

/// Closes our half first and reads what is still under way: closing with unread bytes would reset the connection, and
/// the answer with it.
async fn part(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(MAX_DISCARDED as u64);
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}
