//! One HTTP/2 connection: accept streams, check each head, hand each to Pingora as a request of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, GetProxyDigest};
use pingora_error::Result;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Listening;
use super::accept::Serve;
use super::alarm::Alarm;
use super::head::{self, HeadLimits};
use super::refusal;
use super::stream::Stream;
use super::turn::Missed;
use crate::config::Listener;
use crate::http::{Connection, Deadline, Reason};

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 128;
/// Requests of one connection under way here, those included whose streams the client has reset meanwhile: while an
/// upstream is connected to, or keys are waited for, nobody looks at the stream. Without this bound a client that opens
/// and resets makes as many as it can send.
const MAX_UNDER_WAY: usize = 2 * MAX_STREAMS as usize;
/// Nothing was done for the stream: it may be sent again (RFC 9113 section 8.7).
const REFUSED_STREAM: u32 = 0x7;
/// ENHANCE_YOUR_CALM (RFC 9113 section 7).
const CALM_DOWN: u32 = 0xb;
/// Bytes a stream may send before we have taken them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for the whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Response bytes h2 holds for a stream whose window is open and whose client does not read: one frame's worth.
const SEND_BUFFER: usize = 16 * 1024;
/// How long after GOAWAY a connection without requests stays open, for those that were under way.
const DRAIN_LINGER: Duration = Duration::from_secs(3);
/// How long a client that has gone too far may take to take our goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Streams with a malformed head before the connection is closed.
const MAX_MALFORMED: usize = 32;
/// What a request has beyond its deadline before its stream is reset: the phases that notice it themselves can still
/// answer.
const GRACE: Duration = Duration::from_secs(1);

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
    serve: &Arc<Serve<A>>,
    mut stream: Box<Stream>,
    spec: &Listener,
    listening: &Arc<Listening>,
) {
    let spent = Arc::new(Notify::new());
    stream.allow_frames(Arc::clone(&spent));
    let client = Arc::clone(stream.connection());
    let digest = Arc::new(Digest { proxy_digest: stream.get_proxy_digest(), ..Digest::default() });
    let mut connection = match timeout(spec.header_timeout, handshake(stream, Some(options(spec)))).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return listening.metrics.refuse(Reason::MalformedRequest),
        Err(_) => return listening.metrics.refuse(Reason::HeaderTimeout),
    };
    let limits = HeadLimits { max_headers: spec.max_headers, max_bytes: spec.max_header_bytes };
    let active = Arc::new(Active::default());
    let mut malformed = 0;
    let mut draining = false;
    let too_far = loop {
        let accepted = tokio::select! {
            biased;
            () = listening.drain.stopping(), if !draining => {
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
            () = spent.notified() => {
                break Some(Reason::Flood);
            }
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            () = active.idle(if draining { DRAIN_LINGER } else { spec.keepalive_timeout }) => {
                if draining {
                    break None;
                }
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(_))) if active.count() >= MAX_UNDER_WAY => {
                break Some(Reason::ConcurrencyLimited);
            }
            Ok(Some(H2Accept::Session(session))) => match head::check(session.req_header(), limits) {
                Ok(()) => {
                    let waits = || Waits { client: Arc::clone(&client), listening: Arc::clone(listening) };
                    spawn(serve, Box::new(session), client.window.is_closed().then(waits), active.start());
                }
                Err(reason) => {
                    listening.metrics.refuse(reason);
                    malformed += 1;
                    spawn_refusal(session, reason, active.start());
                }
            },
            Ok(Some(H2Accept::Rejected)) => {
                listening.metrics.refuse(Reason::MalformedRequest);
                malformed += 1;
            }
            Ok(None) | Err(_) => break None,
        }
        if malformed > MAX_MALFORMED {
            break None;
        }
    };
    if let Some(reason) = too_far {
        listening.metrics.refuse(reason);
        connection.abrupt_shutdown(CALM_DOWN.into());
        let goodbye =
            async { while let Ok(Some(_)) = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)).await {} };
        // Who does not even take that is left all the same.
        drop(timeout(GOODBYE, goodbye).await);
    }
    drop(connection);
    // The last requests have lost their client, but not yet written what they leave behind.
    active.idle(Duration::ZERO).await;
}

