//! The data plane: Pingora's phases, in the order it calls them, each delegating.

mod affinity;
mod again;
mod ahead;
mod answer;
mod ctx;
mod failure;
mod fields;
mod forward;
mod http10;
mod intake;
mod judge;
mod line;
mod load;
mod log;
mod patience;

use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

pub use self::ahead::Connector;
use self::ahead::Reading;
pub use self::ctx::RequestCtx;
use self::ctx::is_http2;
use crate::control::Drain;
use crate::filter::SizeLimit;
use crate::http::Reason;
use crate::snapshot::Live;
use crate::telemetry::AccessLog;
use crate::upstream::{Lease, Outcome, announcement};

/// How long the answer that ends a request in trouble may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Pingora's `ProxyHttp`.
#[derive(Debug)]
pub struct Proxy {
    /// The truth of each moment
    pub live: Arc<Live>,
    /// Whether the process is leaving
    pub drain: Drain,
    /// Where each request leaves a line
    pub access_log: AccessLog,
}

#[async_trait]
impl ProxyHttp for Proxy {
    /// Boxed: Pingora's futures hold it several times over, and are copied for each request.
    type CTX = Box<RequestCtx>;

    fn new_ctx(&self) -> Box<RequestCtx> {
        Box::new(RequestCtx::new())
    }

