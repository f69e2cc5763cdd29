//! Responses we write ourselves.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::Reason;

/// Our own response: why, with which status and headers, and what to tell the client.
///
/// Errors are problem documents (RFC 9457) that carry the request's id, and say in Proxy-Status (RFC 9209) that it was
/// the gateway that answered. Their detail is for the client: it never names a key, a claim's value or an address inside.
#[derive(Debug)]
pub struct Reply {
    /// Why; the access log and the metrics show it
    pub reason: Reason,
    /// Starts as the reason's own
    pub status: StatusCode,
    /// Besides content type, length and Proxy-Status, which are added when it is written
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the client reads
    pub body: ReplyBody,
}

/// The body of a [`Reply`].
#[derive(Debug)]
pub enum ReplyBody {
    /// A problem document
    Problem {
        /// One sentence: what happened, or what to do
        detail: Cow<'static, str>,
        /// `type` and extension members, when a standard names them
        members: Map<String, Value>,
    },
    /// Anything else
    Content {
        /// Content-Type
        content_type: HeaderValue,
        /// The bytes
        body: Bytes,
    },
}

impl Reply {
    /// A problem document with the reason's own status.
    pub fn problem(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            status: reason.status(),
            headers: Vec::new(),
            body: ReplyBody::Problem { detail: detail.into(), members: Map::new() },
        }
    }

    /// A response with content of its own.
    pub fn content(reason: Reason, status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self { reason, status, headers: Vec::new(), body: ReplyBody::Content { content_type, body: body.into() } }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a member to the problem document, `type` among them.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        if let ReplyBody::Problem { members, .. } = &mut self.body {
            members.insert(name.to_owned(), value);
        }
        self
    }

    /// Headers and body as they go out.
    pub fn render(&self, request_id: &str) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let body = match &self.body {
            ReplyBody::Content { content_type, body } => {
                headers.insert(CONTENT_TYPE, content_type.clone());
                body.clone()
            }
            ReplyBody::Problem { detail, members } => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
                Bytes::from(self.document(detail, members, request_id))
            }
        };
        if let Some(error) = self.reason.proxy_error() {
            let value = format!("tollgate; error={error}; details=\"{}\"", self.reason.name());
            headers.insert(
                HeaderName::from_static("proxy-status"),
                HeaderValue::from_str(&value).expect("error types and reason names are tokens"),
            );
        }
        // It would be an error with the first (RFC 9110 section 8.6), and with the second say that what is there is empty.
        if !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        (headers, body)
    }

    fn document(&self, detail: &str, members: &Map<String, Value>, request_id: &str) -> Vec<u8> {
        let mut document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": detail,
            "reason": self.reason.name(),
            "request_id": request_id,
        });
        if let Value::Object(object) = &mut document {
            object.extend(members.clone());
        }
        let mut bytes = document.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_names_the_reason_and_the_request() {
        let reply =
            Reply::problem(Reason::NoRoute, "No route takes this host and path.").member("type", json!("urn:x"));
        let (headers, body) = reply.render("abc");
        let document: Value = serde_json::from_slice(&body).expect("valid JSON");
        assert_eq!(document["type"], "urn:x");
        assert_eq!(document["status"], 404);
        assert_eq!(document["request_id"], "abc");
        assert_eq!(headers["proxy-status"], "tollgate; error=destination_not_found; details=\"no_route\"");
        assert_eq!(headers["content-length"], body.len().to_string());
    }

    #[test]
    fn an_answer_that_cannot_have_a_body_says_nothing_of_its_length() {
        for (status, has_length) in [(204, false), (304, false), (205, true), (200, true)] {
            let status = StatusCode::from_u16(status).expect("three digits");
            let reply = Reply::content(Reason::Responded, status, HeaderValue::from_static("text/plain"), "");
            assert_eq!(reply.render("abc").0.contains_key(CONTENT_LENGTH), has_length, "{status}");
        }
    }

    #[test]
    fn content_of_its_own_is_sent_as_it_is() {
        let reply = Reply::content(Reason::Responded, StatusCode::OK, HeaderValue::from_static("text/plain"), "hello");
        let (headers, body) = reply.render("abc");
        assert_eq!(body, "hello");
        assert!(!headers.contains_key("proxy-status"));
    }
}
