//! What limits that find themselves are told: how long the upstream took for the head of its answer.
//!
//! From when it had all of the request, so that clients that send slowly do not make it look slow. Whatever fails fast
//! says nothing: an upstream that is broken must not look like one that has little to do.

use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::CONTENT_TYPE;
use pingora_http::ResponseHeader;

use super::ctx::RequestCtx;
use crate::filter::limit::Sample;
use crate::http::Reason;

/// The head of the answer has come.
pub(super) fn answered(ctx: &mut RequestCtx, response: &ResponseHeader, now: Instant) {
    let sample = sample(response, ctx.attempt.asked.map(|asked| now.saturating_duration_since(asked)));
    tell(ctx, sample, now);
}

/// `after` is there if the upstream had all of the request before it answered.
fn sample(response: &ResponseHeader, after: Option<Duration>) -> Sample {
    let status = response.status;
    let is_endless = status == StatusCode::SWITCHING_PROTOCOLS
        || response.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    match after {
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Sample::Overloaded,
        // The head of what has no end comes at once, or when something happens.
        Some(after) if !status.is_server_error() && !is_endless => Sample::Took(after),
        _ => Sample::Nothing,
    }
}

/// There was no head, and there will be none. What failed otherwise than by taking too long says nothing.
pub(super) fn failed(ctx: &mut RequestCtx, reason: Reason, now: Instant) {
    let is_late = matches!(
        reason,
        Reason::ConnectTimeout
            | Reason::TlsTimeout
            | Reason::TryTimeout
            | Reason::UpstreamTimeout
            | Reason::RequestTimeout
    );
    if is_late {
        tell(ctx, Sample::Overloaded, now);
    }
}

fn tell(ctx: &mut RequestCtx, sample: Sample, now: Instant) {
    for admission in
        [&mut ctx.listener_admission, &mut ctx.passage.client_admission, &mut ctx.passage.consumer_admission]
    {
        admission.observe(sample, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_a_whole_request_tells_how_long_the_upstream_takes() {
        let took = Some(Duration::from_millis(7));
        let told = |status: u16, kind: &'static str, after| {
            let mut response = ResponseHeader::build(status, None).expect("a status");
            response.insert_header(CONTENT_TYPE, kind).expect("a value");
            sample(&response, after)
        };
        for status in [200, 304, 404, 429] {
            assert_eq!(told(status, "text/plain", took), Sample::Took(Duration::from_millis(7)));
            assert_eq!(told(status, "text/plain", None), Sample::Nothing);
        }
        assert_eq!(told(200, "application/grpc", took), Sample::Took(Duration::from_millis(7)));
        for (status, kind) in [(101, "text/plain"), (200, "text/event-stream"), (500, "text/plain"), (502, "a/b")] {
            assert_eq!(told(status, kind, took), Sample::Nothing);
        }
        assert_eq!((told(503, "a/b", took), told(503, "a/b", None)), (Sample::Overloaded, Sample::Overloaded));
    }
}
