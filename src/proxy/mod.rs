//! The data plane: Pingora's phases, in the order it calls them, each delegating.

mod ctx;
mod failure;
mod forward;
mod intake;
mod log;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderName, HeaderValue, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

pub use self::ctx::RequestCtx;
use self::ctx::is_http2;
use crate::control::Drain;
use crate::filter::{Facts, SizeLimit, limit};
use crate::http::{Reason, Reply, RequestId};
use crate::snapshot::{Live, RouteAction, Snapshot};
use crate::telemetry::{AccessLog, Metrics};
use crate::upstream::Outcome;

/// How long a client may take none of a response, or send none of a body it announced.
const CLIENT_SILENCE: Duration = Duration::from_secs(60);
/// How long the answer that ends a request in trouble may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Pingora's `ProxyHttp`.
#[derive(Debug)]
pub struct Proxy {
    /// The truth of each moment
    pub live: Arc<Live>,
    /// Whether the process is leaving
    pub drain: Drain,
    /// What is counted
    pub metrics: Arc<Metrics>,
    /// Where each request leaves a line
    pub access_log: AccessLog,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestCtx;

    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::new()
    }

    /// None: the default one would add a compression module to every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<()> {
        ctx.connection = intake::connection(session);
        ctx.snapshot = Some(self.live.load_full());
        if self.drain.is_stopping() {
            session.set_keepalive(None);
        }
        session.set_read_timeout(Some(CLIENT_SILENCE));
        session.set_write_timeout(Some(CLIENT_SILENCE));
        // A client that half-closes still wants its answer; our stream does not report it, and h2 has no such thing.
        if session.req_header().version == Version::HTTP_10 {
            // RFC 9110 sections 10.1.1 and 15.2: HTTP/1.0 knows neither the expectation nor 1xx.
            session.req_header_mut().remove_header(&EXPECT);
            session.set_ignore_info_resp(true);
        }
        Ok(())
    }

    /// `true` when the request has been answered here.
    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        match self.judge(session, ctx).await {
            Ok(()) => Ok(false),
            Err(reply) => {
                self.write(session, ctx, reply).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let now = Instant::now();
        let Some(route) = ctx.route.clone() else {
            return Err(Error::explain(ErrorType::InternalError, "a request without a route"));
        };
        let RouteAction::Upstream(upstream) = &route.action else {
            return Err(Error::explain(ErrorType::InternalError, "a route that answers by itself"));
        };
        ctx.progress.body_bytes = 0;
        ctx.attempt.began = Some(now);
        ctx.attempt.lease = None;
        let lease = upstream.pick(&ctx.attempt.tried).map_err(|unavailable| {
            // After a failed attempt the client is told of that one.
            if ctx.reply.is_none() {
                ctx.reply = Some(failure::unavailable(unavailable));
            }
            Error::new(ErrorType::Custom("no endpoint"))
        })?;
        ctx.reply = None;
        ctx.reason = None;
        ctx.attempt.tried.push(&lease);
        let mut peer = lease.peer();
        let timeouts = upstream.spec().timeouts;
        let silence = if ctx.progress.stream { route.stream_idle } else { timeouts.first_byte.max(timeouts.idle) };
        let remaining = ctx.remaining(now).unwrap_or(silence);
        peer.options.read_timeout = Some(if ctx.progress.stream { silence } else { silence.min(remaining) });
        if ctx.progress.stream {
            peer.options.write_timeout = Some(silence);
        }
        ctx.attempt.lease = Some(lease);
        ctx.extend(now, if session.is_body_done() { timeouts.first_byte } else { CLIENT_SILENCE });
        Ok(peer)
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, ctx: &mut RequestCtx, error: Box<Error>) -> Box<Error> {
        self.fail(session, ctx, error, true)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let (Some(snapshot), Some(lease)) = (&ctx.snapshot, &ctx.attempt.lease) else {
            return Err(Error::explain(ErrorType::InternalError, "a request without an endpoint"));
        };
        forward::request(request, ctx, snapshot, &lease.upstream().spec().host)
    }

    /// Counts a body once: after an upgrade bytes are no body, and a new attempt starts over with what it replays.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let now = Instant::now();
        if session.was_upgraded() {
            if let Some(route) = &ctx.route {
                ctx.extend(now, route.stream_idle);
            }
            return Ok(());
        }
        // An empty DATA frame at the end of an h2 body would become a second last chunk towards an HTTP/1 upstream.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        ctx.progress.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        ctx.progress.request_done |= end_of_stream;
        let Some(route) = ctx.route.clone() else {
            return Ok(());
        };
        if !route.filters.size.allows(ctx.progress.body_bytes) {
            ctx.reason = Some(Reason::BodyTooLarge);
            ctx.reply = Some(SizeLimit::reply());
            return Err(Error::new_down(ErrorType::Custom("body too large")));
        }
        if ctx.progress.answered.is_none() {
            let first_byte = ctx.attempt.lease.as_ref().map(|lease| lease.upstream().spec().timeouts.first_byte);
            let silence = if end_of_stream { first_byte.unwrap_or(CLIENT_SILENCE) } else { CLIENT_SILENCE };
            ctx.extend(now, if ctx.progress.stream { silence.max(route.stream_idle) } else { silence });
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
            ctx.reason = Some(Reason::UpstreamProtocol);
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        let now = Instant::now();
        ctx.progress.answered = Some(now);
        if let Some(lease) = &ctx.attempt.lease {
            lease.observe(Outcome::Answered(response.status));
        }
        ctx.progress.stream |= is_stream_response(response);
        if ctx.progress.stream {
            // The route's timeout was for the head; from here on only silence ends a stream.
            ctx.attempt.deadline = None;
        }
        self.moved(ctx, now);
        Ok(())
    }

    async fn response_filter(&self, _: &mut Session, response: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        for name in ["keep-alive", "proxy-connection"] {
            response.remove_header(name);
        }
        decorate(response, ctx)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<Duration>> {
        let now = Instant::now();
        if ctx.is_overdue(now) {
            ctx.reason = Some(Reason::RequestTimeout);
            return Err(Error::new_in(ErrorType::Custom("the response took too long")));
        }
        self.moved(ctx, now);
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestCtx,
        _: bool,
    ) -> Box<Error> {
        let replayable = !session.as_ref().retry_buffer_truncated();
        self.fail(session, ctx, error, replayable)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> FailToProxy {
        let reason = ctx.reason.unwrap_or_else(|| failure::reason(error, ctx, Instant::now()));
        let reply = ctx.reply.take().unwrap_or_else(|| failure::reply(reason));
        ctx.reason = Some(reply.reason);
        if let Some(connection) = &ctx.connection {
            connection.set_deadline(None);
        }
        let begun = session.response_written().is_some_and(|response| !response.status.is_informational());
        if begun || session.was_upgraded() {
            self.break_off(session, ctx, reason);
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if reason == Reason::ClientAborted {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let status = reply.status.as_u16();
        session.set_keepalive(None);
        let written = tokio::time::timeout(LAST_WORDS, self.write(session, ctx, reply)).await;
        if !matches!(written, Ok(Ok(()))) {
            ::log::debug!("the client did not take its error response");
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// The access log has it.
    fn suppress_error_log(&self, _: &Session, _: &RequestCtx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &RequestCtx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut RequestCtx) {
        if let Some(connection) = &ctx.connection {
            connection.set_deadline(None);
        }
        log::finish(self, session, ctx);
    }
}

impl Proxy {
    /// Everything that is decided before the upstream is asked: `Err` is the answer.
    async fn judge(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Reply> {
        let internal = || Reply::problem(Reason::Internal, "The gateway could not read the connection.");
        let snapshot = ctx.snapshot.clone().ok_or_else(internal)?;
        let connection = ctx.connection.clone().ok_or_else(internal)?;
        let client = intake::client(session, &connection, &snapshot);
        ctx.client = client.address;
        if client.trusted_peer {
            if let Some(id) = session.get_header("x-request-id").and_then(|id| RequestId::accept(id.as_bytes())) {
                ctx.id = id;
            }
        }
        intake::clean(session.req_header_mut(), &snapshot);
        let encoded_slash;
        (ctx.target, encoded_slash) = intake::target(session.req_header())?;
        if let Some(reply) = intake::misdirected(ctx) {
            return Err(reply);
        }
        self.admit_to_listener(session, ctx, &snapshot)?;
        if let Some(reply) = intake::https_redirect(ctx, &snapshot, &connection) {
            return Err(reply);
        }
        self.run_filters(session, ctx, &snapshot, &connection.listener, encoded_slash).await
    }

    /// Limits for everything that arrives at a listener, whatever its route.
    fn admit_to_listener(&self, session: &Session, ctx: &mut RequestCtx, snapshot: &Snapshot) -> Result<(), Reply> {
        let listener = ctx.connection.as_ref().and_then(|connection| snapshot.listener(&connection.listener));
        let Some(listener) = listener.filter(|listener| !listener.limits.is_empty()) else {
            return Ok(());
        };
        let header = session.req_header();
        let request = ctx.request(&header.method, &header.headers);
        let facts = Facts { request: &request, identity: None };
        let admission = limit::admit(&listener.limits, &facts, ctx.clock.steady).map_err(|refusal| refusal.reply())?;
        ctx.listener_admission = admission;
        Ok(())
    }

    async fn run_filters(
        &self,
        session: &Session,
        ctx: &mut RequestCtx,
        snapshot: &Snapshot,
        listener: &str,
        encoded_slash: bool,
    ) -> Result<(), Reply> {
        let header = session.req_header();
        let mut passage = std::mem::take(&mut ctx.passage);
        let (route, parameters) = intake::route(snapshot, ctx, header, listener, encoded_slash)?;
        let in_flight = route.metrics.start();
        let mut request = ctx.request(&header.method, &header.headers);
        request.route = &route.name;
        let length = header.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let verdict =
            route.filters.on_request(&request, length, parameters.as_slice(), ctx.clock, &mut passage).await;
        ctx.attempt.deadline = route.timeout.map(|timeout| ctx.clock.steady + timeout);
        ctx.progress.stream = is_stream_request(session, header);
        ctx.passage = passage;
        ctx.in_flight = Some(in_flight);
        ctx.route = Some(route);
        match verdict {
            std::ops::ControlFlow::Continue(()) => Ok(()),
            std::ops::ControlFlow::Break(reply) => Err(reply),
        }
    }

    /// An attempt failed: credits the endpoint, and decides whether there is another attempt.
    fn fail(&self, session: &Session, ctx: &mut RequestCtx, mut error: Box<Error>, replayable: bool) -> Box<Error> {
        let now = Instant::now();
        let reason = failure::reason(&error, ctx, now);
        if let (Some(lease), Some(outcome)) = (&ctx.attempt.lease, failure::outcome(reason)) {
            lease.observe(outcome);
        }
        let begun = session.response_written().is_some_and(|response| !response.status.is_informational());
        let again = !begun && failure::retries(ctx, reason, &session.req_header().method, replayable, now);
        if again {
            ctx.attempt.retries += 1;
            if let Some(lease) = &ctx.attempt.lease {
                self.metrics.retry(&lease.upstream().spec_name(), reason);
            }
            // If no endpoint is left, the client is told why this attempt failed.
            ctx.reply = Some(failure::reply(reason));
        } else {
            ctx.reason = Some(reason);
        }
        error.set_retry(again);
        error
    }

    /// The response has begun and cannot be completed: the client must not take it for the whole.
    fn break_off(&self, session: &mut Session, ctx: &mut RequestCtx, reason: Reason) {
        ctx.reason = Some(match reason {
            Reason::UpstreamReset | Reason::UpstreamProtocol | Reason::UpstreamTimeout => Reason::ResponseIncomplete,
            other => other,
        });
        if let Some(lease) = ctx.attempt.lease.as_ref().filter(|_| ctx.reason == Some(Reason::ResponseIncomplete)) {
            lease.observe(Outcome::Incomplete);
        }
        match &ctx.connection {
            Some(connection) if is_http2(connection) => session.shutdown_with_reason(h2::Reason::INTERNAL_ERROR),
            Some(connection) => connection.abort(),
            None => {}
        }
    }

    /// Something moved in either direction.
    fn moved(&self, ctx: &RequestCtx, now: Instant) {
        let silence = match (&ctx.route, &ctx.attempt.lease) {
            (Some(route), _) if ctx.progress.stream => route.stream_idle,
            (_, Some(lease)) => lease.upstream().spec().timeouts.idle,
            _ => CLIENT_SILENCE,
        };
        ctx.extend(now, silence);
    }

    /// Writes an answer of ours, with what the route's responses carry.
    async fn write(&self, session: &mut Session, ctx: &mut RequestCtx, reply: Reply) -> Result<()> {
        ctx.reason = Some(reply.reason);
        let (headers, body) = reply.render(ctx.id.as_str());
        let mut response = ResponseHeader::build(reply.status, Some(headers.len() + 4))?;
        for (name, value) in &headers {
            response.append_header(name.clone(), value.clone())?;
        }
        decorate(&mut response, ctx)?;
        let bodiless = session.req_header().method == http::Method::HEAD || body.is_empty();
        session.write_response_header(Box::new(response), bodiless).await?;
        if !bodiless {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }
}

/// What every routed response carries: the route's headers, how much is left, and the request's id.
fn decorate(response: &mut ResponseHeader, ctx: &RequestCtx) -> Result<()> {
    ctx.passage.response_headers.apply(
        response,
        |response, name| drop(response.remove_header(name)),
        |response, name, value| drop(response.insert_header(name, value)),
    );
    for admission in [&ctx.listener_admission, &ctx.passage.client_admission, &ctx.passage.consumer_admission] {
        admission.headers(&mut |name: HeaderName, value: HeaderValue| drop(response.append_header(name, value)));
    }
    let id = HeaderValue::from_str(ctx.id.as_str()).expect("ids are visible ASCII");
    response.insert_header(HeaderName::from_static("x-request-id"), id)
}

/// WebSocket and gRPC announce themselves in the request; so does what asks for server-sent events.
fn is_stream_request(session: &Session, header: &RequestHeader) -> bool {
    session.is_upgrade_req()
        || starts_with(header.headers.get(CONTENT_TYPE), b"application/grpc")
        || header.headers.get(http::header::ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream")
}

fn is_stream_response(response: &ResponseHeader) -> bool {
    let kind = response.headers.get(CONTENT_TYPE);
    starts_with(kind, b"text/event-stream") || starts_with(kind, b"application/grpc")
}

fn starts_with(value: Option<&HeaderValue>, prefix: &[u8]) -> bool {
    value.is_some_and(|value| value.as_bytes().starts_with(prefix))
}
