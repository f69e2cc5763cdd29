//! One HTTP/1 connection: wait for a head, check it, hand the message to Pingora, and again.
//!
//! Waiting between requests is done here and not by Pingora, whose keep-alive wait has no end and whose head has no
//! deadline.

use std::io;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::accept::Serve;
use super::head::{self, Head, HeadLimits};
use super::stream::Stream;
use super::{Listening, refusal};
use crate::config::Listener;
use crate::http::Reason;

/// How long an idle connection is still read while draining: a client that has just sent a request is answered.
const DRAIN_LINGER: Duration = Duration::from_secs(3);

/// How the wait for a head ended, when it did not end with one.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nothing to answer: closed by the client, idle for too long, or drained
    Quiet,
    /// To be answered
    Refused(Reason),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        // The client is gone; there is nobody to tell.
        Self::Quiet
    }
}

impl From<Reason> for End {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// Serves requests until the connection ends.
pub(super) async fn serve<A: HttpServerApp>(
    serve: &Serve<A>,
    mut stream: Box<Stream>,
    spec: &Listener,
    listening: &Listening,
) {
    let mut first = true;
    loop {
        match next_head(&mut stream, spec, listening, first).await {
            Ok(()) => {}
            Err(End::Quiet) => return,
            Err(End::Refused(reason)) => {
                listening.metrics.refuse(reason);
                refuse(&mut stream, reason).await;
                return;
            }
        }
        first = false;
        let session = ServerSession::new_http1(stream);
        let Some(reused) = serve.app.process_new_http(session, &serve.shutdown).await else {
            return;
        };
        let (reused, _) = reused.consume();
        match reused.into_any().downcast::<Stream>() {
            Ok(returned) if returned.at_message_end() => stream = returned,
            _ => return,
        }
    }
}

/// Waits for a whole head within its deadline and starts its message.
async fn next_head(stream: &mut Stream, spec: &Listener, listening: &Listening, first: bool) -> Result<(), End> {
    stream.rest();
    let limits = HeadLimits { max_headers: spec.max_headers, max_bytes: spec.max_header_bytes };
    // A new connection owes its first request at once, so the wait for its first byte is part of the head's time.
    let began = Instant::now();
    if stream.waiting().is_empty() {
        let patience = if first { spec.header_timeout } else { spec.keepalive_timeout };
        idle(stream, began + patience, listening).await?;
    }
    let deadline = if first { began } else { Instant::now() } + spec.header_timeout;
    let mut seen = 0;
    loop {
        // A head is read from its start each time, so a client that drips bytes gets that once a line.
        let worthwhile = has_line(&stream.waiting()[seen..]) || stream.waiting().len() > limits.max_bytes;
        if let Some(head) = worthwhile.then(|| checked_head(stream, limits)).transpose()?.flatten() {
            return stream.begin(&head).map_err(|_| End::Refused(Reason::AmbiguousFraming));
        }
        seen = stream.waiting().len();
        match timeout_at(deadline, stream.fill()).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Err(End::Quiet),
            Ok(Ok(_)) => {}
            Err(_) if stream.waiting().is_empty() => return Err(End::Quiet),
            Err(_) => return Err(End::Refused(Reason::HeaderTimeout)),
        }
    }
}

fn has_line(bytes: &[u8]) -> bool {
    memchr::memchr(b'\n', bytes).is_some()
}

fn checked_head(stream: &mut Stream, limits: HeadLimits) -> Result<Option<Head>, Reason> {
    // An empty line in front of a request is what some old clients send after a body (RFC 9112 section 2.2).
    if stream.waiting().starts_with(b"\r\n") {
        stream.skip(2);
    }
    head::parse(stream.waiting(), limits)
}

/// Waits for the first byte of the next request. While draining, a client that is about to send one gets a moment to;
/// the moment is not cut short, since a request that crosses our goodbye is lost.
async fn idle(stream: &mut Stream, deadline: Instant, listening: &Listening) -> Result<(), End> {
    let arrived = tokio::select! {
        biased;
        arrived = timeout_at(deadline, stream.fill()) => arrived,
        () = listening.drain.stopping() => timeout_at(deadline.min(Instant::now() + DRAIN_LINGER), stream.fill()).await,
    };
    match arrived {
        Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0) | Err(_)) | Err(_) => Err(End::Quiet),
    }
}

/// Answers a head that Pingora must not see; the connection ends with it.
async fn refuse(stream: &mut Stream, reason: Reason) {
    let answer = async {
        let response = refusal::http1(reason).map_err(io::Error::other)?;
        stream.write_all(&response).await?;
        stream.flush().await
    };
    if !matches!(tokio::time::timeout(refusal::TIMEOUT, answer).await, Ok(Ok(()))) {
        log::debug!("a refusal ({}) could not be delivered to {}", reason.name(), stream.connection().peer);
    }
}
