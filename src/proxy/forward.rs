//! The request as the upstream sees it.

use std::borrow::Cow;
use std::fmt::Write;

use http::header::{COOKIE, FORWARDED, HOST};
use http::{HeaderName, HeaderValue};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::ctx::RequestCtx;
use crate::config::{Host, TokenSource};
use crate::filter::auth::{without_cookie, without_query};
use crate::http::{Connection, traceparent};
use crate::snapshot::Snapshot;
use crate::upstream::Endpoint;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Changes the request that is about to be sent.
pub(super) fn request(header: &mut RequestHeader, ctx: &RequestCtx) -> Result<()> {
    let (Some(connection), Some(snapshot), Some(upstream), Some(lease)) =
        (&ctx.connection, &ctx.snapshot, ctx.upstream(), &ctx.attempt.lease)
    else {
        return Err(Error::explain(ErrorType::InternalError, "a request without an endpoint"));
    };
    credentials(header, ctx)?;
    target(header, ctx)?;
    host(header, lease.endpoint())?;
    origin(header, ctx, connection, snapshot)?;
    trace(header)?;
    client_certificate(header, ctx, connection, snapshot)?;
    identity(header, ctx, snapshot)?;
    ctx.passage.request_headers.apply(
        header,
        |header, name| drop(header.remove_header(name)),
        |header, name, value| drop(header.insert_header(name, value)),
    );
    if let Host::Fixed(host) = &upstream.spec().host {
        header.insert_header(HOST, host.clone())?;
    }
    Ok(())
}

/// A Host is there, whatever the client's version calls it: Pingora takes the authority towards h2 from it. Only a
/// client of HTTP/1.0 may have named none; it gets the endpoint's own.
fn host(header: &mut RequestHeader, endpoint: &Endpoint) -> Result<()> {
    if header.headers.contains_key(HOST) {
        return Ok(());
    }
    let authority = header.uri.authority().map_or(endpoint.authority(), http::uri::Authority::as_str);
    let authority = HeaderValue::from_str(authority)
        .map_err(|error| Error::because(ErrorType::InternalError, "an authority is no header value", error))?;
    header.insert_header(HOST, authority)
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
fn credentials(header: &mut RequestHeader, ctx: &RequestCtx) -> Result<()> {
    let Some(source) = ctx.passage.identity.as_ref().and_then(|identity| identity.carried_by.as_ref()) else {
        return Ok(());
    };
    match source {
        TokenSource::Bearer => drop(header.remove_header(&http::header::AUTHORIZATION)),
        TokenSource::Header(name) => drop(header.remove_header(name)),
        TokenSource::Cookie(name) => {
            let kept: Vec<HeaderValue> =
                header.headers.get_all(COOKIE).iter().filter_map(|value| without_cookie(value, name)).collect();
            header.remove_header(&COOKIE);
            for value in kept {
                header.append_header(COOKIE, value)?;
            }
        }
        TokenSource::Query(_) => {}
    }
    Ok(())
}

/// Where the request came from. What an untrusted client said of this is dropped, not appended to.
fn origin(header: &mut RequestHeader, ctx: &RequestCtx, connection: &Connection, snapshot: &Snapshot) -> Result<()> {
    let trusted = snapshot.trusted.contains(connection.peer.ip());
    header.remove_header(&FORWARDED);
    header.insert_header(X_FORWARDED_FOR, forwarded_for(header, connection, trusted))?;
    header.insert_header(X_REAL_IP, address(ctx.client))?;
    if !(trusted && header.headers.contains_key(X_FORWARDED_PROTO)) {
        let scheme = if connection.tls.is_some() { "https" } else { "http" };
        header.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static(scheme))?;
    }
    if !(trusted && header.headers.contains_key(X_FORWARDED_PORT)) {
        header.insert_header(X_FORWARDED_PORT, HeaderValue::from(connection.local.port()))?;
    }
    if !(trusted && header.headers.contains_key(X_FORWARDED_HOST)) {
        header.remove_header(&X_FORWARDED_HOST);
        let host = header.headers.get(HOST).cloned();
        if let Some(host) = host {
            header.insert_header(X_FORWARDED_HOST, host)?;
        }
    }
    let id = HeaderValue::from_str(ctx.id.as_str()).expect("ids are visible ASCII");
    header.insert_header(X_REQUEST_ID, id)?;
    Ok(())
}

fn forwarded_for(header: &RequestHeader, connection: &Connection, trusted: bool) -> HeaderValue {
    if !trusted || !header.headers.contains_key(X_FORWARDED_FOR) {
        return address(connection.peer.ip());
    }
    let mut list = String::new();
    for value in header.headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        list.push_str(value);
        list.push_str(", ");
    }
    // Writing to a string does not fail.
    let _ = write!(list, "{}", connection.peer.ip());
    HeaderValue::from_str(&list).unwrap_or_else(|_| address(connection.peer.ip()))
}

fn address(address: std::net::IpAddr) -> HeaderValue {
    let mut text = [0u8; 45];
    let mut rest = &mut text[..];
    let before = rest.len();
    std::io::Write::write_fmt(&mut rest, format_args!("{address}")).expect("45 bytes hold any address");
    let used = before - rest.len();
    HeaderValue::from_bytes(&text[..used]).expect("addresses are visible ASCII")
}

/// A valid trace goes on; otherwise one starts here (W3C Trace Context, section 3.2).
fn trace(header: &mut RequestHeader) -> Result<()> {
    let mut parents = header.headers.get_all(TRACEPARENT).iter();
    let valid = parents.next().is_some_and(|value| is_traceparent(value.as_bytes())) && parents.next().is_none();
    if !valid {
        header.remove_header(&TRACESTATE);
        let parent = traceparent();
        header.insert_header(TRACEPARENT, HeaderValue::from_bytes(&parent).expect("hexadecimal digits"))?;
    }
    Ok(())
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
fn identity(header: &mut RequestHeader, ctx: &RequestCtx, snapshot: &Snapshot) -> Result<()> {
    let Some(identity) = &ctx.passage.identity else {
        return Ok(());
    };
    let Some(spec) = snapshot.config.auth.get(&identity.auth) else {
        return Ok(());
    };
    for (name, claim) in spec.identity_headers() {
        // A claim that cannot be a header's value is left out: half of it would be another identity.
        if let Some(value) = identity.claim_text(claim).and_then(|text| HeaderValue::from_str(&text).ok()) {
            header.insert_header(name.clone(), value)?;
        }
    }
    Ok(())
}

/// Tells the upstream which certificate the client has shown, by the headers that only we may set.
fn client_certificate(
    header: &mut RequestHeader,
    ctx: &RequestCtx,
    connection: &Connection,
    snapshot: &Snapshot,
) -> Result<()> {
    let Some(certificate) = ctx.client_certificate() else {
        return Ok(());
    };
    let tls = snapshot.listener(&connection.listener).and_then(|listener| listener.spec.tls.as_ref());
    for (name, fact) in tls.and_then(|tls| tls.clients.as_ref()).iter().flat_map(|clients| &clients.headers) {
        if let Some(value) = certificate.header(*fact) {
            header.insert_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_trace_has_one_form() {
        assert!(is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_traceparent(&traceparent()));
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

        #[test]
        fn every_address_is_a_header_value(bits in any::<u128>(), v4 in any::<u32>()) {
            let v6 = std::net::IpAddr::from(std::net::Ipv6Addr::from(bits));
            prop_assert_eq!(address(v6), v6.to_string());
            let v4 = std::net::IpAddr::from(std::net::Ipv4Addr::from(v4));
            prop_assert_eq!(address(v4), v4.to_string());
        }
    }
}
