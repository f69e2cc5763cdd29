//! The end of a request: its one record, and what is counted of it.

use std::time::Instant;

use http::header::{REFERER, USER_AGENT};
use http::{Method, StatusCode};
use pingora_proxy::Session;

use super::Proxy;
use super::ctx::RequestCtx;
use crate::config::AccessFormat;
use crate::filter::Facts;
use crate::http::{Connection, Reason};
use crate::snapshot::Snapshot;
use crate::telemetry::{Record, TlsRecord};

/// What logs and metrics call an exchange whose client left first; no client ever sees it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Counts the request, and hands its record to the access log if that wants it.
pub(super) fn finish(proxy: &Proxy, session: &Session, ctx: &RequestCtx) {
    let (Some(snapshot), Some(connection)) = (&ctx.snapshot, &ctx.connection) else {
        return;
    };
    let now = Instant::now();
    let status = status(session, ctx.reason);
    let method = &session.req_header().method;
    let counters = ctx.route.as_ref().map_or(&snapshot.unrouted, |route| &route.metrics);
    counters.finish(&connection.listener, method, status, now.saturating_duration_since(ctx.clock.steady));
    if let (Some(reason), Some(listener)) = (ctx.reason.filter(is_refusal), snapshot.listener(&connection.listener)) {
        listener.refusals.count(reason);
    }
    if proxy.access_log.wants(is_success(status, ctx.reason)) {
        proxy.access_log.log(Box::new(record(session, ctx, snapshot, connection, status, now)));
    }
}

/// What was answered, or would have been.
fn status(session: &Session, reason: Option<Reason>) -> StatusCode {
    if reason == Some(Reason::ClientAborted) {
        return StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("three digits");
    }
    let written = session.response_written().map(|response| response.status);
    written
        .filter(|status| !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS)
        .or(reason.map(Reason::status))
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether we answered because the request could not have what it asked for.
fn is_refusal(reason: &Reason) -> bool {
    !matches!(reason, Reason::Responded | Reason::Redirected | Reason::ClientAborted)
}

/// Whether the line may be left out by sampling.
fn is_success(status: StatusCode, reason: Option<Reason>) -> bool {
    status.as_u16() < 400 && reason.is_none_or(|reason| reason.proxy_error().is_none())
}

fn record(
    session: &Session,
    ctx: &RequestCtx,
    snapshot: &Snapshot,
    connection: &Connection,
    status: StatusCode,
    now: Instant,
) -> Record {
    let header = session.req_header();
    let since = |instant: Instant| instant.saturating_duration_since(ctx.clock.steady);
    let asked = ctx.attempt.endpoint.is_some();
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
        method: header.method.clone(),
        host: ctx.target.host.clone(),
        path: ctx.target.path.clone(),
        query: ctx.target.query.clone(),
        version: header.version,
        status,
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
        duration: since(now),
        first_byte: ctx.progress.answered.map(since),
        route: ctx.route.as_ref().map(|route| route.name.clone()),
        upstream: ctx.upstream().filter(|_| asked).map(|upstream| upstream.name().clone()),
        endpoint: ctx.attempt.endpoint.clone(),
        attempts: if asked { ctx.attempt.tried.len() + 1 } else { 0 },
        reason: ctx.reason.map(Reason::name),
        auth: ctx.passage.identity.as_ref().map(|identity| identity.auth.clone()),
        user_agent: header.headers.get(USER_AGENT).cloned(),
        referer: header.headers.get(REFERER).filter(|_| wants_referer(snapshot)).cloned(),
        generation: snapshot.generation,
        extra: extra(ctx, snapshot, &header.method, &header.headers),
    }
}

/// The combined format alone has a place for it.
fn wants_referer(snapshot: &Snapshot) -> bool {
    snapshot.config.log.access.format == AccessFormat::Combined
}

/// The fields the operator asks for; those a request does not have are left out.
fn extra(ctx: &RequestCtx, snapshot: &Snapshot, method: &Method, headers: &http::HeaderMap) -> Vec<(String, String)> {
    let fields = &snapshot.config.log.access.fields;
    if fields.is_empty() {
        return Vec::new();
    }
    let request = ctx.request(method, headers);
    let facts = Facts { request: &request, identity: ctx.passage.identity.as_ref() };
    fields.iter().filter_map(|(name, selector)| Some((name.clone(), facts.read(selector)?.into_owned()))).collect()
}
