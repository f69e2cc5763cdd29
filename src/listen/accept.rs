//! Accepting connections, and what each goes through before its first request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::server::ShutdownWatch;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Listening;
use super::arrival::{self, Arrival};
use super::handshake::shake_hands;
use super::stream::{Place, Stream};
use super::transport::Transport;
use super::turn::Turns;
use super::worker::Workers;
use super::{http1, http2};
use crate::config::Protocol;
use crate::http::{Connection, Reason};
use crate::snapshot::Listener;

/// First and longest pause when the process or the system is out of file descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the drain waits for those whom the kernel has accepted already when the cap leaves no place for them.
const LAST_IN_QUEUE: Duration = Duration::from_secs(5);

/// A socket that was accepted, and its other end.
type Taken = (std::net::TcpStream, SocketAddr);

/// A connection that was accepted and has not been looked at.
#[derive(Debug)]
pub(super) struct Accepted {
    tcp: std::net::TcpStream,
    /// The other end, and ours
    ends: (SocketAddr, SocketAddr),
    place: Place,
    listening: Arc<Listening>,
}

impl Accepted {
    /// The worker that is to serve it.
    pub(super) fn served_at(&self) -> usize {
        self.place.served.at()
    }
}

/// How a worker serves.
pub(super) struct Serve<A> {
    /// Pingora's proxy
    pub(super) app: Arc<A>,
    /// When the process is about to end
    pub(super) shutdown: ShutdownWatch,
    /// Those of requests whose clients have closed their windows
    pub(super) turns: Turns,
}

/// One listening socket, as one worker sees it.
pub(super) struct Door {
    socket: AsyncFd<std::net::TcpListener>,
    local: SocketAddr,
    listening: Arc<Listening>,
    workers: Arc<Workers>,
    worker: usize,
}

