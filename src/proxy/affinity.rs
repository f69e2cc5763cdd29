//! Who belongs together: the key of a request, and the endpoint that its client was at.

use http::HeaderMap;
use http::header::{COOKIE, SET_COOKIE};
use pingora_http::RequestHeader;

use super::ctx::RequestCtx;
use crate::config::Balance;
use crate::filter::auth::without_cookie;
use crate::filter::{Facts, affinity};
use crate::upstream::{Upstream, Wish};

/// What was found out of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affinity {
    wish: Wish,
    /// The client's connection, up to us or up to whoever may say so
    is_encrypted: bool,
}

/// What the request would like, found out once.
pub(super) fn wish(header: &RequestHeader, ctx: &mut RequestCtx, upstream: &Upstream) -> Wish {
    let key = match &upstream.spec().balance {
        Balance::ConsistentHash { key, .. } => Some(key),
        _ => None,
    };
    if key.is_none() && upstream.sticky().is_none() {
        return Wish::default();
    }
    if let Some(affinity) = ctx.attempt.affinity {
        return affinity.wish;
    }
    let request = ctx.request(&header.method, &header.headers);
    let facts = Facts { request: &request, identity: ctx.passage.identity.as_ref() };
    let bond = upstream.sticky().and_then(|sticky| sticky.read(request.cookie(sticky.name())?, ctx.clock.wall));
    let wish = Wish { key: key.and_then(|key| affinity(key, &facts)), bond };
    // What an untrusted client says of this is gone already.
    let is_told = header.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https");
    let is_encrypted = is_told || ctx.connection.as_ref().is_some_and(|connection| connection.is_encrypted());
    ctx.attempt.affinity = Some(Affinity { wish, is_encrypted });
    wish
}

/// The same, once it has been found out.
pub(super) fn known(ctx: &RequestCtx) -> Wish {
    ctx.attempt.affinity.map_or_else(Wish::default, |affinity| affinity.wish)
}

/// Our cookie is between the client and us.
pub(super) fn forget(headers: &mut HeaderMap, upstream: &Upstream) {
    if let Some(sticky) = upstream.sticky() {
        remove_cookie(headers, sticky.name());
    }
}

/// Removes the cookies of this name; the others stay byte by byte.
pub(super) fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    let kept: Vec<_> = headers.get_all(COOKIE).iter().filter_map(|value| without_cookie(value, name)).collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// Tells the client where it belongs now, if that has changed.
pub(super) fn remember(headers: &mut HeaderMap, ctx: &RequestCtx) {
    let (Some(affinity), Some(upstream), Some(lease)) = (ctx.attempt.affinity, ctx.upstream(), &ctx.attempt.lease)
    else {
        return;
    };
    if let Some(cookie) = upstream.cookie(lease, affinity.wish.bond, affinity.is_encrypted) {
        headers.append(SET_COOKIE, cookie);
    }
}
