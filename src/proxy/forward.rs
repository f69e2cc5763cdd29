//! The request as the upstream sees it.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::{AUTHORIZATION, FORWARDED, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::ctx::RequestCtx;
use super::{affinity, fields};
use crate::config::{Host, TokenSource};
use crate::filter::auth::without_query;
use crate::http::{Connection, address_value};
use crate::snapshot::Snapshot;
use crate::upstream::{Announced, Endpoint};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Fields that a request is given at most, those of the route aside.
const ADDED: usize = 10;

/// Changes the request that is about to be sent.
pub(super) fn request(header: &mut RequestHeader, ctx: &RequestCtx) -> Result<()> {
    let (Some(connection), Some(snapshot), Some(upstream), Some(lease)) =
        (&ctx.connection, &ctx.snapshot, ctx.upstream(), &ctx.attempt.lease)
    else {
        return Err(Error::explain(ErrorType::InternalError, "a request without an endpoint"));
    };
    // First: from here on the URI says in full what is asked for.
    target(header, ctx)?;
    fields::request(header, |parts| {
        parts.headers.reserve(ADDED);
        credentials(&mut parts.headers, ctx);
        affinity::forget(&mut parts.headers, upstream);
        host(parts, lease.endpoint())?;
        origin(&mut parts.headers, ctx, connection, snapshot);
        trace(&mut parts.headers, ctx);
        client_certificate(&mut parts.headers, ctx, connection, snapshot);
        identity(&mut parts.headers, ctx, snapshot);
        ctx.passage.request_headers.apply(&mut parts.headers);
        if let Host::Fixed(host) = &upstream.spec().host {
            parts.headers.insert(HOST, host.clone());
        }
        Ok(())
    })
}

/// A Host is there, whatever the client's version calls it: Pingora takes the authority towards h2 from it. Only a
/// client of HTTP/1.0 may have named none; it gets the endpoint's own.
fn host(parts: &mut Parts, endpoint: &Endpoint) -> Result<()> {
    if parts.headers.contains_key(HOST) {
        return Ok(());
    }
    let authority = parts.uri.authority().map_or(endpoint.authority(), http::uri::Authority::as_str);
    let authority = HeaderValue::from_str(authority)
        .map_err(|error| Error::because(ErrorType::InternalError, "an authority is no header value", error))?;
    parts.headers.insert(HOST, authority);
    Ok(())
}

/// What was judged is what is asked for: the canonical path, or the one it was rewritten to.
fn target(header: &mut RequestHeader, ctx: &RequestCtx) -> Result<()> {
    let rewritten = ctx.passage.path.as_deref();
    let query = query(ctx);
    if rewritten.is_none() && !ctx.target.changed && query.as_deref() == ctx.target.query.as_deref() {
        return Ok(());
    }
    let path = rewritten.unwrap_or(&ctx.target.path);
    let mut target = String::with_capacity(path.len() + query.as_ref().map_or(0, |query| query.len() + 1));
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(&query);
    }
    let authority = header.uri.authority().cloned();
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(
        target
            .parse()
            .map_err(|error| Error::because(ErrorType::InternalError, "a canonical path is no target", error))?,
    );
    if let Some(authority) = authority {
        uri.scheme = Some(http::uri::Scheme::HTTP);
        uri.authority = Some(authority);
    }
    let uri = http::Uri::from_parts(uri)
        .map_err(|error| Error::because(ErrorType::InternalError, "a canonical path is no target", error))?;
    header.set_uri(uri);
    Ok(())
}

/// The query, less a parameter that carried a token.
fn query(ctx: &RequestCtx) -> Option<Cow<'_, str>> {
    let query = ctx.target.query.as_deref()?;
    match ctx.passage.identity.as_ref().and_then(|identity| identity.carried_by.as_ref()) {
        Some(TokenSource::Query(name)) => without_query(query, name).map(Cow::Owned),
        _ => Some(Cow::Borrowed(query)),
    }
}

/// Removes what carried the token, unless the operator wants it passed on.
fn credentials(headers: &mut HeaderMap, ctx: &RequestCtx) {
    let Some(source) = ctx.passage.identity.as_ref().and_then(|identity| identity.carried_by.as_ref()) else {
        return;
    };
    match source {
        TokenSource::Bearer | TokenSource::Basic => drop(headers.remove(AUTHORIZATION)),
        TokenSource::Header(name) => drop(headers.remove(name)),
        TokenSource::Cookie(name) => affinity::remove_cookie(headers, name),
        TokenSource::Query(_) => {}
    }
}

