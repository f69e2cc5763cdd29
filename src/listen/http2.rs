//! One HTTP/2 connection: accept streams, hand each to Pingora as a request of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Digest;
use pingora_core::protocols::GetProxyDigest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Listening;
use super::stream::Stream;
use crate::config::Listener;
use crate::http::Reason;

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 128;
/// Bytes a stream may send before we have taken them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for the whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Response bytes we hold for a stream whose client does not take them.
const SEND_BUFFER: usize = 64 * 1024;
/// How long after GOAWAY a connection without requests stays open, for those that were under way.
const DRAIN_LINGER: Duration = Duration::from_secs(3);
/// Streams with a malformed head before the connection is closed.
const MAX_MALFORMED: usize = 32;

fn options(spec: &Listener) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(spec.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

/// Serves streams until the connection ends. While draining, the client is told by GOAWAY and what it began is finished.
pub(super) async fn serve<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    stream: Box<Stream>,
    spec: &Listener,
    listening: &Listening,
    shutdown: &ShutdownWatch,
) {
    let digest = Arc::new(Digest { proxy_digest: stream.get_proxy_digest(), ..Digest::default() });
    let Ok(Ok(mut connection)) = timeout(spec.header_timeout, handshake(stream, Some(options(spec)))).await else {
        listening.metrics.refuse(Reason::MalformedRequest);
        return;
    };
    let active = Arc::new(Active::default());
    let mut malformed = 0;
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = listening.drain.stopping(), if !draining => {
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            () = active.idle(if draining { DRAIN_LINGER } else { spec.keepalive_timeout }) => {
                if draining {
                    return;
                }
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => spawn(app, session, shutdown, active.start()),
            Ok(Some(H2Accept::Rejected)) => {
                listening.metrics.refuse(Reason::MalformedRequest);
                malformed += 1;
                if malformed > MAX_MALFORMED {
                    return;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}

fn spawn<A: HttpServerApp + Send + Sync + 'static>(
    app: &Arc<A>,
    session: HttpSession,
    shutdown: &ShutdownWatch,
    guard: ActiveGuard,
) {
    let app = Arc::clone(app);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        app.process_new_http(ServerSession::new_http2(session), &shutdown).await;
        drop(guard);
    });
}

/// Counts the requests of a connection, to know when it is idle.
#[derive(Debug, Default)]
struct Active {
    count: AtomicUsize,
    changed: Notify,
}

impl Active {
    fn start(self: &Arc<Self>) -> ActiveGuard {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        ActiveGuard(Arc::clone(self))
    }

    /// Resolves when there was no request for `duration`.
    async fn idle(&self, duration: Duration) {
        loop {
            if self.count.load(Ordering::Relaxed) > 0 {
                self.changed.notified().await;
            } else if timeout(duration, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

struct ActiveGuard(Arc<Active>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}
