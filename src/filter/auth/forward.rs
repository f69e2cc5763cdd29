//! `type = "forward"`: a service is shown each request, and decides.
//!
//! It gets the headers the operator chose and what the gateway vouches for, never a body. Its consent may say who calls;
//! its refusal is what the client gets. Anything else it may do lets nobody pass.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};

use super::counters::Counters;
use super::service::{Asked, Service, Trouble};
use super::{Claims, Refused};
use crate::config::{self, Name, Problem};
use crate::http::fetch::Fetched;
use crate::http::{Question, Request, address_value};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The service, what it is shown, and what of its answers is used.
#[derive(Debug)]
pub(super) struct Forward {
    spec: config::ForwardAuth,
    service: Service,
}

/// A refusal in the service's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) status: StatusCode,
    /// Those that the operator passes on
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl Forward {
    pub(super) fn build(name: &Name, spec: &config::ForwardAuth) -> Result<Self, Problem> {
        let service = Service::build(name, &spec.url, spec.ca.as_ref(), spec.timeout)?;
        Ok(Self { spec: spec.clone(), service })
    }

    pub(super) async fn ask(&self, request: &Request<'_>, counters: &Counters) -> Result<Claims, Refused> {
        // What cannot be told to the service cannot be decided by it.
        let question = self.question(request).ok_or(Refused::Unavailable)?;
        let verdict = self.service.ask(question, counters, |answer| self.read(answer)).await;
        verdict.ok_or(Refused::Unavailable)?.map_err(|denial| Refused::Denied(Box::new(denial)))
    }

    fn question(&self, request: &Request<'_>) -> Option<Question> {
        let mut question = Question::new(Full::default());
        *question.method_mut() = Method::GET;
        let headers = question.headers_mut();
        for name in &self.spec.request_headers {
            for value in request.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        // The client must be able to read a refusal as it comes.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // What is left of these in the request was said by a proxy that may.
        let said = |name: &HeaderName| request.headers.get(name).cloned();
        let host = || request.headers.get(HOST).cloned().or_else(|| HeaderValue::from_str(request.host).ok());
        let uri = match request.query {
            Some(query) => format!("{}?{query}", request.path),
            None => request.path.to_owned(),
        };
        headers.insert(X_FORWARDED_METHOD, HeaderValue::from_str(request.method.as_str()).ok()?);
        headers.insert(X_FORWARDED_PROTO, proto(said(&X_FORWARDED_PROTO), request.scheme));
        headers.insert(X_FORWARDED_HOST, said(&X_FORWARDED_HOST).or_else(host)?);
        headers.insert(X_FORWARDED_URI, HeaderValue::from_bytes(uri.as_bytes()).ok()?);
        headers.insert(X_FORWARDED_FOR, address_value(request.client));
        headers.insert(X_REQUEST_ID, HeaderValue::from_str(request.id).ok()?);
        Some(question)
    }

    /// Consent, refusal, or neither.
    fn read(&self, answer: Fetched) -> Result<Result<Claims, Denial>, Trouble> {
        let Fetched { status, headers, body } = answer;
        match status.as_u16() {
            200..=299 => self.claims(&headers).map(Ok),
            401 | 403 | 301 | 302 | 303 | 307 | 308 => {
                if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
                    return Err((Asked::Invalid, "its refusal is compressed, though it was asked for plain".into()));
                }
                let told = &self.spec.response_headers;
                let told = told.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
                let headers = told.map(|(name, value)| (name.clone(), value.clone())).collect();
                Ok(Err(Denial { status, headers, body }))
            }
            _ => Err((Asked::Status, format!("the answer was {status}"))),
        }
    }

    /// One header of that name is a text, several are a list; an empty one says nothing.
    fn claims(&self, headers: &HeaderMap) -> Result<Claims, Trouble> {
        let mut claims = Map::new();
        for (claim, name) in &self.spec.claims {
            let values = headers.get_all(name).iter().filter(|value| !value.is_empty());
            let texts = values.map(|value| std::str::from_utf8(value.as_bytes()).map(Value::from));
            let mut texts: Vec<_> = texts
                .collect::<Result<_, _>>()
                .map_err(|_| (Asked::Invalid, format!("its header {name} is not UTF-8")))?;
            let value = match texts.len() {
                0 => continue,
                1 => texts.remove(0),
                // A subject that is no text would be no subject to whoever reads it.
                _ if claim == "sub" => {
                    return Err((Asked::Invalid, format!("its header {name} names several callers")));
                }
                _ => Value::Array(texts),
            };
            claims.insert(claim.clone(), value);
        }
        Ok(Arc::new(claims))
    }
}

