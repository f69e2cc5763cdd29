//! Another attempt: whether there is one, and when.
//!
//! A response is only given up for another attempt when that one is certain: its endpoint is taken and its place in the
//! budget paid before the head is thrown away. So the last answer there is reaches the client as the origin gave it.

use std::time::{Duration, Instant};

use http::StatusCode;
use pingora_proxy::Session;

use super::ctx::RequestCtx;
use super::{affinity, answer};
use crate::upstream::Failure;

/// How long the attempt that may follow `failure` is to wait; nothing if there is none. What it costs is paid.
pub(super) fn after(failure: Failure, session: &Session, ctx: &RequestCtx, now: Instant) -> Option<Duration> {
    let wait = allowed(failure, session, ctx, now)?;
    let affordable = ctx.upstream()?.affords_retry(ctx.attempt.lease.as_ref()?, now);
    affordable.then_some(wait)
}

/// Whether the response whose head has just come is given up for another attempt.
pub(super) fn instead_of(status: StatusCode, session: &Session, ctx: &mut RequestCtx, now: Instant) -> bool {
    let Some(upstream) = ctx.upstream().filter(|upstream| upstream.retry().lists(status)).cloned() else {
        return false;
    };
    let replayable = ctx.progress.request_done && !session.as_ref().retry_buffer_truncated();
    if !replayable || answer::has_begun(session) {
        return false;
    }
    let wait = allowed(Failure::Status, session, ctx, now);
    let (Some(wait), Some(lease)) = (wait, &ctx.attempt.lease) else {
        return false;
    };
    let wish = affinity::known(ctx);
    ctx.attempt.next = upstream.pick_another(&mut ctx.attempt.tried, lease, Failure::Status, wish, now);
    ctx.attempt.wait = if ctx.attempt.next.is_some() { wait } else { Duration::ZERO };
    ctx.attempt.next.is_some()
}

/// Lets the wait pass that was decided on. The worker serves others meanwhile.
pub(super) async fn wait(ctx: &mut RequestCtx) {
    let wait = std::mem::take(&mut ctx.attempt.wait);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// The wait before an attempt that the policy allows and for which there is time.
fn allowed(failure: Failure, session: &Session, ctx: &RequestCtx, now: Instant) -> Option<Duration> {
    let policy = ctx.upstream()?.retry();
    let so_far = ctx.attempt.tried.len();
    if ctx.is_overdue(now) || !policy.decides(failure, &session.req_header().method, so_far) {
        return None;
    }
    let wait = policy.wait(failure, so_far);
    ctx.remaining(now).is_none_or(|remaining| remaining > wait).then_some(wait)
}