/// Where the request came from. What an untrusted client said of this is gone already; what a trusted one said is
/// appended to or kept.
fn origin(headers: &mut HeaderMap, ctx: &RequestCtx, connection: &Connection, snapshot: &Snapshot) {
    let trusted = snapshot.trusted.contains(connection.source.ip());
    let said = |headers: &HeaderMap, name: &HeaderName| trusted && headers.contains_key(name);
    let source = connection.source_value();
    headers.remove(FORWARDED);
    let forwarded_for = if said(headers, &X_FORWARDED_FOR) { forwarded_for(headers, source) } else { source.clone() };
    headers.insert(X_FORWARDED_FOR, forwarded_for);
    let client = if ctx.client == connection.source.ip() { source.clone() } else { address_value(ctx.client) };
    headers.insert(X_REAL_IP, client);
    if !said(headers, &X_FORWARDED_PROTO) {
        let scheme = if connection.is_encrypted() { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if !said(headers, &X_FORWARDED_PORT) {
        headers.insert(X_FORWARDED_PORT, connection.port_value().clone());
    }
    if !said(headers, &X_FORWARDED_HOST) {
        match headers.get(HOST).cloned() {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
    let id = HeaderValue::from_str(ctx.id.as_str()).expect("ids are visible ASCII");
    headers.insert(X_REQUEST_ID, id);
}

fn forwarded_for(headers: &HeaderMap, source: &HeaderValue) -> HeaderValue {
    let mut list = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(source.as_bytes());
    HeaderValue::from_bytes(&list).unwrap_or_else(|_| source.clone())
}

/// A valid trace goes on; otherwise one starts here (W3C Trace Context, section 3.2).
fn trace(headers: &mut HeaderMap, ctx: &RequestCtx) {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let valid = parents.next().is_some_and(|value| is_traceparent(value.as_bytes())) && parents.next().is_none();
    if !valid {
        headers.remove(TRACESTATE);
        let parent = ctx.id.traceparent();
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(&parent).expect("hexadecimal digits"));
    }
}

fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    value.len() == 55
        && [2, 35, 52].iter().all(|&at| value[at] == b'-')
        && &value[..2] == b"00"
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && value[3..35].iter().any(|&byte| byte != b'0')
        && value[36..52].iter().any(|&byte| byte != b'0')
}

/// Tells the upstream who calls, by the headers that only we may set.
fn identity(headers: &mut HeaderMap, ctx: &RequestCtx, snapshot: &Snapshot) {
    let Some(identity) = &ctx.passage.identity else {
        return;
    };
    let Some(spec) = snapshot.config.auth.get(&identity.auth) else {
        return;
    };
    for (name, claim) in &spec.identity_headers {
        // A claim that cannot be a header's value is left out: half of it would be another identity.
        if let Some(value) = identity.claim_text(claim).and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name.clone(), value);
        }
    }
}

/// Tells the upstream which certificate the client has shown, by the headers that only we may set.
fn client_certificate(headers: &mut HeaderMap, ctx: &RequestCtx, connection: &Connection, snapshot: &Snapshot) {
    let Some(certificate) = ctx.client_certificate() else {
        return;
    };
    let tls = snapshot.listener(&connection.listener).and_then(|listener| listener.spec.tls.as_ref());
    for (name, fact) in tls.and_then(|tls| tls.clients.as_ref()).iter().flat_map(|clients| &clients.headers) {
        if let Some(value) = certificate.header(*fact) {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Between whom the client's connection is, for an upstream that is told. Of a client that a trusted proxy names, the
/// port is not known.
pub(super) fn ends(ctx: &RequestCtx) -> Option<Announced> {
    let connection = ctx.connection.as_deref()?;
    let known = connection.source.ip() == ctx.client;
    let source = if known { connection.source } else { SocketAddr::new(ctx.client, 0) };
    Some(Announced { source, destination: connection.local })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::RequestId;

    #[test]
    fn a_trace_has_one_form() {
        assert!(is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_traceparent(&RequestId::new().traceparent()));
        for text in [
            "",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange_to_be_no_trace(value in proptest::collection::vec(any::<u8>(), 0..70)) {
            is_traceparent(&value);
        }
    }
}
