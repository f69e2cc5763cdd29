//! What the client gets: an answer of ours, what every response carries, and the end of one that broke off.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::{RequestCtx, is_http2};
use super::fields;
use crate::http::{Reason, Reply, grpc};

/// A body up to this is read even if nobody wants it.
const SPARED_BODY: u64 = 64 * 1024;
/// In this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Writes an answer of ours, with what the route's responses carry.
pub(super) async fn write(session: &mut Session, ctx: &mut RequestCtx, reply: Reply) -> Result<()> {
    ctx.reason = Some(reply.reason);
    let (headers, body) = reply.render(ctx.id.as_str());
    let mut response = ResponseHeader::build_no_case(reply.status, Some(headers.len() + 4))?;
    fields::response(&mut response, |fields| {
        fields.extend(headers);
        decorate(fields, ctx);
    });
    let bodiless = session.req_header().method == Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(response), bodiless).await.map_err(|error| error.into_down())?;
    if !bodiless {
        session.write_response_body(Some(body), true).await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

/// An answer that comes before the request's body need not cost the connection if the body is small: it is read and
/// thrown away. A client that waits to be asked for its body (RFC 9110 section 10.1.1) may never send it.
pub(super) fn spare_connection(session: &mut Session) {
    let header = session.req_header();
    let length = header.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length <= SPARED_BODY) && !header.headers.contains_key(EXPECT) {
        session.set_close_on_response_before_downstream_finish(false);
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    }
}

/// What every routed response carries: the route's headers, how much is left, and the request's id.
pub(super) fn decorate(fields: &mut HeaderMap, ctx: &RequestCtx) {
    ctx.passage.response_headers.apply(fields);
    ctx.passage.cors.apply(fields);
    for admission in [&ctx.listener_admission, &ctx.passage.client_admission, &ctx.passage.consumer_admission] {
        admission.headers(&mut |name: HeaderName, value: HeaderValue| {
            // Those of old can be there once: what a refusal or the upstream says is more than what another limit does.
            if !name.as_str().starts_with("x-") || !fields.contains_key(&name) {
                fields.append(name, value);
            }
        });
    }
    let id = HeaderValue::from_str(ctx.id.as_str()).expect("ids are visible ASCII");
    fields.insert(X_REQUEST_ID, id);
}

/// Removes what the upstream's response says about its own connection (RFC 9110 section 7.6.1), and framing that its
/// status has no place for (section 8.6).
pub(super) fn clean(status: StatusCode, fields: &mut HeaderMap) {
    if fields.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = fields.get_all(CONNECTION).iter().flat_map(nominations).collect();
        for name in nominated {
            fields.remove(name);
        }
    }
    fields.remove(KEEP_ALIVE);
    fields.remove(PROXY_CONNECTION);
    // What a server would rather speak is its own affair, unless it insists.
    if status != StatusCode::UPGRADE_REQUIRED {
        fields.remove(UPGRADE);
    }
    if status == StatusCode::NO_CONTENT {
        fields.remove(CONTENT_LENGTH);
        fields.remove(TRANSFER_ENCODING);
    }
}

/// Nothing is added to an interim response; what clients are not to see, they do not see there either. It has neither a
/// body nor a say in the connection.
pub(super) fn interim(status: StatusCode, fields: &mut HeaderMap, ctx: &RequestCtx) {
    clean(status, fields);
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        fields.remove(name);
    }
    ctx.passage.response_headers.remove(fields);
}

/// The fields a Connection field names, less those a response cannot do without.
fn nominations(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let names = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).filter(|name| {
        !matches!(
            name.as_str(),
            "close" | "keep-alive" | "upgrade" | "content-length" | "transfer-encoding" | "content-type" | "date"
        )
    })
}

/// A response that is a stream by its type.
pub(super) fn is_stream(response: &ResponseHeader) -> bool {
    grpc::is_grpc(&response.headers)
        || response.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Whether the final response has begun.
pub(super) fn has_begun(session: &Session) -> bool {
    session.was_upgraded() || session.response_written().is_some_and(|response| !response.status.is_informational())
}

/// The response has begun and cannot be completed: the client must not take it for the whole.
pub(super) async fn break_off(session: &mut Session, ctx: &RequestCtx) {
    match &ctx.connection {
        Some(connection) if is_http2(connection) => session.shutdown().await,
        Some(connection) => connection.abort(),
        None => {}
    }
}

/// The reason of a response that has begun: whatever the upstream did, what counts is that the rest is missing.
pub(super) fn reason_once_begun(reason: Reason) -> Reason {
    match reason {
        Reason::UpstreamReset | Reason::UpstreamProtocol | Reason::UpstreamTimeout => Reason::ResponseIncomplete,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(status: u16, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        clean(StatusCode::from_u16(status).expect("a status"), &mut headers);
        headers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn what_belongs_to_the_upstreams_connection_stays_there() {
        let fields = [("connection", "close, X-Hop , etag"), ("x-hop", "1"), ("keep-alive", "5"), ("upgrade", "h2c")];
        assert_eq!(cleaned(200, &fields), ["connection"]);
    }

    #[test]
    fn a_connection_field_cannot_take_framing_away() {
        let fields = [("connection", "content-length, transfer-encoding"), ("content-length", "5")];
        assert_eq!(cleaned(200, &fields), ["connection", "content-length"]);
    }

    #[test]
    fn framing_goes_where_there_is_no_body() {
        assert_eq!(cleaned(204, &[("content-length", "5"), ("transfer-encoding", "chunked")]), [""; 0]);
        assert_eq!(cleaned(304, &[("content-length", "5")]), ["content-length"]);
        assert_eq!(cleaned(426, &[("upgrade", "websocket")]), ["upgrade"]);
    }

    #[test]
    fn only_what_the_upstream_did_makes_a_response_incomplete() {
        assert_eq!(reason_once_begun(Reason::UpstreamReset), Reason::ResponseIncomplete);
        assert_eq!(reason_once_begun(Reason::ClientAborted), Reason::ClientAborted);
    }
}
