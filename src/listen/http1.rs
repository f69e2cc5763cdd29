//! One HTTP/1 connection: wait for a head, check it, hand the message to Pingora, and again.
//!
//! Waiting between requests is done here and not by Pingora, whose keep-alive wait has no end and whose head has no
//! deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::time::{Instant, timeout_at};

use super::Listening;
use super::head::{self, Head, HeadLimits};
use super::stream::Stream;
use crate::config::Listener;
use crate::http::{Reason, Reply, RequestId};

/// How long an idle connection is still read while draining: a client that has just sent a request is answered.
const DRAIN_LINGER: Duration = Duration::from_secs(3);
/// A client that takes none of its refusal is not waited for.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

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
    app: &Arc<A>,
    mut stream: Box<Stream>,
    spec: &Listener,
    listening: &Listening,
    shutdown: &ShutdownWatch,
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
        let Some(reused) = app.process_new_http(session, shutdown).await else {
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
    if !first && stream.waiting().is_empty() {
        idle(stream, spec.keepalive_timeout, listening).await?;
    }
    let deadline = Instant::now() + spec.header_timeout;
    loop {
        if let Some(head) = checked_head(stream, limits)? {
            return stream.begin(&head).map_err(|_| End::Refused(Reason::AmbiguousFraming));
        }
        match timeout_at(deadline, stream.fill()).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Err(End::Quiet),
            Ok(Ok(_)) => {}
            Err(_) if stream.waiting().is_empty() => return Err(End::Quiet),
            Err(_) => return Err(End::Refused(Reason::HeaderTimeout)),
        }
    }
}

fn checked_head(stream: &mut Stream, limits: HeadLimits) -> Result<Option<Head>, Reason> {
    // An empty line in front of a request is what some old clients send after a body (RFC 9112 section 2.2).
    if stream.waiting().starts_with(b"\r\n") {
        stream.skip(2);
    }
    head::parse(stream.waiting(), limits)
}

/// Waits for the first byte of the next request.
async fn idle(stream: &mut Stream, keepalive: Duration, listening: &Listening) -> Result<(), End> {
    let deadline = Instant::now() + keepalive;
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

/// Answers a head that Pingora must not see, and closes.
async fn refuse(stream: &mut Stream, reason: Reason) {
    let response = refusal(reason);
    let answer = async {
        tokio::io::AsyncWriteExt::write_all(stream, &response).await?;
        tokio::io::AsyncWriteExt::flush(stream).await
    };
    if !matches!(tokio::time::timeout(REFUSAL_TIMEOUT, answer).await, Ok(Ok(()))) {
        log::debug!("a refusal ({}) could not be delivered to {}", reason.name(), stream.connection().peer);
    }
}

fn refusal(reason: Reason) -> Vec<u8> {
    let reply = Reply::problem(reason, explanation(reason));
    let (headers, body) = reply.render(RequestId::new().as_str());
    let status = reply.status;
    let mut response =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Error")).into_bytes();
    for (name, value) in &headers {
        response.extend_from_slice(name.as_str().as_bytes());
        response.extend_from_slice(b": ");
        response.extend_from_slice(value.as_bytes());
        response.extend_from_slice(b"\r\n");
    }
    response.extend_from_slice(b"connection: close\r\n\r\n");
    response.extend_from_slice(&body);
    response
}

fn explanation(reason: Reason) -> &'static str {
    match reason {
        Reason::AmbiguousFraming => "The request does not say unambiguously where its body ends.",
        Reason::BadHost => "The request must have exactly one Host.",
        Reason::TooManyHeaders => "The request has too many header fields.",
        Reason::HeadTooLarge => "The request's header fields are too large.",
        Reason::UriTooLong => "The request's target is too long.",
        Reason::HeaderTimeout => "The request's header fields did not arrive in time.",
        Reason::Unsupported => "This method or version of HTTP is not served here.",
        _ => "The request is not valid HTTP/1.1.",
    }
}
