//! The end of a request: its one record, and what is counted of it.

use std::sync::Arc;
use std::time::Instant;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use pingora_proxy::Session;

use super::ctx::RequestCtx;
use super::failure;
use crate::config::AccessFormat;
use crate::filter::Facts;
use crate::http::{Connection, Reason};
use crate::snapshot::Snapshot;
use crate::telemetry::{AccessLog, Record, TlsRecord};

/// What logs and metrics call an exchange whose client left first; no client ever sees it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What was seen on the client's side.
struct Seen<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    version: Version,
    status: StatusCode,
    bytes_in: u64,
    bytes_out: u64,
}

/// A request came to its end: counts it, and hands its record to the access log if that wants it.
pub(super) fn finish(session: &Session, ctx: &RequestCtx, access_log: &AccessLog, now: Instant) {
    let header = session.req_header();
    let seen = Seen {
        method: &header.method,
        headers: &header.headers,
        version: header.version,
        status: status(session.response_written().map(|response| response.status), ctx.reason),
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
    };
    leave(ctx, access_log, ctx.reason, &seen, now);
}

/// A request was dropped before its end: its deadline had passed, or its connection ended.
pub(super) fn dropped(ctx: &RequestCtx, access_log: &AccessLog) {
    let now = Instant::now();
    let reason = ctx.reason.unwrap_or_else(|| failure::reason_of_drop(ctx, now));
    let seen = Seen {
        method: &ctx.target.method,
        headers: &HeaderMap::new(),
        version: Version::HTTP_2,
        status: status(None, Some(reason)),
        bytes_in: ctx.progress.body_bytes,
        bytes_out: ctx.progress.sent_bytes,
    };
    leave(ctx, access_log, Some(reason), &seen, now);
}

fn leave(ctx: &RequestCtx, access_log: &AccessLog, reason: Option<Reason>, seen: &Seen<'_>, now: Instant) {
    let (Some(snapshot), Some(connection)) = (&ctx.snapshot, &ctx.connection) else {
        return;
    };
    let counters = ctx.route.as_ref().map_or(&snapshot.unrouted, |route| &route.metrics);
    let duration = now.saturating_duration_since(ctx.clock.steady);
    counters.finish(&connection.listener, seen.method, seen.status, duration);
    if let (Some(reason), Some(listener)) = (reason.filter(is_refusal), snapshot.listener(&connection.listener)) {
        listener.refusals.count(reason);
    }
    if access_log.wants(is_success(seen.status, reason)) {
        access_log.log(Box::new(record(ctx, snapshot, connection, reason, seen, now)));
    }
}

/// What was answered, or would have been.
fn status(written: Option<StatusCode>, reason: Option<Reason>) -> StatusCode {
    if reason == Some(Reason::ClientAborted) {
        return StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("three digits");
    }
    written
        .filter(|status| !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS)
        .or(reason.map(Reason::status))
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether we answered, or ended, because the request could not have what it asked for.
fn is_refusal(reason: &Reason) -> bool {
    !matches!(reason, Reason::Responded | Reason::Redirected | Reason::ClientAborted)
}

/// Whether the line may be left out by sampling.
fn is_success(status: StatusCode, reason: Option<Reason>) -> bool {
    status.as_u16() < 400 && reason.is_none_or(|reason| reason.proxy_error().is_none())
}

fn record(
    ctx: &RequestCtx,
    snapshot: &Snapshot,
    connection: &Connection,
    reason: Option<Reason>,
    seen: &Seen<'_>,
    now: Instant,
) -> Record {
    let since = |instant: Instant| instant.saturating_duration_since(ctx.clock.steady);
    Record {
        received: ctx.clock.wall,
        request_id: ctx.id,
        client: ctx.client,
        peer: connection.peer.ip(),
        listener: connection.listener.clone(),
        tls: connection.tls.as_ref().map(|tls| TlsRecord {
            version: tls.version,
            cipher: tls.cipher,
            sni: tls.sni.clone(),
        }),
        proxied: connection.proxied.clone(),
        method: seen.method.clone(),
        host: ctx.target.host.clone(),
        path: ctx.target.path.clone(),
        query: ctx.target.query.clone(),
        version: seen.version,
        status: seen.status,
        bytes_in: seen.bytes_in,
        bytes_out: seen.bytes_out,
        duration: since(now),
        first_byte: ctx.progress.answered.map(since),
        queued: ctx.passage.notes.waited,
        route: ctx.route.as_ref().map(|route| route.name.clone()),
        upstream: ctx.upstream().filter(|_| ctx.attempt.count > 0).map(|upstream| upstream.name().clone()),
        endpoint: ctx.attempt.endpoint.clone(),
        attempts: ctx.attempt.count,
        reason: reason.map(Reason::name),
        limit: ctx.passage.notes.refused_by.clone(),
        shadowed_by: ctx.passage.notes.shadowed_by.clone(),
        auth: ctx.passage.identity.as_ref().map(|identity| identity.auth.clone()),
        user_agent: seen.headers.get(USER_AGENT).and_then(alone),
        referer: seen.headers.get(REFERER).filter(|_| wants_referer(snapshot)).and_then(alone),
        generation: snapshot.generation,
        extra: extra(ctx, snapshot, seen),
        token_parameters: Arc::clone(&snapshot.token_parameters),
    }
}

/// A copy of its own: as it came it would keep the whole head in memory for as long as its line waits.
fn alone(value: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

/// The combined format alone has a place for it.
fn wants_referer(snapshot: &Snapshot) -> bool {
    snapshot.config.log.access.format == AccessFormat::Combined
}

/// The fields the operator asks for; those a request does not have are left out.
fn extra(ctx: &RequestCtx, snapshot: &Snapshot, seen: &Seen<'_>) -> Vec<(String, String)> {
    let fields = &snapshot.config.log.access.fields;
    if fields.is_empty() {
        return Vec::new();
    }
    let request = ctx.request(seen.method, seen.headers);
    let facts = Facts { request: &request, identity: ctx.passage.identity.as_ref() };
    fields.iter().filter_map(|(name, selector)| Some((name.clone(), facts.read(selector)?.into_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_left_is_told_apart_from_what_it_was_sent() {
        assert_eq!(status(Some(StatusCode::OK), Some(Reason::ClientAborted)).as_u16(), 499);
        assert_eq!(status(None, Some(Reason::ClientAborted)).as_u16(), 499);
    }

    #[test]
    fn the_status_is_the_one_that_was_sent() {
        assert_eq!(status(Some(StatusCode::OK), Some(Reason::ResponseIncomplete)), StatusCode::OK);
        assert_eq!(status(Some(StatusCode::SWITCHING_PROTOCOLS), None), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(status(Some(StatusCode::CONTINUE), Some(Reason::UpstreamReset)), StatusCode::BAD_GATEWAY);
    }

    #[test]
    fn what_went_wrong_is_never_sampled_away() {
        assert!(is_success(StatusCode::OK, None));
        assert!(is_success(StatusCode::PERMANENT_REDIRECT, Some(Reason::Redirected)));
        assert!(!is_success(StatusCode::OK, Some(Reason::ResponseIncomplete)));
        assert!(!is_success(StatusCode::NOT_FOUND, None));
    }
}
