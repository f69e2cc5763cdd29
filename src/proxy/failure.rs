//! What went wrong between us and the upstream, what to do about it, and what the client is told.
//!
//! The only table from errors to reasons. Pingora's own idea of what may be sent again is never used: it would repeat a
//! POST that a broken h2 upstream may have carried out.

use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::RETRY_AFTER;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use super::ctx::{Progress, RequestCtx};
use crate::http::{Reason, Reply};
use crate::upstream::{Failure, Outcome, Unavailable, Upstream};

/// Why an exchange failed.
pub(super) fn reason(error: &Error, ctx: &RequestCtx, now: Instant) -> Reason {
    if let Some(reason) = ctx.reason {
        return reason;
    }
    if ctx.is_overdue(now) {
        return overdue(ctx);
    }
    match error.esource() {
        // The connection's own patience shows as an error of reading.
        ErrorSource::Upstream if *error.etype() == ErrorType::ReadError && ctx.has_waited(now) => Reason::TryTimeout,
        ErrorSource::Upstream if is_late_handshake(error, ctx) => Reason::TlsTimeout,
        ErrorSource::Upstream => upstream(error.etype(), ctx),
        ErrorSource::Downstream if ctx.deadline.as_ref().is_some_and(|deadline| deadline.has_passed(now)) => {
            silence(ctx)
        }
        ErrorSource::Downstream => client(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => Reason::Internal,
    }
}

/// Why a request that was dropped did not come to its end.
pub(super) fn reason_of_drop(ctx: &RequestCtx, now: Instant) -> Reason {
    if ctx.is_overdue(now) {
        overdue(ctx)
    } else if ctx.deadline.as_ref().is_some_and(|deadline| deadline.has_passed(now)) {
        silence(ctx)
    } else {
        Reason::ClientAborted
    }
}

/// All of it took too long.
fn overdue(ctx: &RequestCtx) -> Reason {
    // By gRPC a caller may send for as long as it waits for answers.
    let whole = ctx.progress.request_done || ctx.attempt.call_ends.is_some();
    if whole { Reason::RequestTimeout } else { Reason::ClientTimeout }
}

/// Nothing moved for too long: whose turn was it?
fn silence(ctx: &RequestCtx) -> Reason {
    match ctx.progress {
        Progress { stream: true, answered: Some(_), .. } => Reason::StreamIdle,
        Progress { request_done: true, answered: None, .. } => Reason::UpstreamTimeout,
        _ => Reason::ClientTimeout,
    }
}

/// Whether TCP was there in time and TLS was not. With rustls Pingora has one error for both, whose words alone differ.
fn is_late_handshake(error: &Error, ctx: &RequestCtx) -> bool {
    *error.etype() == ErrorType::ConnectTimedout
        && error.context.as_ref().is_some_and(|context| context.as_str().starts_with("connecting to server"))
        && ctx.upstream().is_some_and(|upstream| upstream.spec().tls.is_some())
}

fn upstream(error: &ErrorType, ctx: &RequestCtx) -> Reason {
    use ErrorType as E;
    match error {
        E::ConnectTimedout => Reason::ConnectTimeout,
        E::TLSHandshakeTimedout => Reason::TlsTimeout,
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::BindError | E::SocketError => {
            Reason::ConnectFailed
        }
        E::TLSHandshakeFailure | E::InvalidCert | E::TLSWantX509Lookup => Reason::UpstreamTls,
        E::ReadTimedout if ctx.progress.stream && ctx.progress.answered.is_some() => Reason::StreamIdle,
        // The upstream may well be waiting for the rest of the request.
        E::ReadTimedout if !ctx.progress.request_done => Reason::ClientTimeout,
        E::ReadTimedout if ctx.progress.answered.is_some() => Reason::UpstreamIdle,
        E::ReadTimedout | E::WriteTimedout => Reason::UpstreamTimeout,
        E::InvalidHTTPHeader | E::H1Error | E::InvalidH2 | E::H2Downgrade | E::HandshakeError => {
            Reason::UpstreamProtocol
        }
        _ => Reason::UpstreamReset,
    }
}

fn client(error: &ErrorType) -> Reason {
    match error {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Reason::ClientTimeout,
        ErrorType::InvalidHTTPHeader => Reason::MalformedRequest,
        _ => Reason::ClientAborted,
    }
}

/// What the endpoint is credited with; nothing where it was not at fault.
pub(super) fn outcome(reason: Reason, ctx: &RequestCtx, now: Instant) -> Option<Outcome> {
    match reason {
        Reason::RequestTimeout if !endpoint_had_its_time(ctx, now) => None,
        Reason::ConnectFailed => Some(Outcome::ConnectFailed),
        Reason::ConnectTimeout => Some(Outcome::ConnectTimeout),
        Reason::UpstreamTls | Reason::TlsTimeout => Some(Outcome::TlsFailed),
        Reason::UpstreamReset => Some(Outcome::Reset),
        Reason::UpstreamProtocol => Some(Outcome::ProtocolError),
        Reason::TryTimeout | Reason::UpstreamTimeout | Reason::RequestTimeout => Some(Outcome::Timeout),
        Reason::ResponseIncomplete | Reason::UpstreamIdle => Some(Outcome::Incomplete),
        _ => None,
    }
}

/// Whether it was the endpoint that used up the time of an exchange. A client may take nearly all of it for its own
/// body, or say that it will wait for no time at all.
fn endpoint_had_its_time(ctx: &RequestCtx, now: Instant) -> bool {
    let Some(asked) = ctx.attempt.asked else { return false };
    let waited = now.saturating_duration_since(asked);
    let all = now.saturating_duration_since(ctx.clock.steady);
    let patience = ctx.upstream().map_or(Duration::MAX, |upstream| upstream.spec().timeouts.first_byte);
    waited >= patience || (ctx.attempt.call_ends.is_none() && waited * 2 >= all)
}

/// As what a failure counts for another attempt, if it may have one at all: `replayable` is whether the body is still
/// there to be sent again.
pub(super) fn failure(reason: Reason, error: &Error, replayable: bool) -> Option<Failure> {
    match reason {
        // The one case where Pingora's own decision is used: an h2 peer has said that it did not begin.
        Reason::UpstreamReset
            if replayable && *error.etype() == ErrorType::H2Error && error.retry == RetryType::Decided(true) =>
        {
            Some(Failure::Refused)
        }
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::UpstreamTls | Reason::TlsTimeout => {
            Some(Failure::Connect)
        }
        Reason::UpstreamReset if replayable => Some(Failure::Reset),
        Reason::UpstreamProtocol if replayable => Some(Failure::Protocol),
        Reason::TryTimeout if replayable => Some(Failure::Timeout),
        // One that our patience with the client ended has used the client's time up.
        Reason::UpstreamTimeout if replayable && *error.esource() == ErrorSource::Upstream => Some(Failure::Timeout),
        _ => None,
    }
}

/// What the client is told when no endpoint can be picked.
pub(super) fn unavailable(unavailable: Unavailable, upstream: &Upstream) -> Reply {
    match unavailable {
        Unavailable::BreakerOpen => {
            let seconds = upstream.breaker().map_or(1, |breaker| breaker.opens_in.as_secs() + 1);
            Reply::problem(Reason::BreakerOpen, "The service behind this route fails too often to be asked now.")
                .header(RETRY_AFTER, HeaderValue::from(seconds))
        }
        // Only after a failed attempt, which then is what the client is told of.
        Unavailable::NoHealthyEndpoint | Unavailable::AllTried => {
            Reply::problem(Reason::NoHealthyEndpoint, "The service behind this route is not available.")
        }
        Unavailable::EndpointsBusy => busy(Reason::EndpointsBusy),
        Unavailable::QueueFull => busy(Reason::QueueFull),
        Unavailable::QueueTimeout => busy(Reason::QueueTimeout),
    }
}

/// Nobody knows when a request ends; a second is the shortest wait the field can say.
fn busy(reason: Reason) -> Reply {
    Reply::problem(reason, "The service behind this route is at its limit: try again later.")
        .header(RETRY_AFTER, HeaderValue::from_static("1"))
}

/// What the client is told of a failure.
pub(super) fn reply(reason: Reason) -> Reply {
    let detail = match reason {
        Reason::ConnectFailed => "The service behind this route cannot be reached.",
        Reason::ConnectTimeout => "The service behind this route did not accept the connection in time.",
        Reason::TlsTimeout => "The service behind this route did not complete the TLS handshake in time.",
        Reason::UpstreamTls => "The service behind this route could not be reached securely.",
        Reason::UpstreamReset => "The service behind this route closed the connection without an answer.",
        Reason::UpstreamProtocol => "The service behind this route did not answer in HTTP.",
        Reason::TryTimeout | Reason::UpstreamTimeout => "The service behind this route did not answer in time.",
        Reason::UpstreamIdle => "The service behind this route stopped sending its response.",
        Reason::RequestTimeout => "The request took longer than this route allows.",
        Reason::ClientTimeout => "The request's body did not arrive in time.",
        Reason::StreamIdle => "Nothing was sent in either direction for too long.",
        Reason::ResponseIncomplete => "The response of the service behind this route broke off.",
        Reason::MalformedRequest => "The request is not valid HTTP.",
        _ => "The gateway could not complete the request.",
    };
    Reply::problem(reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ctx(stream: bool, request_done: bool, answered: bool) -> RequestCtx {
        let mut ctx = RequestCtx::new();
        ctx.progress = Progress { stream, request_done, answered: answered.then(Instant::now), ..Progress::default() };
        ctx
    }

    #[test]
    fn each_failure_of_an_upstream_has_its_reason_and_its_outcome() {
        use ErrorType as E;
        let ctx = ctx(false, true, false);
        for (error, expected, outcome) in [
            (E::ConnectRefused, Reason::ConnectFailed, Outcome::ConnectFailed),
            (E::ConnectTimedout, Reason::ConnectTimeout, Outcome::ConnectTimeout),
            (E::TLSHandshakeTimedout, Reason::TlsTimeout, Outcome::TlsFailed),
            (E::InvalidCert, Reason::UpstreamTls, Outcome::TlsFailed),
            (E::ReadTimedout, Reason::UpstreamTimeout, Outcome::Timeout),
            (E::InvalidHTTPHeader, Reason::UpstreamProtocol, Outcome::ProtocolError),
            (E::InvalidH2, Reason::UpstreamProtocol, Outcome::ProtocolError),
            (E::ConnectionClosed, Reason::UpstreamReset, Outcome::Reset),
            (E::WriteError, Reason::UpstreamReset, Outcome::Reset),
        ] {
            let reason = reason(&Error::new_up(error), &ctx, Instant::now());
            assert_eq!((reason, super::outcome(reason, &ctx, Instant::now())), (expected, Some(outcome)));
        }
    }

    #[test]
    fn a_timeout_is_blamed_on_whose_turn_it_was() {
        let blame = |ctx: &RequestCtx| reason(&Error::new_up(ErrorType::ReadTimedout), ctx, Instant::now());
        assert_eq!(blame(&ctx(false, false, false)), Reason::ClientTimeout);
        assert_eq!(blame(&ctx(false, true, false)), Reason::UpstreamTimeout);
        assert_eq!(blame(&ctx(true, true, true)), Reason::StreamIdle);
        assert_eq!(outcome(Reason::ClientTimeout, &ctx(true, true, true), Instant::now()), None);
    }

    #[test]
    fn an_endpoint_is_not_blamed_for_the_time_that_its_client_took() {
        let blamed = |asked: u64, calls: bool| {
            let mut ctx = ctx(false, true, false);
            let begun = ctx.clock.steady;
            ctx.attempt.asked = Some(begun + Duration::from_secs(asked));
            ctx.attempt.call_ends = calls.then_some(begun);
            outcome(Reason::RequestTimeout, &ctx, begun + Duration::from_secs(10))
        };
        assert_eq!(blamed(0, false), Some(Outcome::Timeout));
        assert_eq!(blamed(5, false), Some(Outcome::Timeout));
        assert_eq!(blamed(6, false), None, "it had less than half");
        assert_eq!(blamed(0, true), None, "the caller has chosen the end");
    }

    #[test]
    fn the_end_of_an_exchange_explains_whatever_it_breaks() {
        let error = Error::new_up(ErrorType::ReadTimedout);
        let now = Instant::now();
        let mut ctx = ctx(false, true, false);
        ctx.attempt.last = Some(now);
        assert_eq!(reason(&error, &ctx, now), Reason::RequestTimeout);
        assert_eq!(reason_of_drop(&ctx, now), Reason::RequestTimeout);
        ctx.attempt.last = Some(now + Duration::from_secs(1));
        assert_eq!(reason(&error, &ctx, now), Reason::UpstreamTimeout);
        assert_eq!(reason_of_drop(&ctx, now), Reason::ClientAborted);
    }

    #[test]
    fn what_may_be_sent_again_depends_on_what_was_sent() {
        let reset = Error::new_up(ErrorType::ConnectionClosed);
        assert_eq!(failure(Reason::ConnectFailed, &reset, false), Some(Failure::Connect));
        assert_eq!(failure(Reason::UpstreamReset, &reset, true), Some(Failure::Reset));
        assert_eq!(failure(Reason::UpstreamReset, &reset, false), None);
        assert_eq!(failure(Reason::UpstreamProtocol, &reset, true), Some(Failure::Protocol));
        for reason in [Reason::RequestTimeout, Reason::ClientAborted, Reason::BodyTooLarge] {
            assert_eq!(failure(reason, &reset, true), None);
        }
        let ours = Error::new_down(ErrorType::ReadTimedout);
        assert_eq!(failure(Reason::UpstreamTimeout, &ours, true), None, "our patience, and the client's time");
        let late = Error::new_up(ErrorType::ReadTimedout);
        assert_eq!(failure(Reason::UpstreamTimeout, &late, true), Some(Failure::Timeout));
        assert_eq!(failure(Reason::UpstreamTimeout, &late, false), None);
    }
}
