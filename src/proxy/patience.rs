//! How long each side may keep the other waiting.
//!
//! Three clocks watch an exchange. Pingora's read timeout watches the upstream, one value for the wait for the head
//! and for each wait within the body. The [`Deadline`](crate::http::Deadline) watches the client's side: silence, and
//! the route's `timeout`. And what passes a filter is checked against that `timeout` once more.

use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::PeerOptions;
use pingora_proxy::Session;

use super::ctx::{RequestCtx, is_http2};
use crate::config::{self, UpstreamProtocol};

/// How long a client may take none of a response, or send none of a body it announced.
pub(super) const CLIENT_SILENCE: Duration = Duration::from_secs(60);

/// How long it may take until a connection is ready for its next request, or closed.
const LEAVE: Duration = Duration::from_secs(5);

/// A head has arrived. Pingora's own timeouts towards the client are off where the deadline does their work: they would
/// cut an upgraded connection.
pub(super) fn begin(session: &mut Session, ctx: &RequestCtx) {
    let http2 = ctx.connection.as_deref().is_some_and(is_http2);
    session.set_read_timeout(None);
    session.set_write_timeout(http2.then_some(CLIENT_SILENCE));
    if let Some(deadline) = &ctx.deadline {
        deadline.allow(ctx.clock.steady, CLIENT_SILENCE, None);
    }
}

/// An attempt begins.
pub(super) fn attempt(options: &mut PeerOptions, ctx: &mut RequestCtx, upstream: &config::Upstream, now: Instant) {
    ctx.attempt.gives_up =
        upstream.timeouts.per_try.filter(|_| ctx.progress.request_done).map(|patience| now + patience);
    let route_silence = ctx.route.as_ref().map_or(CLIENT_SILENCE, |route| route.stream_idle);
    if ctx.progress.stream {
        // Either direction keeps a stream alive, which a timeout of one direction cannot know.
        options.read_timeout = None;
        options.write_timeout = Some(route_silence);
    } else {
        options.read_timeout =
            Some(read_timeout(&upstream.timeouts, upstream.protocol, ctx.progress.request_done, ctx.remaining(now)));
    }
    if let (Some(connect), Some(remaining)) = (options.total_connection_timeout, ctx.remaining(now)) {
        options.total_connection_timeout = Some(connect.min(remaining));
    }
    moved(ctx, now);
}

/// How long a read from the upstream may take.
///
/// On HTTP/1 the wait for the head starts anew with each piece of the body that is sent. On h2 it runs from the start,
/// so while a body is on its way only the exchange's own end bounds it.
fn read_timeout(
    timeouts: &config::Timeouts,
    protocol: UpstreamProtocol,
    request_done: bool,
    remaining: Option<Duration>,
) -> Duration {
    let silence = timeouts.first_byte.max(timeouts.idle);
    let remaining = remaining.unwrap_or(Duration::MAX);
    if request_done || protocol == UpstreamProtocol::Http1 { silence.min(remaining) } else { remaining }
}

/// The request has been sent whole: from here on the try has its own patience, if the operator wants it.
pub(super) fn sent(ctx: &mut RequestCtx, now: Instant) {
    let per_try = ctx.upstream().and_then(|upstream| upstream.spec().timeouts.per_try);
    if let (Some(patience), None) = (per_try, ctx.attempt.gives_up) {
        ctx.attempt.gives_up = Some(now + patience);
        watch(ctx);
    }
}

/// Has the connection watch the patience of the try.
pub(super) fn watch(ctx: &RequestCtx) {
    if let (Some(at), Some(reading)) = (ctx.attempt.gives_up, &ctx.attempt.reading) {
        reading.give_up_at(at);
    }
}

/// The exchange is over; what remains is to take leave of the client, or to read what it was not asked for.
pub(super) fn end(ctx: &RequestCtx, now: Instant) {
    if let Some(deadline) = &ctx.deadline {
        deadline.allow(now, LEAVE, None);
    }
}

/// Something moved in either direction.
pub(super) fn moved(ctx: &RequestCtx, now: Instant) {
    let Some(deadline) = &ctx.deadline else {
        return;
    };
    let silence = match (&ctx.route, ctx.upstream()) {
        (Some(route), _) if ctx.progress.stream => route.stream_idle,
        (_, Some(upstream)) if ctx.progress.request_done && ctx.progress.answered.is_none() => {
            upstream.spec().timeouts.connect + upstream.spec().timeouts.first_byte
        }
        _ => CLIENT_SILENCE,
    };
    deadline.allow(now, silence, ctx.attempt.last);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timeouts(first_byte: u32, idle: u32) -> config::Timeouts {
        config::Timeouts { first_byte: first_byte * SECOND, idle: idle * SECOND, ..config::Timeouts::default() }
    }

    #[test]
    fn a_read_never_outlasts_the_exchange() {
        let timeouts = timeouts(30, 10);
        for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2, UpstreamProtocol::Http2Cleartext] {
            assert_eq!(read_timeout(&timeouts, protocol, true, None), 30 * SECOND);
            assert_eq!(read_timeout(&timeouts, protocol, true, Some(5 * SECOND)), 5 * SECOND);
            assert_eq!(read_timeout(&timeouts, protocol, false, Some(5 * SECOND)), 5 * SECOND);
        }
    }

    #[test]
    fn an_upload_is_not_cut_by_the_wait_for_its_answer() {
        let timeouts = timeouts(10, 30);
        // HTTP/1 starts the wait anew with each piece that is sent.
        assert_eq!(read_timeout(&timeouts, UpstreamProtocol::Http1, false, Some(60 * SECOND)), 30 * SECOND);
        assert_eq!(read_timeout(&timeouts, UpstreamProtocol::Http2, false, Some(60 * SECOND)), 60 * SECOND);
    }
}
