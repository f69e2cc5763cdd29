//! Everything that is decided before the upstream is asked.

use std::ops::ControlFlow;
use std::pin::pin;

use http::header::CONTENT_LENGTH;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::ctx::{RequestCtx, is_http2};
use super::{intake, line};
use crate::filter::limit::{self, Notes};
use crate::filter::{Facts, asked_method};
use crate::http::{Reason, Reply, RequestId, grpc};
use crate::snapshot::Snapshot;

/// May the request pass? `Err` is the answer to give.
pub(super) async fn request(session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Reply> {
    let internal = || Reply::problem(Reason::Internal, "The gateway could not read the connection.");
    let snapshot = ctx.snapshot.clone().ok_or_else(internal)?;
    let connection = ctx.connection.clone().ok_or_else(internal)?;
    let client = intake::client(session, &connection, &snapshot);
    ctx.client = client.address;
    if client.trusted_peer
        && let Some(id) = session.get_header("x-request-id").and_then(|id| RequestId::accept(id.as_bytes()))
    {
        ctx.id = id;
    }
    intake::clean(session.req_header_mut(), &snapshot, client.trusted_peer);
    let encoded_slash = match intake::target(session.req_header()) {
        Ok((target, encoded_slash)) => {
            ctx.target = target;
            Ok(encoded_slash)
        }
        Err(reply) => {
            // For the log, which escapes the one and masks secrets in the other, and for limits that count by them.
            let sent = String::from_utf8_lossy(session.req_header().raw_path());
            let (path, query) = sent.split_once('?').map_or((&*sent, None), |(path, query)| (path, Some(query)));
            ctx.target.path = path.to_owned();
            ctx.target.query = query.map(str::to_owned);
            Err(reply)
        }
    };
    // What is refused for its target or its host has arrived too.
    admit_to_listener(session.req_header(), ctx, &snapshot).await?;
    let encoded_slash = encoded_slash?;
    if let Some(reply) = intake::misdirected(ctx) {
        return Err(reply);
    }
    if let Some(reply) = intake::https_redirect(ctx, &snapshot, &connection) {
        return Err(reply);
    }
    filters(session, ctx, &snapshot, &connection.listener, encoded_slash).await
}

/// Limits for everything that arrives at a listener, whatever its route.
async fn admit_to_listener(header: &RequestHeader, ctx: &mut RequestCtx, snapshot: &Snapshot) -> Result<(), Reply> {
    let listener = ctx.connection.as_ref().and_then(|connection| snapshot.listener(&connection.listener));
    let Some(listener) = listener.filter(|listener| !listener.limits.is_empty()) else {
        return Ok(());
    };
    let request = ctx.request(&header.method, &header.headers);
    let facts = Facts { request: &request, identity: None };
    let mut notes = Notes::default();
    let admitted = limit::admit(&listener.limits, &facts, ctx.clock, &mut notes).await;
    ctx.passage.notes = notes;
    ctx.listener_admission = admitted.map_err(|refusal| refusal.reply())?;
    Ok(())
}

/// Where requests may wait in a line their clients are listened to meanwhile, and so do not lend their heads.
async fn filters(
    session: &mut Session,
    ctx: &mut RequestCtx,
    snapshot: &Snapshot,
    listener: &str,
    encoded_slash: bool,
) -> Result<(), Reply> {
    let is_upgrade = session.is_upgrade_req();
    let copied;
    let (header, client) = if snapshot.may_wait {
        copied = Box::new(session.req_header().clone());
        (&*copied, Some(session))
    } else {
        (session.req_header(), None)
    };
    // In one place: each that waits for it has room of its own, in a future that is copied for every request.
    Arrived { header, client, is_upgrade, listener, encoded_slash }.pass(ctx, snapshot).await
}

/// A request before the filters of its route.
struct Arrived<'a> {
    header: &'a RequestHeader,
    /// Present where it may have to wait
    client: Option<&'a mut Session>,
    is_upgrade: bool,
    listener: &'a str,
    encoded_slash: bool,
}

impl Arrived<'_> {
    async fn pass(self, ctx: &mut RequestCtx, snapshot: &Snapshot) -> Result<(), Reply> {
        let Self { header, client, is_upgrade, listener, encoded_slash } = self;
        let mut passage = std::mem::take(&mut ctx.passage);
        let preflight = asked_method(&header.method, &header.headers);
        let found = intake::route(snapshot, ctx, header, preflight.as_ref(), listener, encoded_slash);
        let (route, parameters) = match found {
            Ok(found) => found,
            Err(reply) => {
                // What the listener's limits have said is to be told all the same.
                ctx.passage = passage;
                return Err(reply);
            }
        };
        let in_flight = route.metrics.start();
        let mut request = ctx.request(&header.method, &header.headers);
        request.route = &route.name;
        let length = header.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let verdict = {
            let passage = &mut passage;
            let mut verdict = pin!(route.filters.on_request(&request, length, &parameters, ctx.clock, passage));
            match client.filter(|_| route.filters.may_wait()) {
                None => verdict.await,
                Some(client) => {
                    let verdict = Box::pin(line::unless_left(client, verdict.as_mut())).await;
                    verdict.unwrap_or_else(|| ControlFlow::Break(left()))
                }
            }
        };
        ctx.attempt.last = route.timeout.map(|timeout| ctx.clock.steady + timeout);
        ctx.progress.stream = is_stream(is_upgrade, header);
        // gRPC is HTTP/2: what claims to be it by HTTP/1 is given no clock of its own.
        if ctx.progress.stream && ctx.connection.as_deref().is_some_and(is_http2) && grpc::is_grpc(&header.headers) {
            ctx.attempt.call_ends = grpc::timeout(&header.headers).and_then(|left| ctx.clock.steady.checked_add(left));
            ctx.attempt.last = ctx.attempt.last.into_iter().chain(ctx.attempt.call_ends).min();
        }
        ctx.passage = passage;
        ctx.in_flight = Some(in_flight);
        ctx.route = Some(route);
        match verdict {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(reply) => Err(reply),
        }
    }
}

/// What nobody will read.
fn left() -> Reply {
    Reply::problem(Reason::ClientAborted, "The client has left.")
}

/// WebSocket and gRPC announce themselves in the request; so does what asks for server-sent events.
fn is_stream(is_upgrade: bool, header: &RequestHeader) -> bool {
    is_upgrade
        || grpc::is_grpc(&header.headers)
        || header.headers.get(http::header::ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream")
}
