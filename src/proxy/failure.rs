//! What went wrong between us and the upstream, what to do about it, and what the client is told.
//!
//! The only table from errors to reasons. Pingora's own idea of what may be sent again is never used: it would repeat a
//! POST that a broken h2 upstream may have carried out.

use std::time::Instant;

use http::Method;
use pingora_error::{Error, ErrorSource, ErrorType};

use super::ctx::RequestCtx;
use crate::http::{Reason, Reply};
use crate::upstream::{Failure, Outcome, Unavailable};

/// Why an exchange failed.
pub(super) fn reason(error: &Error, ctx: &RequestCtx, now: Instant) -> Reason {
    if let Some(reason) = ctx.reason {
        return reason;
    }
    let silent = ctx
        .connection
        .as_ref()
        .and_then(|connection| connection.deadline())
        .is_some_and(|deadline| now >= deadline);
    if ctx.is_overdue(now) {
        return if ctx.progress.stream { Reason::StreamIdle } else { Reason::RequestTimeout };
    }
    match error.esource() {
        ErrorSource::Upstream => upstream(error.etype()),
        ErrorSource::Downstream if silent => silence(ctx),
        ErrorSource::Downstream => client(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => Reason::Internal,
    }
}

/// Nothing moved for too long: whose turn was it?
fn silence(ctx: &RequestCtx) -> Reason {
    if ctx.progress.stream && ctx.progress.answered.is_some() {
        Reason::StreamIdle
    } else if !ctx.progress.request_done {
        Reason::ClientTimeout
    } else {
        Reason::UpstreamTimeout
    }
}

fn upstream(error: &ErrorType) -> Reason {
    use ErrorType as E;
    match error {
        E::ConnectTimedout | E::TLSHandshakeTimedout => Reason::ConnectTimeout,
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::BindError | E::SocketError => Reason::ConnectFailed,
        E::TLSHandshakeFailure | E::InvalidCert | E::TLSWantX509Lookup => Reason::UpstreamTls,
        E::ReadTimedout | E::WriteTimedout => Reason::UpstreamTimeout,
        E::InvalidHTTPHeader | E::H1Error | E::InvalidH2 | E::H2Downgrade | E::HandshakeError => Reason::UpstreamProtocol,
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

/// What the endpoint is credited with.
pub(super) fn outcome(reason: Reason) -> Option<Outcome> {
    match reason {
        Reason::ConnectFailed | Reason::UpstreamTls => Some(Outcome::ConnectFailed),
        Reason::ConnectTimeout => Some(Outcome::ConnectTimeout),
        Reason::UpstreamReset => Some(Outcome::Reset),
        Reason::UpstreamProtocol => Some(Outcome::Malformed),
        Reason::UpstreamTimeout | Reason::RequestTimeout => Some(Outcome::Timeout),
        Reason::ResponseIncomplete => Some(Outcome::Incomplete),
        _ => None,
    }
}

/// Whether the request may go to another endpoint.
pub(super) fn retries(ctx: &RequestCtx, reason: Reason, method: &Method, replayable: bool, now: Instant) -> bool {
    let failure = match reason {
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::UpstreamTls => Failure::Connect,
        Reason::UpstreamReset | Reason::UpstreamProtocol if replayable && ctx.progress.answered.is_none() => Failure::Reset,
        _ => return false,
    };
    let Some(lease) = &ctx.attempt.lease else {
        return false;
    };
    !ctx.is_overdue(now) && lease.retry_policy().decides(failure, method, ctx.attempt.retries)
}

/// What the client is told when no endpoint can be picked.
pub(super) fn unavailable(unavailable: Unavailable) -> Reply {
    match unavailable {
        Unavailable::NoHealthyEndpoint => {
            Reply::problem(Reason::NoHealthyEndpoint, "The service behind this route is not available.")
        }
        Unavailable::EndpointsBusy => {
            Reply::problem(Reason::EndpointsBusy, "The service behind this route is at its limit.")
        }
    }
}

/// What the client is told of a failure.
pub(super) fn reply(reason: Reason) -> Reply {
    let detail = match reason {
        Reason::ConnectFailed => "The service behind this route cannot be reached.",
        Reason::ConnectTimeout => "The service behind this route did not accept the connection in time.",
        Reason::UpstreamTls => "The service behind this route could not be reached securely.",
        Reason::UpstreamReset => "The service behind this route closed the connection without an answer.",
        Reason::UpstreamProtocol => "The service behind this route did not answer in HTTP.",
        Reason::UpstreamTimeout => "The service behind this route did not answer in time.",
        Reason::RequestTimeout => "The request took longer than this route allows.",
        Reason::ClientTimeout => "The request's body did not arrive in time.",
        Reason::StreamIdle => "Nothing was sent in either direction for too long.",
        Reason::MalformedRequest => "The request is not valid HTTP.",
        _ => "The gateway could not complete the request.",
    };
    Reply::problem(reason, detail)
}
