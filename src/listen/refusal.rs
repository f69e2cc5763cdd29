//! The answer to a head that Pingora must not see.

use std::time::Duration;

use bytes::Bytes;
use pingora_error::Result;
use pingora_http::ResponseHeader;

use crate::http::{Reason, Reply, RequestId};

/// A client that takes none of its refusal is not waited for.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Head and body.
pub(super) fn response(reason: Reason) -> Result<(ResponseHeader, Bytes)> {
    let reply = Reply::problem(reason, explanation(reason));
    let id = RequestId::new();
    let (headers, body) = reply.render(id.as_str());
    let mut head = ResponseHeader::build(reply.status, Some(headers.len() + 2))?;
    for (name, value) in &headers {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header("x-request-id", id.as_str())?;
    Ok((head, body))
}

/// The whole of it as HTTP/1 sends it, on a connection that ends with it.
pub(super) fn http1(reason: Reason) -> Result<Vec<u8>> {
    let (mut head, body) = response(reason)?;
    head.insert_header(http::header::CONNECTION, "close")?;
    let status = head.status;
    let mut bytes =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Error")).into_bytes();
    head.header_to_h1_wire(&mut bytes);
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn explanation(reason: Reason) -> &'static str {
    match reason {
        Reason::AmbiguousFraming => "The request does not say unambiguously where its body ends.",
        Reason::BadHost => "The request must have exactly one Host.",
        Reason::TooManyHeaders => "The request has too many header fields.",
        Reason::HeadTooLarge => "The request's header fields are too large.",
        Reason::UriTooLong => "The request's target is too long.",
        Reason::HeaderTimeout => "The request's header fields did not arrive in time.",
        Reason::Unsupported => "This method or version of HTTP is not served here.",
        _ => "The request is not valid HTTP.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_response_that_ends_its_connection() {
        let text = String::from_utf8(http1(Reason::BadHost).expect("built")).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert!(body.contains("\"reason\":\"bad_host\""), "{body}");
    }
}
