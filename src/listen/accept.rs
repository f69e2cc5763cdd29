//! Accepting connections, and what each goes through before its first request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::server::ShutdownWatch;
use rustix::net::{SocketFlags, accept_with};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::Listening;
use super::handshake::shake_hands;
use super::stream::{Place, Stream};
use super::transport::Transport;
use super::{http1, http2};
use crate::config::{Listener, Protocol};
use crate::http::{Connection, Reason, unmapped};

/// First and longest pause when the process or the system is out of file descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the drain waits for those whom the kernel has accepted already when the cap leaves no place for them.
const LAST_IN_QUEUE: Duration = Duration::from_secs(5);

/// Accepts until the drain begins, and then whoever is in the kernel's queue already: nobody else would answer them.
/// Several of these may share one socket.
pub(super) async fn accept<A: HttpServerApp + Send + Sync + 'static>(
    app: Arc<A>,
    socket: Arc<TcpListener>,
    listening: Arc<Listening>,
    shutdown: ShutdownWatch,
) {
    let _acceptor = listening.drain.acceptor();
    tokio::select! {
        biased;
        () = listening.drain.stopping() => {}
        () = accept_all(&app, &socket, &listening, &shutdown) => return,
    }
    let rest = accept_rest(&app, &socket, &listening, &shutdown);
    if tokio::time::timeout(LAST_IN_QUEUE, rest).await.is_err() {
        log::warn!("listener {}: connections that waited for a place are closed", listening.name);
    }
}

async fn accept_all<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    socket: &TcpListener,
    listening: &Arc<Listening>,
    shutdown: &ShutdownWatch,
) {
    let mut pause = BACKOFF.0;
    loop {
        // Over the cap, connections wait in the kernel's queue: that costs a client time, not an error.
        let Ok(permit) = Arc::clone(&listening.capacity).acquire_owned().await else {
            return;
        };
        match socket.accept().await {
            Ok(accepted) => {
                pause = BACKOFF.0;
                spawn(app, accepted, permit, listening, shutdown);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                listening.metrics.accept_failed();
                // Said until the pause is at its longest: what lasts is in the metrics.
                if pause < BACKOFF.1 {
                    log::error!("listener {}: cannot accept: {error}; trying again in {pause:?}", listening.name);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Accepts until the queue is empty. Asks the kernel itself: what the runtime knows of the socket may be older.
async fn accept_rest<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    socket: &TcpListener,
    listening: &Arc<Listening>,
    shutdown: &ShutdownWatch,
) {
    while let Ok(permit) = Arc::clone(&listening.capacity).acquire_owned().await {
        match accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).map_err(io::Error::from) {
            Ok(accepted) => {
                let tcp = TcpStream::from_std(accepted.into());
                if let Ok((tcp, peer)) = tcp.and_then(|tcp| tcp.peer_addr().map(|peer| (tcp, peer))) {
                    spawn(app, (tcp, peer), permit, listening, shutdown);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a connection owns its task and ends with it; the drain waits for it")]
fn spawn<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    (tcp, peer): (TcpStream, SocketAddr),
    permit: OwnedSemaphorePermit,
    listening: &Arc<Listening>,
    shutdown: &ShutdownWatch,
) {
    let (app, listening, shutdown) = (Arc::clone(app), Arc::clone(listening), shutdown.clone());
    let place = Place { permit, drain: listening.drain.connection(), gauge: listening.metrics.connection() };
    tokio::spawn(async move { serve(&app, tcp, peer, place, &listening, &shutdown).await });
}

/// The client left before it was accepted; the next may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn serve<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    tcp: TcpStream,
    peer: SocketAddr,
    place: Place,
    listening: &Listening,
    shutdown: &ShutdownWatch,
) {
    let snapshot = listening.live.load_full();
    let Some(listener) = snapshot.listener(&listening.name) else {
        return;
    };
    let (Ok(local), Ok(())) = (tcp.local_addr(), tcp.set_nodelay(true)) else {
        return;
    };
    let (transport, tls) = match &listener.tls {
        None => (Transport::Plain(tcp), None),
        Some(tls) => match shake_hands(tls, tcp, &listening.metrics).await {
            Ok((transport, facts)) => (transport, Some(facts)),
            Err(error) => {
                log::debug!("listener {}: TLS handshake with {peer}: {error}", listening.name);
                return;
            }
        },
    };
    let http2 = tls.as_ref().is_some_and(|tls| tls.http2);
    if !http2 && !listener.spec.protocols.contains(&Protocol::Http1) {
        listening.metrics.refuse(Reason::Unsupported);
        return;
    }
    let listener = Arc::clone(listener);
    // A long connection must not keep a whole snapshot alive.
    drop(snapshot);
    let connection = Connection::new(listening.name.clone(), plain(peer), plain(local), tls);
    let stream = stream(transport, connection, place);
    let spec: &Listener = &listener.spec;
    if http2 {
        http2::serve(app, Box::new(stream.opaque()), spec, listening, shutdown).await;
    } else {
        http1::serve(app, Box::new(stream), spec, listening, shutdown).await;
    }
}

/// Requests find their connection in the one place where Pingora carries something of ours for both protocols.
fn stream(transport: Transport, connection: Connection, place: Place) -> Stream {
    let connection = Arc::new(connection);
    let header = Box::new(pingora_http::ResponseHeader::build(200, Some(0)).expect("200 is a status"));
    let digest = ProxyDigest::new(header, Some(Box::new(Arc::clone(&connection))));
    Stream::new(transport, connection, Arc::new(digest), place)
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(unmapped(address.ip()), address.port())
}
