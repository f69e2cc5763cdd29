//! From the head a client sent to a request that may be judged: hygiene, canonical form, client, route.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Version};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::{RequestCtx, Target};
use crate::config::EncodedSlash;
use crate::http::{Client, Connection, Deadline, Host, Reason, Reply, canonical};
use crate::router::Found;
use crate::snapshot::{Route, Snapshot};

/// The connection a session came on.
pub(super) fn connection(session: &Session) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>().cloned()
}

/// When the client's side of a request gives up: an h2 request has a clock of its own, HTTP/1 that of its connection.
pub(super) fn deadline(session: &Session, ctx: &RequestCtx) -> Option<Arc<Deadline>> {
    let of_stream = session.req_header().extensions.get::<Arc<Deadline>>();
    of_stream.or(ctx.connection.as_ref().map(|connection| &connection.deadline)).cloned()
}

/// Leaves of a wish to upgrade only what can be granted: WebSocket's, which is a GET without a body (RFC 6455 section
/// 4.1). Any other may be ignored (RFC 9110 section 7.8), and with it gone the request is one like any other.
pub(super) fn upgrade(header: &mut RequestHeader) {
    let Some(protocol) = header.headers.get(UPGRADE) else {
        return;
    };
    let grantable = protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
        && header.method == Method::GET
        && header.version == Version::HTTP_11
        && !header.headers.contains_key(TRANSFER_ENCODING)
        && header.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    if !grantable {
        header.remove_header(&UPGRADE);
    }
}

/// Whether an upstream's 101 is one that was asked for.
pub(super) fn is_switch(session: &Session, response: &ResponseHeader) -> bool {
    session.is_upgrade_req()
        && response.version == Version::HTTP_11
        && response.headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Removes what no client may say: identity headers; `Proxy`, which CGI programs take for a proxy's address, and what
/// is meant for a proxy; unless it is trusted, where the request came from; and names with `_`, which some origins
/// cannot tell from `-`.
pub(super) fn clean(header: &mut RequestHeader, snapshot: &Snapshot, trusted: bool) {
    let keep_underscores = snapshot.config.server.keep_underscore_headers;
    let unwanted = |name: &HeaderName| {
        let text = name.as_str();
        let is_ours = |text: &str| {
            is_reserved(text, trusted)
                || is_among(&snapshot.identity_headers, text)
                || !trusted && is_among(&snapshot.cost_headers, text)
        };
        if text.contains('_') {
            return !keep_underscores || is_ours(&text.replace('_', "-"));
        }
        is_ours(text)
    };
    // Looking first costs nothing for the many requests that have none of these.
    if header.headers.keys().any(unwanted) {
        let names: Vec<HeaderName> = header.headers.keys().filter(|name| unwanted(name)).cloned().collect();
        for name in names {
            header.remove_header(&name);
        }
    }
    join_cookies(header);
}

fn is_reserved(name: &str, trusted: bool) -> bool {
    match name {
        "proxy" | "proxy-authorization" | "proxy-connection" => true,
        "forwarded" | "x-real-ip" => !trusted,
        _ => !trusted && name.starts_with("x-forwarded-"),
    }
}

/// An h2 client may send each cookie as a field of its own; everybody else expects one field (RFC 9113 section 8.2.3).
fn join_cookies(header: &mut RequestHeader) {
    let mut cookies = header.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = [first, b"; ", second].concat();
    for cookie in cookies {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie);
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        // A name and a value that were headers before.
        drop(header.insert_header(COOKIE, joined));
    }
}