/// Serves a request; one whose client has closed its window `waits` for its turn.
#[expect(clippy::disallowed_methods, reason = "the connection waits for its requests")]
fn spawn<A: HttpServerApp + Send + Sync + 'static>(
    serve: &Arc<Serve<A>>,
    mut session: Box<HttpSession>,
    waits: Option<Waits>,
    guard: ActiveGuard,
) {
    let serve = Arc::clone(serve);
    // Where many requests share a connection, each has a deadline of its own.
    let deadline = Arc::<Deadline>::default();
    session.req_header_mut().extensions_mut().insert(Arc::clone(&deadline));
    tokio::spawn(async move {
        match waits {
            None => request(&serve, session, &deadline).await,
            // Boxed, so that requests that do not wait do not carry the room for it.
            Some(waits) => Box::pin(waits.serve(&serve, session, &deadline)).await,
        }
        drop(guard);
    });
}

async fn request<A: HttpServerApp + Send + Sync + 'static>(
    serve: &Arc<Serve<A>>,
    session: Box<HttpSession>,
    deadline: &Deadline,
) {
    let session = ServerSession::new_http2(*session);
    within(deadline, serve.app.process_new_http(session, &serve.shutdown)).await;
}

/// What a request knows of its client that has closed its window.
struct Waits {
    client: Arc<Connection>,
    listening: Arc<Listening>,
}

impl Waits {
    /// Serves it once its turn has come. Once the window opens the turn is another's.
    async fn serve<A: HttpServerApp + Send + Sync + 'static>(
        self,
        serve: &Arc<Serve<A>>,
        mut session: Box<HttpSession>,
        deadline: &Deadline,
    ) {
        let window = &self.client.window;
        let turn = tokio::select! {
            turn = serve.turns.take(window) => turn.map_err(|Missed| Reason::ClientTimeout),
            // The client has reset it, or is gone.
            _ = session.idle() => Err(Reason::ClientAborted),
        };
        match turn {
            Ok(turn) => {
                let mut request = pin!(request(serve, session, deadline));
                tokio::select! {
                    () = &mut request => return,
                    () = window.opened() => drop(turn),
                }
                request.await;
            }
            Err(reason) => {
                self.listening.metrics.refuse(reason);
                session.shutdown_with_reason(REFUSED_STREAM.into());
            }
        }
    }
}

/// Runs a request, at most until some time after its deadline. Pingora has no timeout towards an h2 client that sends
/// nothing; dropping the request resets its stream.
async fn within(deadline: &Deadline, request: impl Future) {
    let mut request = pin!(request);
    let mut alarm = Alarm::default();
    poll_fn(|cx| match request.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        // Looked at last, since the request itself moves it.
        Poll::Pending => alarm.poll(deadline, GRACE, cx),
    })
    .await;
}

#[expect(clippy::disallowed_methods, reason = "the connection waits for its requests")]
fn spawn_refusal(mut session: HttpSession, reason: Reason, guard: ActiveGuard) {
    tokio::spawn(async move {
        if !matches!(timeout(refusal::TIMEOUT, refuse(&mut session, reason)).await, Ok(Ok(()))) {
            log::debug!("a refusal ({}) could not be delivered", reason.name());
        }
        drop(guard);
    });
}

async fn refuse(session: &mut HttpSession, reason: Reason) -> Result<()> {
    let (head, body) = refusal::response(reason)?;
    session.write_response_header(Box::new(head), false)?;
    session.write_body(body, true).await
}

/// Counts the requests of a connection, to know when it is idle.
#[derive(Debug, Default)]
struct Active {
    count: AtomicUsize,
    /// Told of the first and of the last alone: for each of many the connection's task would be woken twice
    changed: Notify,
}

impl Active {
    fn start(self: &Arc<Self>) -> ActiveGuard {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.changed.notify_one();
        }
        ActiveGuard(Arc::clone(self))
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Resolves when there was no request for `duration`.
    async fn idle(&self, duration: Duration) {
        loop {
            if self.count.load(Ordering::Acquire) > 0 {
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
        if self.0.count.fetch_sub(1, Ordering::Release) == 1 {
            self.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_dropped_after_its_deadline() {
        let deadline = Deadline::default();
        let start = tokio::time::Instant::now();
        deadline.allow(start.into_std(), 2 * SECOND, None);
        within(&deadline, std::future::pending::<()>()).await;
        assert_eq!(start.elapsed().as_secs(), (2 * SECOND + GRACE).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_request_has_been_over_for_so_long() {
        let active = Arc::new(Active::default());
        let guard = active.start();
        let idle = active.idle(3 * SECOND);
        tokio::pin!(idle);
        assert!(timeout(10 * SECOND, &mut idle).await.is_err());
        drop(guard);
        let start = tokio::time::Instant::now();
        idle.await;
        assert_eq!(start.elapsed().as_secs(), 3);
    }
}
