//! Cross-origin requests (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! A preflight is answered here, before anybody is asked who they are: browsers send none of their credentials with it.
//! CORS lets a browser show an answer to a page; it keeps nobody out. So a request of an origin that is not listed goes
//! its way, and its answer says nothing that a browser would let the page read.

use std::ops::ControlFlow;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::config::{self, CorsHeaders, CorsOrigins};
use crate::http::{Reason, Reply, Request};

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// What an upstream may have to say of it itself: one voice is enough, and two are an error to a browser.
const OURS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Whose pages may read a route's answers.
#[derive(Clone, Debug)]
pub struct Cors(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    origins: CorsOrigins,
    credentials: bool,
    private_network: bool,
    methods: HeaderValue,
    headers: AllowedHeaders,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// Headers that a request may have besides those that every page may send.
#[derive(Debug)]
enum AllowedHeaders {
    Listed(Option<HeaderValue>),
    AsAsked,
}

/// What a response says to the page that asked.
#[derive(Debug, Default)]
pub struct CorsAnswer(Option<Answer>);

#[derive(Debug)]
struct Answer {
    rules: Arc<Rules>,
    /// The page's, if it may read the response
    origin: Option<HeaderValue>,
    /// The response is our own to a preflight, and complete but for the origin
    is_preflight: bool,
}

impl Cors {
    /// Values that are the same for every request are made now, and once.
    pub fn build(spec: &config::Cors) -> Self {
        let methods: Vec<&str> = spec.methods.iter().map(Method::as_str).collect();
        Self(Arc::new(Rules {
            origins: spec.origins.clone(),
            credentials: spec.credentials,
            private_network: spec.private_network,
            methods: HeaderValue::from_str(&methods.join(", ")).expect("methods are tokens"),
            headers: match &spec.headers {
                CorsHeaders::Any => AllowedHeaders::AsAsked,
                CorsHeaders::Listed(names) => AllowedHeaders::Listed(list(names)),
            },
            expose: list(&spec.expose),
            max_age: spec.max_age.map(|age| HeaderValue::from(age.as_secs())),
        }))
    }

    /// Answers a preflight, and says what the response of any other request carries.
    pub fn on_request(&self, request: &Request<'_>, answer: &mut CorsAnswer) -> ControlFlow<Reply> {
        let rules = &self.0;
        let origin = sole(request.headers, &ORIGIN).filter(|origin| rules.admits(origin));
        let is_preflight = asked_method(request.method, request.headers).is_some();
        *answer = CorsAnswer(Some(Answer { rules: Arc::clone(rules), origin: origin.cloned(), is_preflight }));
        match origin {
            _ if !is_preflight => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(rules.preflight(request.headers)),
            None => {
                let detail = "Pages of this origin may not use this route.";
                ControlFlow::Break(Reply::problem(Reason::CorsDenied, detail))
            }
        }
    }
}

impl CorsAnswer {
    /// Puts it on a response; what the upstream said of it goes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let Some(Answer { rules, origin, is_preflight }) = &self.0 else { return };
        if !is_preflight {
            for name in &OURS {
                headers.remove(name);
            }
        }
        // Whoever keeps the answer for another origin has to know that it may differ.
        let differs = rules.credentials || rules.origins != CorsOrigins::Any;
        if differs && !headers.get_all(VARY).iter().any(names_origin) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, if differs { origin.clone() } else { ANY });
        if rules.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = rules.expose.as_ref().filter(|_| !is_preflight) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Rules {
    /// An origin is compared as browsers write it, letter by letter; `null` is many pages' and nobody's.
    fn admits(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        match &self.origins {
            CorsOrigins::Any => true,
            CorsOrigins::Listed { exact, patterns } => {
                exact.iter().any(|listed| listed == origin) || patterns.iter().any(|pattern| pattern.0.is_match(origin))
            }
        }
    }

    /// What may be asked, whatever was: the browser compares.
    fn preflight(&self, asked: &HeaderMap) -> Reply {
        let nothing = HeaderValue::from_static("text/plain");
        let mut reply = Reply::content(Reason::Preflight, StatusCode::NO_CONTENT, nothing, "")
            .header(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        let headers = match &self.headers {
            AllowedHeaders::Listed(list) => list.as_ref(),
            AllowedHeaders::AsAsked => asked.get(ACCESS_CONTROL_REQUEST_HEADERS),
        };
        let is_private =
            self.private_network && sole(asked, &REQUEST_PRIVATE_NETWORK).is_some_and(|asks| asks == "true");
        let yes = TRUE;
        let more = [
            (ACCESS_CONTROL_ALLOW_HEADERS, headers),
            (ACCESS_CONTROL_MAX_AGE, self.max_age.as_ref()),
            (ALLOW_PRIVATE_NETWORK, is_private.then_some(&yes)),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                reply = reply.header(name, value.clone());
            }
        }
        reply
    }
}

/// The method that a preflight asks about; `None` for any other request.
pub fn asked_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(sole(headers, &ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// The value of a field that is there once.
fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn names_origin(vary: &HeaderValue) -> bool {
    let names = vary.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.into_iter().any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

fn list(names: &[HeaderName]) -> Option<HeaderValue> {
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).expect("names of headers are tokens"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::config::Pattern;

    fn spec() -> config::Cors {
        config::Cors {
            origins: CorsOrigins::Listed {
                exact: vec!["https://app.example".into()],
                patterns: vec![Pattern(regex::Regex::new(r"^(?:https://[a-z]+\.app\.example)$").expect("a pattern"))],
            },
            methods: vec![Method::GET, Method::PUT],
            headers: CorsHeaders::Listed(vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")]),
            expose: vec![HeaderName::from_static("x-total")],
            credentials: true,
            max_age: Some(Duration::from_secs(600)),
            private_network: false,
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// The reply, if it is ours, and what the answer makes of a response with these fields.
    fn asked(
        spec: &config::Cors,
        method: &Method,
        fields: &[(&'static str, &'static str)],
        response: &[(&'static str, &'static str)],
    ) -> (Option<Reply>, HeaderMap) {
        let sent = headers(fields);
        let request = Request {
            method,
            host: "",
            path: "/",
            query: None,
            headers: &sent,
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "",
            scheme: "http",
            id: "",
        };
        let mut answer = CorsAnswer::default();
        let reply = Cors::build(spec).on_request(&request, &mut answer).break_value();
        let mut response = headers(response);
        if let Some(reply) = &reply {
            response.extend(reply.headers.iter().cloned());
        }
        answer.apply(&mut response);
        (reply, response)
    }

    const APP: (&str, &str) = ("origin", "https://app.example");
    const ASKS: (&str, &str) = ("access-control-request-method", "PUT");

    #[test]
    fn a_preflight_is_told_what_may_be_asked() {
        let (reply, response) = asked(&spec(), &Method::OPTIONS, &[APP, ASKS], &[]);
        let reply = reply.expect("ours");
        assert_eq!((reply.reason, reply.status.as_u16()), (Reason::Preflight, 204));
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(response[name], value, "{name}");
        }
        assert!(!response.contains_key("access-control-expose-headers"), "it is for answers that are read");
    }

    #[test]
    fn only_an_origin_that_is_listed_whole_is_let_in() {
        for (origin, is_listed) in [
            ("https://app.example", true),
            ("https://eu.app.example", true),
            ("http://app.example", false),
            ("https://app.example.evil.test", false),
            ("https://evil.test/https://eu.app.example", false),
            ("https://APP.example", false),
            ("https://app.example:8443", false),
            ("null", false),
            ("", false),
        ] {
            let (reply, response) = asked(&spec(), &Method::OPTIONS, &[("origin", origin), ASKS], &[]);
            let expected = if is_listed { Reason::Preflight } else { Reason::CorsDenied };
            assert_eq!(reply.map(|reply| reply.reason), Some(expected), "{origin}");
            assert_eq!(response.contains_key("access-control-allow-origin"), is_listed, "{origin}");
            assert_eq!(response["vary"], "Origin", "a cache must not mix them up");
        }
        let twice = [APP, ("origin", "https://evil.test"), ASKS];
        assert_eq!(asked(&spec(), &Method::OPTIONS, &twice, &[]).0.map(|reply| reply.reason), Some(Reason::CorsDenied));
    }

    #[test]
    fn what_is_no_preflight_goes_its_way_and_the_upstreams_word_does_not_count() {
        let upstream = [("access-control-allow-origin", "*"), ("vary", "accept-encoding, Origin")];
        for (method, fields) in [(&Method::GET, &[APP][..]), (&Method::OPTIONS, &[APP]), (&Method::GET, &[APP, ASKS])] {
            let (reply, response) = asked(&spec(), method, fields, &upstream);
            assert!(reply.is_none());
            assert_eq!(response["access-control-allow-origin"], "https://app.example");
            assert_eq!(response["access-control-expose-headers"], "x-total");
            assert_eq!(response.get_all("vary").iter().count(), 1);
        }
        let (_, response) = asked(&spec(), &Method::GET, &[("origin", "https://evil.test")], &upstream);
        assert!(!response.contains_key("access-control-allow-origin"));
        let (_, response) = asked(&spec(), &Method::GET, &[], &[]);
        assert_eq!(response["vary"], "Origin");
    }

    #[test]
    fn everybody_is_a_star_where_nothing_depends_on_the_origin() {
        let spec = config::Cors { origins: CorsOrigins::Any, credentials: false, headers: CorsHeaders::Any, ..spec() };
        let wants = ("access-control-request-headers", "x-one, x-two");
        let (_, response) = asked(&spec, &Method::OPTIONS, &[APP, ASKS, wants], &[]);
        assert_eq!(response["access-control-allow-origin"], "*");
        assert_eq!(response["access-control-allow-headers"], "x-one, x-two");
        assert!(!response.contains_key("vary") && !response.contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn a_private_network_is_open_to_those_who_ask_where_it_is() {
        let asks = ("access-control-request-private-network", "true");
        for (private_network, fields, expected) in
            [(true, &[APP, ASKS, asks][..], true), (true, &[APP, ASKS], false), (false, &[APP, ASKS, asks], false)]
        {
            let spec = config::Cors { private_network, ..spec() };
            let (_, response) = asked(&spec, &Method::OPTIONS, fields, &[]);
            assert_eq!(response.contains_key("access-control-allow-private-network"), expected);
        }
    }
}