/// `_` and `-` are the same to an origin that maps header names to variables, so they are to us.
fn is_among(headers: &HashSet<HeaderName>, name: &str) -> bool {
    headers.iter().any(|header| {
        let header = header.as_str();
        header.len() == name.len() && header.bytes().zip(name.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    })
}

/// Reads host and path into their canonical form. Says whether the path keeps an encoded slash.
pub(super) fn target(header: &RequestHeader) -> Result<(Target, bool), Reply> {
    let host = host(header)?;
    let raw = header.raw_path();
    let (sent, query) = split_target(raw);
    let canonical = canonical(sent, EncodedSlash::Keep)
        .map_err(|_| Reply::problem(Reason::BadPath, "The path has no safe canonical form."))?;
    let query = query
        .map(|query| std::str::from_utf8(query).map(str::to_owned))
        .transpose()
        .map_err(|_| Reply::problem(Reason::BadPath, "The query is not ASCII."))?;
    let changed = canonical.path.as_bytes() != sent || raw.first() != Some(&b'/');
    let target = Target {
        method: header.method.clone(),
        host: host.name.into_owned(),
        port: host.port,
        path: canonical.path.into_owned(),
        query,
        changed,
    };
    Ok((target, canonical.encoded_slash))
}

fn host(header: &RequestHeader) -> Result<Host<'_>, Reply> {
    let bad = || Reply::problem(Reason::BadHost, "The request must have exactly one valid Host.");
    let authority = header.uri.authority().map(http::uri::Authority::as_str);
    let mut hosts = header.headers.get_all(HOST).iter();
    let (sent, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad());
    }
    let sent = sent.map(|host| host.to_str().map_err(|_| bad())).transpose()?;
    match (authority, sent) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(bad()),
        (Some(name), _) | (None, Some(name)) => Host::parse(name).map_err(|_| bad()),
        // Only HTTP/1.0 gets here without a host (RFC 9112 section 3.2).
        (None, None) => Ok(Host { name: "".into(), port: None }),
    }
}

/// Path and query of a target in origin or absolute form.
fn split_target(raw: &[u8]) -> (&[u8], Option<&[u8]>) {
    let origin = match raw.first() {
        Some(b'/' | b'*') | None => raw,
        Some(_) => {
            let authority = raw.windows(3).position(|window| window == b"://").map_or(0, |at| at + 3);
            let rest = &raw[authority..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            &rest[end..]
        }
    };
    match origin.iter().position(|&byte| byte == b'?') {
        Some(0) => (b"/", Some(&origin[1..])),
        Some(at) => (&origin[..at], Some(&origin[at + 1..])),
        None if origin.is_empty() => (b"/", None),
        None => (origin, None),
    }
}

/// A host that the certificate shown does not cover belongs to another connection (RFC 9110 section 15.5.20).
pub(super) fn misdirected(ctx: &RequestCtx) -> Option<Reply> {
    let tls = ctx.connection.as_ref()?.tls.as_ref()?;
    // A client that sent no server name was shown the default certificate, and is held to that one.
    // A client of HTTP/1.0 may name no host at all.
    (!ctx.target.host.is_empty() && !tls.covers(&ctx.target.host))
        .then(|| Reply::problem(Reason::Misdirected, "This connection's certificate is not for that host."))
}

/// Whom the request is from.
pub(super) fn client(session: &Session, connection: &Connection, snapshot: &Snapshot) -> Client {
    snapshot.trusted.client(connection.source.ip(), &session.req_header().headers)
}

/// Everything goes to https where the listener says so.
pub(super) fn https_redirect(ctx: &RequestCtx, snapshot: &Snapshot, connection: &Connection) -> Option<Reply> {
    let listener = snapshot.listener(&connection.listener)?;
    if !listener.spec.redirect_to_https || connection.is_encrypted() {
        return None;
    }
    if ctx.target.host.is_empty() {
        return Some(Reply::problem(Reason::BadHost, "The request must have a Host to be redirected."));
    }
    let query = ctx.target.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
    let host: Cow<'_, str> = match &*ctx.target.host {
        address if address.contains(':') => format!("[{address}]").into(),
        name => name.into(),
    };
    // `*` (OPTIONS of the whole server) is no path: it would become a part of the host.
    let path = if ctx.target.path.starts_with('/') { &ctx.target.path } else { "/" };
    let location = format!("https://{host}{path}{query}");
    let location = HeaderValue::from_str(&location).ok()?;
    Some(Reply::problem(Reason::HttpsRequired, "Use https.").header(http::header::LOCATION, location))
}