    /// None: the default one would add a compression module to every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Box<RequestCtx>) -> Result<()> {
        ctx.connection = intake::connection(session);
        ctx.deadline = intake::deadline(session, ctx);
        ctx.snapshot = Some(self.live.load_full());
        ctx.target.method = session.req_header().method.clone();
        ctx.unlogged = ctx.connection.as_deref().is_some_and(is_http2).then(|| self.access_log.clone());
        fields::forget_case(session.req_header_mut());
        patience::begin(session, ctx);
        http10::begin(session);
        intake::upgrade(session.req_header_mut());
        Ok(())
    }

    /// `true` when the request has been answered here.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<RequestCtx>) -> Result<bool> {
        match judge::request(session, ctx).await {
            Ok(()) => Ok(false),
            Err(reply) => {
                self.let_go(session);
                answer::spare_connection(session);
                answer::write(session, ctx, reply).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<RequestCtx>) -> Result<Box<HttpPeer>> {
        let Some(upstream) = ctx.upstream().cloned() else {
            return Err(Error::explain(ErrorType::InternalError, "a request without an upstream"));
        };
        // Its place is given back before another one is taken.
        ctx.attempt.lease = None;
        again::wait(ctx).await;
        ctx.progress.request_done = session.is_body_done();
        let wish = affinity::wish(session.req_header(), ctx, &upstream);
        let picked = match ctx.attempt.next.take() {
            Some(lease) => Some(Ok(lease)),
            None => {
                let patience = ctx.remaining(Instant::now());
                let pick = upstream.pick_or_wait(&ctx.attempt.tried, wish, patience, &mut ctx.passage.notes.waited);
                let mut pick = pin!(pick);
                match upstream.spec().queue {
                    None => Some(pick.as_mut().await),
                    Some(_) => Box::pin(line::unless_left(session, pick.as_mut())).await,
                }
            }
        };
        let picked = picked.ok_or_else(|| {
            ctx.reason = Some(Reason::ClientAborted);
            Error::new_down(ErrorType::ConnectionClosed)
        })?;
        let lease = picked.map_err(|unavailable| {
            // After a failed attempt the client is told of that one, and of the end of all patience rather than of one.
            if ctx.reply.is_none() && !ctx.is_overdue(Instant::now()) {
                ctx.reply = Some(failure::unavailable(unavailable, &upstream));
            }
            Error::new(ErrorType::Custom("no endpoint"))
        })?;
        ctx.reply = None;
        ctx.progress.body_bytes = 0;
        ctx.attempt.count += 1;
        ctx.attempt.endpoint = Some(Arc::clone(lease.endpoint().text()));
        let header = upstream.spec().proxy_protocol.map(|version| announcement(version, forward::ends(ctx)));
        let mut peer = lease.peer(header, session.is_upgrade_req());
        ahead::speak_http1(&mut peer.options);
        let now = Instant::now();
        if ctx.attempt.count == 1 {
            upstream.requested(&lease, now);
        }
        if !session.is_upgrade_req() && !session.as_mut().is_body_done() {
            lease.awaits_body();
        }
        ctx.attempt.lease = Some(lease);
        ctx.attempt.began = Some(now);
        ctx.attempt.asked = ctx.progress.request_done.then_some(now);
        patience::attempt(&mut peer.options, ctx, upstream.spec(), now);
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<RequestCtx>,
        error: Box<Error>,
    ) -> Box<Error> {
        fail(session, ctx, error, true)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Box<RequestCtx>,
    ) -> Result<()> {
        ctx.attempt.reading = Reading::begin(digest);
        patience::watch(ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<RequestCtx>,
    ) -> Result<()> {
        forward::request(request, ctx)
    }

    /// Counts a body once: after an upgrade bytes are no body, and a new attempt starts over with what it replays.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<RequestCtx>,
    ) -> Result<()> {
        // An empty DATA frame at the end of an h2 body would become a second last chunk towards an HTTP/1 upstream.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        if !session.was_upgraded() {
            ctx.progress.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
            ctx.progress.request_done |= end_of_stream;
            // Without a body all of the time is the upstream's.
            let has_body = |lease: &&Lease| ctx.progress.body_bytes > 0 || lease.is_awaiting_body();
            if let Some(lease) = ctx.attempt.lease.as_ref().filter(|_| end_of_stream).filter(has_body) {
                lease.asked();
            }
            if ctx.route.as_ref().is_some_and(|route| !route.filters.size.allows(ctx.progress.body_bytes)) {
                ctx.reason = Some(Reason::BodyTooLarge);
                ctx.reply = Some(SizeLimit::reply());
                return Err(Error::new_down(ErrorType::Custom("body too large")));
            }
        }
        let now = Instant::now();
        if end_of_stream {
            ctx.attempt.asked = Some(now);
            patience::sent(ctx, now);
        }
        patience::moved(ctx, now);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<RequestCtx>,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !intake::is_switch(session, response) {
            ctx.reason = Some(Reason::UpstreamProtocol);
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        let now = Instant::now();
        if let (Some(route), Some(began)) = (&ctx.route, ctx.attempt.began) {
            route.metrics.answered(now.saturating_duration_since(began));
        }
        if let Some(lease) = &ctx.attempt.lease {
            lease.observe(Outcome::Answered(response.status));
        }
        if again::instead_of(response.status, session, ctx, now) {
            return Err(Error::new_up(ErrorType::HTTPStatus(response.status.as_u16())));
        }
        load::answered(ctx, response, now);
        ctx.progress.answered = Some(now);
        if let Some(reading) = &ctx.attempt.reading {
            reading.be_patient();
        }
        // The answer says whether it is a stream: a client that only claims so would be rid of the route's timeout.
        ctx.progress.stream = response.status == StatusCode::SWITCHING_PROTOCOLS || answer::is_stream(response);
        if ctx.progress.stream {
            // The route's timeout was for the head; from here on only silence ends a stream, and who calls by gRPC.
            ctx.attempt.last = ctx.attempt.call_ends;
        }
        patience::moved(ctx, now);
        if let Some(connection) = ctx.connection.as_ref().filter(|_| ctx.progress.stream) {
            connection.end_with_client(true);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<RequestCtx>,
    ) -> Result<()> {
        let status = response.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            fields::response(response, |fields| answer::interim(status, fields, ctx));
            return Ok(());
        }
        fields::response(response, |fields| {
            if status != StatusCode::SWITCHING_PROTOCOLS {
                answer::clean(status, fields);
            }
            answer::decorate(fields, ctx);
            affinity::remember(fields, ctx);
        });
        if status != StatusCode::SWITCHING_PROTOCOLS {
            self.let_go(session);
            http10::response(session, response);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Box<RequestCtx>,
    ) -> Result<Option<Duration>> {
        ctx.progress.sent_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        let now = Instant::now();
        if ctx.is_overdue(now) {
            ctx.reason = Some(Reason::RequestTimeout);
            return Err(Error::new_in(ErrorType::Custom("the response took too long")));
        }
        patience::moved(ctx, now);
        ahead::pass(session, body, ctx);
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Box<RequestCtx>,
        _: bool,
    ) -> Box<Error> {
        let replayable = !session.as_ref().retry_buffer_truncated();
        fail(session, ctx, error, replayable)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Box<RequestCtx>) -> FailToProxy {
        let reason = ctx.reason.unwrap_or_else(|| failure::reason(error, ctx, Instant::now()));
        let reply = ctx.reply.take().unwrap_or_else(|| failure::reply(reason));
        if let Some(deadline) = &ctx.deadline {
            deadline.lift();
        }
        if answer::has_begun(session) {
            ctx.reason = Some(answer::reason_once_begun(reason));
            answer::break_off(session, ctx).await;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        ctx.reason = Some(reply.reason);
        if reason == Reason::ClientAborted {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let status = reply.status.as_u16();
        session.set_keepalive(None);
        let written = tokio::time::timeout(LAST_WORDS, answer::write(session, ctx, reply)).await;
        if !matches!(written, Ok(Ok(()))) {
            ::log::debug!("the client did not take its error response");
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// The access log has it.
    fn suppress_error_log(&self, _: &Session, _: &Box<RequestCtx>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Box<RequestCtx>, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Box<RequestCtx>) {
        ctx.unlogged = None;
        let now = Instant::now();
        patience::end(ctx, now);
        log::finish(session, ctx, &self.access_log, now);
    }
}

impl Proxy {
    /// While the process leaves, an answer is its connection's last. Decided when its head is written, so that a
    /// request that was under way when the drain began does not keep its connection.
    fn let_go(&self, session: &mut Session) {
        if self.drain.is_stopping() {
            session.set_keepalive(None);
        }
    }
}

/// An attempt failed: credits the endpoint, and decides whether there is another attempt. Pingora's own idea of it is
/// never used.
fn fail(session: &Session, ctx: &mut RequestCtx, mut error: Box<Error>, replayable: bool) -> Box<Error> {
    if ctx.attempt.next.is_some() {
        // Given up for another attempt: nothing has failed.
        error.set_retry(true);
        return error;
    }
    let now = Instant::now();
    let mut reason = failure::reason(&error, ctx, now);
    let begun = answer::has_begun(session);
    if begun {
        reason = answer::reason_once_begun(reason);
    }
    if let (Some(lease), Some(outcome)) = (&ctx.attempt.lease, failure::outcome(reason, ctx, now)) {
        lease.observe(outcome);
    }
    let failure = failure::failure(reason, &error, replayable).filter(|_| !begun);
    let wait = failure.and_then(|failure| again::after(failure, session, ctx, now));
    match (failure.zip(wait), &ctx.attempt.lease) {
        (Some((failure, wait)), Some(lease)) => {
            ctx.attempt.tried.add(lease, failure);
            ctx.attempt.wait = wait;
            // If no endpoint is left, the client is told why this attempt failed.
            ctx.reply = Some(failure::reply(reason));
            error.set_retry(true);
        }
        _ => {
            load::failed(ctx, reason, now);
            ctx.reason = Some(reason);
            error.set_retry(false);
        }
    }
    error
}