fn proto(said: Option<HeaderValue>, scheme: &'static str) -> HeaderValue {
    said.filter(|said| said == "https" || said == "http").unwrap_or(HeaderValue::from_static(scheme))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};

    use super::*;

    fn forward() -> Forward {
        let spec = config::ForwardAuth {
            url: http::Uri::from_static("http://127.0.0.1:9001/verify"),
            request_headers: vec![AUTHORIZATION, COOKIE],
            response_headers: vec![LOCATION, SET_COOKIE],
            claims: vec![
                ("sub".into(), HeaderName::from_static("x-auth-user")),
                ("groups".into(), HeaderName::from_static("x-auth-groups")),
            ],
            timeout: Duration::from_secs(2),
            ca: None,
        };
        Forward::build(&"door".into(), &spec).expect("built")
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    fn read(status: u16, fields: &[(&'static str, &'static str)]) -> Result<Result<Claims, Denial>, Trouble> {
        let status = StatusCode::from_u16(status).expect("three digits");
        forward().read(Fetched { status, headers: headers(fields), body: Bytes::from_static(b"no") })
    }

    #[test]
    fn the_service_is_shown_what_was_chosen_and_what_we_vouch_for() {
        let headers = headers(&[
            ("host", "api.example.com:8443"),
            ("cookie", "a=1"),
            ("x-secret", "1"),
            ("x-request-id", "the client's"),
            ("accept-encoding", "gzip"),
        ]);
        let request = Request {
            method: &Method::DELETE,
            host: "api.example.com",
            path: "/orders/1",
            query: Some("a=b"),
            headers: &headers,
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "",
            scheme: "https",
            id: "ours",
        };
        let question = forward().question(&request).expect("it can be told");
        assert_eq!(question.method(), Method::GET);
        let mut told: Vec<_> = question
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "accept-encoding: identity",
                "cookie: a=1",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: api.example.com:8443",
                "x-forwarded-method: DELETE",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /orders/1?a=b",
                "x-request-id: ours",
            ]
        );
    }

    #[test]
    fn consent_says_who_calls_as_far_as_it_does() {
        let claims = |fields: &[(&'static str, &'static str)]| {
            Value::Object(Map::clone(&read(204, fields).expect("an answer").expect("consent")))
        };
        assert_eq!(claims(&[("x-auth-email", "a@example.com")]), serde_json::json!({}));
        let alice = [("x-auth-user", "alice"), ("x-auth-groups", "a"), ("x-auth-groups", "b"), ("x-auth-groups", "")];
        assert_eq!(claims(&alice), serde_json::json!({"sub": "alice", "groups": ["a", "b"]}));
        assert_eq!(claims(&[("x-auth-user", "")]), serde_json::json!({}));
        read(200, &[("x-auth-user", "alice"), ("x-auth-user", "mallory")]).expect_err("two callers");
    }

    #[test]
    fn a_refusal_is_kept_as_far_as_it_may_be_told() {
        let fields = [("location", "/login"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("server", "internal")];
        for status in [401, 403, 301, 302, 303, 307, 308] {
            let denial = read(status, &fields).expect("an answer").expect_err("a refusal");
            let told: Vec<_> = denial.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            let expected: [(&str, &[u8]); 3] =
                [("location", b"/login"), ("set-cookie", b"a=1"), ("set-cookie", b"b=2")];
            assert_eq!((denial.status.as_u16(), told, &*denial.body), (status, expected.to_vec(), &b"no"[..]));
        }
        read(403, &[("content-encoding", "gzip")]).expect_err("nobody asked for that");
    }

    #[test]
    fn whatever_else_it_says_is_neither() {
        for status in [300, 304, 305, 400, 402, 404, 407, 429, 500, 503, 599] {
            assert_eq!(read(status, &[]).expect_err("no answer").0, Asked::Status, "{status}");
        }
    }
}