/// Finds the route and what it names in the path.
pub(super) fn route<'a>(
    snapshot: &'a Snapshot,
    ctx: &'a RequestCtx,
    header: &'a RequestHeader,
    preflight: Option<&'a Method>,
    listener: &str,
    encoded_slash: bool,
) -> Result<(Arc<Route>, crate::router::Parameters<'a, 'a>), Reply> {
    let find = |method| snapshot.router.find(listener, &ctx.request(method, &header.headers));
    // A preflight is for the route that would take what it asks about; one that takes OPTIONS itself comes second.
    let asked = preflight.map(find).filter(|found| matches!(found, Found::Route { .. }));
    match asked.unwrap_or_else(|| find(&header.method)) {
        Found::Route { target, .. } if encoded_slash && target.encoded_slash == EncodedSlash::Refuse => {
            Err(Reply::problem(Reason::BadPath, "An encoded slash is not accepted in this path."))
        }
        Found::Route { target, parameters } => Ok((Arc::clone(target), parameters)),
        Found::NoRoute => Err(Reply::problem(Reason::NoRoute, "No route takes this host and path.")),
        Found::MethodNotAllowed { allow } => {
            Err(Reply::problem(Reason::MethodNotAllowed, "The routes for this path take other methods.")
                .header(http::header::ALLOW, allow))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut header = RequestHeader::build(method, target.as_bytes(), None).expect("a request");
        header.set_version(Version::HTTP_11);
        for (name, value) in fields {
            header.append_header(*name, *value).expect("a field");
        }
        header
    }

    #[test]
    fn cookies_become_one_field() {
        let mut three = header("GET", "/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut three);
        let cookies: Vec<_> = three.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn only_a_websocket_may_be_wished_for() {
        let wish = |method, fields: &[(&'static str, &str)]| {
            let mut header = header(method, "/", fields);
            upgrade(&mut header);
            header.headers.contains_key(UPGRADE)
        };
        assert!(wish("GET", &[("upgrade", "WebSocket")]));
        assert!(wish("GET", &[("upgrade", "websocket"), ("content-length", "0")]));
        assert!(!wish("GET", &[("upgrade", "websocket"), ("content-length", "1")]));
        assert!(!wish("GET", &[("upgrade", "websocket"), ("transfer-encoding", "chunked")]));
        assert!(!wish("GET", &[("upgrade", "websocket, h2c")]));
        assert!(!wish("POST", &[("upgrade", "websocket")]));
        assert!(!wish("GET", &[("upgrade", "h2c")]));
    }

    #[test]
    fn what_is_said_of_the_way_is_believed_of_trusted_proxies_only() {
        for name in ["forwarded", "x-real-ip", "x-forwarded-for", "x-forwarded-anything"] {
            assert!(is_reserved(name, false) && !is_reserved(name, true), "{name}");
        }
        assert!(is_reserved("proxy", true) && is_reserved("proxy-authorization", true));
        assert!(!is_reserved("x-forwarded", false) && !is_reserved("x-request-id", false));
    }

    #[test]
    fn a_host_must_be_one_and_the_same() {
        let name = |target, fields: &[(&'static str, &str)]| {
            host(&header("GET", target, fields)).map(|host| host.name.into_owned()).map_err(|reply| reply.reason)
        };
        assert_eq!(name("/", &[("host", "A.example:80")]), Ok("a.example".to_owned()));
        assert_eq!(name("/", &[]), Ok(String::new()));
        assert_eq!(name("/", &[("host", "a"), ("host", "a")]), Err(Reason::BadHost));
        assert_eq!(name("/", &[("host", "a, b")]), Err(Reason::BadHost));
    }

    proptest! {
        #[test]
        fn a_target_is_cut_into_path_and_query_and_nothing_is_lost(path in "/[a-z/.]{0,12}", query in "(\\?[a-z?/]{0,9})?") {
            let target = format!("{path}{query}");
            let (cut, rest) = split_target(target.as_bytes());
            let rest = rest.map_or(String::new(), |rest| format!("?{}", String::from_utf8_lossy(rest)));
            prop_assert_eq!(format!("{}{rest}", String::from_utf8_lossy(cut)), target.clone());
            let absolute = format!("http://example.com{target}");
            prop_assert_eq!(split_target(absolute.as_bytes()), split_target(target.as_bytes()));
        }
    }
}