impl Door {
    /// Needs the worker's runtime.
    ///
    /// # Errors
    /// No memory or descriptors left.
    pub(super) fn open(
        socket: std::net::TcpListener,
        listening: Arc<Listening>,
        workers: Arc<Workers>,
        worker: usize,
    ) -> io::Result<Self> {
        // What is accepted inherits it, which saves a call for each connection.
        set_tcp_nodelay(&socket, true)?;
        let local = socket.local_addr()?;
        #[expect(
            deprecated,
            reason = "unsound only for types that change their descriptor; the new way needs unsafe code"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Self { socket, local, listening, workers, worker })
    }

    /// Accepts until the drain begins, and then whoever is in the kernel's queue already: nobody else would answer them.
    #[expect(clippy::disallowed_methods, reason = "the worker owns its acceptors; the drain waits for them")]
    pub(super) fn watch<A: HttpServerApp + Send + Sync + 'static>(self, serve: Arc<Serve<A>>) {
        let acceptor = self.listening.drain.acceptor();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = self.listening.drain.stopping() => {}
                () = self.accept_all(&serve) => return,
            }
            if tokio::time::timeout(LAST_IN_QUEUE, self.accept_rest(&serve)).await.is_err() {
                log::warn!("listener {}: connections that waited for a place are closed", self.listening.name);
            }
            drop(acceptor);
        });
    }

    async fn accept_all<A: HttpServerApp + Send + Sync + 'static>(&self, serve: &Arc<Serve<A>>) {
        let mut pause = BACKOFF.0;
        loop {
            match self.accept().await {
                Ok(None) => return,
                Ok(Some((accepted, permit))) => {
                    pause = BACKOFF.0;
                    self.pass_on(accepted, permit, serve);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.listening.metrics.accept_failed();
                    // Said until the pause is at its longest: what lasts is in the metrics.
                    if pause < BACKOFF.1 {
                        let name = &self.listening.name;
                        log::error!("listener {name}: cannot accept: {error}; trying again in {pause:?}");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Accepts until the queue is empty. Asks the kernel itself: what the runtime knows of the socket may be older.
    async fn accept_rest<A: HttpServerApp + Send + Sync + 'static>(&self, serve: &Arc<Serve<A>>) {
        while let Ok(permit) = Arc::clone(&self.listening.capacity).acquire_owned().await {
            match take(self.socket.get_ref()) {
                Ok(accepted) => self.pass_on(accepted, permit, serve),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// The next connection and its place; nothing when there will be no places any more. Over the cap, connections wait
    /// in the kernel's queue: that costs a client time, not an error. While nobody waits no place is held, which another
    /// door may need.
    async fn accept(&self) -> io::Result<Option<(Taken, OwnedSemaphorePermit)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let Ok(permit) = Arc::clone(&self.listening.capacity).acquire_owned().await else {
                return Ok(None);
            };
            if let Ok(taken) = ready.try_io(|socket| take(socket.get_ref())) {
                return Ok(Some((taken?, permit)));
            }
        }
    }

    /// Begins to serve, here or where there is less to do.
    fn pass_on<A: HttpServerApp + Send + Sync + 'static>(
        &self,
        (tcp, peer): Taken,
        permit: OwnedSemaphorePermit,
        serve: &Arc<Serve<A>>,
    ) {
        let listening = Arc::clone(&self.listening);
        let place = Place {
            permit,
            served: self.workers.assign(self.worker),
            drain: listening.drain.connection(),
            gauge: listening.metrics.connection(),
            member: None,
        };
        let accepted = Accepted { tcp, ends: (peer, self.local), place, listening };
        if accepted.served_at() == self.worker {
            serve.begin(accepted);
        } else {
            self.workers.hand_over(accepted);
        }
    }
}

/// The next connection in the kernel's queue.
fn take(socket: &std::net::TcpListener) -> io::Result<Taken> {
    let (accepted, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((accepted.into(), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}

impl<A: HttpServerApp + Send + Sync + 'static> Serve<A> {
    /// Serves a connection on this worker, in a task of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection owns its task and ends with it; the drain waits for it"
    )]
    pub(super) fn begin(self: &Arc<Self>, accepted: Accepted) {
        tokio::spawn(Arc::clone(self).connection(accepted));
    }

    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let listening = Arc::clone(&accepted.listening);
        // Both apart: an idle connection would keep the room that a handshake took, and one of HTTP/1 that of HTTP/2.
        let Some((stream, listener)) = Box::pin(arrive(accepted)).await else { return };
        if stream.connection().http2 {
            Box::pin(http2::serve(&self, stream, &listener.spec, &listening)).await;
        } else {
            http1::serve(&self, stream, &listener.spec, &listening).await;
        }
    }
}

/// What a connection goes through before its first request. Nothing if it does not come so far.
async fn arrive(accepted: Accepted) -> Option<(Box<Stream>, Arc<Listener>)> {
    let Accepted { tcp, ends: (peer, local), mut place, listening } = accepted;
    let Ok(mut tcp) = TcpStream::from_std(tcp) else {
        listening.metrics.accept_failed();
        return None;
    };
    // A socket that listens at every address does not know at which of them it was called.
    let local = if local.ip().is_unspecified() { tcp.local_addr().ok()? } else { local };
    let snapshot = listening.live.load_full();
    let listener = snapshot.listener(&listening.name)?;
    let Arrival { ends, proxied, member } =
        arrival::admit(&mut tcp, (peer, local), &listener.spec, &snapshot, &listening).await?;
    place.member = member;
    let (transport, tls) = match &listener.tls {
        None => (Transport::Plain(tcp), None),
        Some(tls) => match shake_hands(tls, tcp, &listening.metrics).await {
            Ok((transport, facts)) => (transport, Some(facts)),
            Err(error) => {
                log::debug!("listener {}: TLS handshake with {}: {error}", listening.name, ends.peer);
                return None;
            }
        },
    };
    let http2 =
        tls.as_ref().is_some_and(|tls| tls.http2) || listener.spec.protocols.contains(&Protocol::Http2Cleartext);
    if !http2 && !listener.spec.protocols.contains(&Protocol::Http1) {
        listening.metrics.refuse(Reason::Unsupported);
        return None;
    }
    let mut connection = Connection::new(listening.name.clone(), ends, proxied, tls);
    connection.http2 = http2;
    let stream = stream(transport, connection, place);
    let stream = if http2 { stream.opaque() } else { stream };
    // The listener alone: a long connection must not keep a whole snapshot alive.
    Some((Box::new(stream), Arc::clone(listener)))
}

/// The client left before it was accepted; the next may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Requests find their connection in the one place where Pingora carries something of ours for both protocols.
fn stream(transport: Transport, connection: Connection, place: Place) -> Stream {
    let connection = Arc::new(connection);
    let header = Box::new(pingora_http::ResponseHeader::build(200, Some(0)).expect("200 is a status"));
    let digest = ProxyDigest::new(header, Some(Box::new(Arc::clone(&connection))));
    Stream::new(transport, connection, Arc::new(digest), place)
}
