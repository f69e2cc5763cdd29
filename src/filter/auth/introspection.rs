//! `type = "introspection"`: whoever issued a token is asked whether it holds (RFC 7662).
//!
//! An answer is remembered for as long as the operator allows and the token lives, whichever ends first. That a token
//! does not hold is remembered for a moment, apart from those that do, so that a flood of bad tokens costs neither the
//! service nor the good ones anything. Nothing is sent that could not be a token.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};

use super::cache::{Cache, Fingerprint};
use super::call::Presented;
use super::counters::Counters;
use super::flight::Flights;
use super::jwt::json;
use super::lifetime::{Lifetime, seconds};
use super::service::{Asked, Service, Trouble};
use super::{Claims, Refused};
use crate::config::{self, Name, Problem, Secret};
use crate::http::Question;
use crate::http::fetch::Fetched;

/// Of a token that is asked about.
const MAX_TOKEN: usize = 16 * 1024;
/// How long a token stays refused without being asked about again, in seconds.
const REMEMBER_REFUSED: u64 = 5;
/// A clock that is behind the issuer's must not refuse what was issued just now, in seconds.
const LEEWAY: u64 = 30;
/// There are no keys that could change.
const GENERATION: u64 = 0;
/// In what is remembered of a token that has ended.
const ENDED: &str = "expired";

/// One authorization server, and what it has said.
#[derive(Debug)]
pub(super) struct Introspection {
    name: Name,
    issuer: Option<String>,
    audience: Vec<String>,
    /// In seconds; `None` asks each time
    remember: Option<u64>,
    /// Says who we are
    authorization: HeaderValue,
    service: Service,
    known: Cache,
    refused: Cache,
    flights: Flights,
}

impl Introspection {
    pub(super) fn build(name: &Name, spec: &config::Introspection) -> Result<Self, Problem> {
        Ok(Self {
            name: name.clone(),
            issuer: spec.issuer.clone(),
            audience: spec.audience.clone(),
            remember: spec.remember.map(|remember| remember.as_secs()),
            authorization: authorization(&spec.client_id, &spec.client_secret),
            service: Service::build(name, &spec.url, spec.ca.as_ref(), spec.timeout)?,
            known: Cache::new(),
            refused: Cache::new(),
            flights: Flights::default(),
        })
    }

    /// Tokens remembered now, as good ones.
    pub(super) fn remembered(&self) -> usize {
        self.known.len()
    }

    /// What is remembered, or cannot be a token.
    pub(super) fn recall(&self, presented: &Presented<'_>, wall: SystemTime) -> Option<Result<Claims, Refused>> {
        if !is_token(presented.text()) {
            return Some(Err(Refused::Invalid("not a token of RFC 6750")));
        }
        // What is remembered no longer is asked about again: it may hold all the same.
        let token = presented.fingerprint();
        if let Some(Ok(claims)) = self.known.find(token, GENERATION, wall) {
            return Some(Ok(claims));
        }
        match self.refused.find(token, GENERATION, wall) {
            Some(Ok(why)) if why.contains_key(ENDED) => Some(Err(Refused::Expired)),
            Some(Ok(_)) => Some(Err(Refused::Invalid("refused a moment ago"))),
            _ => None,
        }
    }

    pub(super) async fn ask(
        &self,
        presented: &Presented<'_>,
        wall: SystemTime,
        counters: &Counters,
    ) -> Result<Claims, Refused> {
        if !is_token(presented.text()) {
            return Err(Refused::Invalid("not a token of RFC 6750"));
        }
        match self.remember {
            None => self.inquire(presented, wall, counters).await,
            Some(_) => self.flights.join(presented.fingerprint(), self.inquire(presented, wall, counters)).await,
        }
    }

    async fn inquire(
        &self,
        presented: &Presented<'_>,
        wall: SystemTime,
        counters: &Counters,
    ) -> Result<Claims, Refused> {
        let answer = self.service.ask(self.question(presented.text()), counters, |answer| read(&answer)).await;
        let Some(answer) = answer else { return Err(Refused::Unavailable) };
        let verdict = answer.ok_or(Refused::Invalid("not active")).and_then(|claims| self.judge(claims, wall));
        match &verdict {
            Ok((claims, ends)) => self.keep(presented.fingerprint(), claims, *ends, wall),
            Err(refused) => self.keep_refused(presented.fingerprint(), refused, wall),
        }
        if let Err(Refused::Invalid(why)) = &verdict {
            log::debug!("auth {}: a token is refused: {why}", self.name);
        }
        verdict.map(|(claims, _)| claims)
    }

    fn question(&self, token: &str) -> Question {
        // RFC 7662 section 2.1
        let body = format!("token={}&token_type_hint=access_token", encoded(token.as_bytes()));
        let mut question = Question::new(Full::from(Bytes::from(body)));
        *question.method_mut() = Method::POST;
        let headers = question.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        question
    }

    /// Whether an active token is one for us, now: its claims, and when it ends.
    fn judge(&self, claims: Map<String, Value>, wall: SystemTime) -> Result<(Claims, Option<u64>), Refused> {
        if self.issuer.as_ref().is_some_and(|issuer| claims.get("iss").and_then(Value::as_str) != Some(issuer)) {
            return Err(Refused::Invalid("another issuer"));
        }
        if !self.audience.is_empty() && !claims.get("aud").is_some_and(|audience| self.is_audience(audience)) {
            return Err(Refused::Invalid("another audience"));
        }
        // A subject that is no text would be no subject to whoever reads it, a limit for instance.
        if claims.get("sub").is_some_and(|subject| !subject.is_string()) {
            return Err(Refused::Invalid("a sub that is no text"));
        }
        // Whoever shows it must prove to have a key, of which nobody here knows (RFC 9449 section 6.2).
        let kind = claims.get("token_type").and_then(Value::as_str);
        if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("dpop")) {
            return Err(Refused::Invalid("bound to a key"));
        }
        let time = |name: &str, wrong| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => seconds(value).map(Some).ok_or(Refused::Invalid(wrong)),
        };
        let ends = time("exp", "an exp that is no time")?;
        let begins = time("nbf", "an nbf that is no time")?.unwrap_or(0).saturating_sub(LEEWAY);
        Lifetime::new(begins, ends.unwrap_or(u64::MAX)).check(wall)?;
        Ok((Arc::new(claims), ends))
    }

    fn is_audience(&self, audience: &Value) -> bool {
        let one = |value: &Value| value.as_str().is_some_and(|name| self.audience.iter().any(|ours| ours == name));
        match audience {
            Value::Array(items) => items.iter().any(one),
            value => one(value),
        }
    }

    /// `wall` is from before the question: an answer is not made younger by having been waited for. Nor is it older
    /// than the clock, should that be set back.
    fn keep(&self, token: Fingerprint, claims: &Claims, ends: Option<u64>, wall: SystemTime) {
        let Some(remember) = self.remember else { return };
        let now = since_1970(wall);
        let until = now.saturating_add(remember).min(ends.unwrap_or(u64::MAX));
        self.known.remember(token, GENERATION, Lifetime::new(now, until), claims);
    }

    fn keep_refused(&self, token: Fingerprint, refused: &Refused, wall: SystemTime) {
        let mut why = Map::new();
        if *refused == Refused::Expired {
            why.insert(ENDED.to_owned(), Value::Bool(true));
        }
        let now = since_1970(wall);
        self.refused.remember(token, GENERATION, Lifetime::new(now, now + REMEMBER_REFUSED), &Arc::new(why));
    }
}

fn since_1970(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The claims of an active token; `None` of any other (RFC 7662 section 2.2).
fn read(answer: &Fetched) -> Result<Option<Map<String, Value>>, Trouble> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err((
                Asked::Unauthorized,
                format!("the answer was {}: see client_id and its secret", answer.status),
            ));
        }
        status => return Err((Asked::Status, format!("the answer was {status}"))),
    }
    let invalid = |why: &str| (Asked::Invalid, why.to_owned());
    if !is_json(&answer.headers) {
        return Err(invalid("the answer's Content-Type is not application/json"));
    }
    let claims = json::object(&answer.body).ok_or_else(|| invalid("the answer is not one object of JSON"))?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Some(claims)),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err(invalid("the answer does not say whether the token is active")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json")
}

/// `b64token` of RFC 6750 section 2.1, within bounds.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && text.len() <= MAX_TOKEN && body.bytes().all(is_part)
}

/// `client_secret_basic`: both parts are encoded as forms are (RFC 6749 section 2.3.1), and then as Basic has it.
fn authorization(id: &str, secret: &Secret) -> HeaderValue {
    let pair = format!("{}:{}", encoded(id.as_bytes()), encoded(secret.expose()));
    let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// As a form has it (<https://url.spec.whatwg.org/#concept-urlencoded-serializer>).
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' ' => text.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) => text.push(char::from(byte)),
            // Writing to memory does not fail.
            byte => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn spec() -> config::Introspection {
        config::Introspection {
            url: Uri::from_static("http://127.0.0.1:1/introspect"),
            client_id: "gate way".into(),
            client_secret: Secret::new(b"s:e&c/\xffret".as_slice()),
            issuer: Some("https://id.example".into()),
            audience: vec!["orders".into()],
            timeout: Duration::from_secs(2),
            remember: Some(Duration::from_secs(60)),
            ca: None,
        }
    }

    fn introspection() -> Introspection {
        Introspection::build(&"opaque".into(), &spec()).expect("built")
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// The verdict at second 1000 on an active token, with `more` put over claims that are accepted.
    fn judged(more: &Value) -> Result<Option<u64>, Refused> {
        let mut claims = json!({"active": true, "iss": "https://id.example", "aud": "orders", "sub": "alice"});
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let Value::Object(claims) = claims else { unreachable!("an object was written") };
        introspection().judge(claims, at(1000)).map(|(_, ends)| ends)
    }

    fn answer(status: u16, kind: &'static str, body: &str) -> Result<Option<Map<String, Value>>, Asked> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let status = StatusCode::from_u16(status).expect("three digits");
        read(&Fetched { status, headers, body: body.to_owned().into() }).map_err(|(asked, _)| asked)
    }

    #[test]
    fn active_is_true_and_nothing_that_looks_like_it() {
        let of = |body| answer(200, "application/json; charset=utf-8", body);
        assert_eq!(of(r#"{"active":true,"sub":"a"}"#).expect("an answer").expect("active")["sub"], "a");
        assert_eq!(of(r#"{"active":false,"sub":"a"}"#), Ok(None));
        for body in [
            "",
            "{}",
            "true",
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"Active":true}"#,
            r#"{"active":false,"active":true}"#,
            r#"{"active":true} {}"#,
            r#"[{"active":true}]"#,
        ] {
            assert_eq!(of(body), Err(Asked::Invalid), "{body}");
        }
    }

    #[test]
    fn an_answer_is_a_200_with_json() {
        let active = r#"{"active":true}"#;
        for kind in ["text/html", "", "application/jsonp", "application/token-introspection+jwt"] {
            assert_eq!(answer(200, kind, active), Err(Asked::Invalid), "{kind}");
        }
        for status in [201, 204, 302, 400, 404, 500] {
            assert_eq!(answer(status, "application/json", active), Err(Asked::Status), "{status}");
        }
        for status in [401, 403] {
            assert_eq!(answer(status, "application/json", active), Err(Asked::Unauthorized), "{status}");
        }
    }

    #[test]
    fn an_active_token_is_for_us_and_for_now() {
        assert_eq!(judged(&json!({})), Ok(None));
        assert_eq!(judged(&json!({"aud": ["others", "orders"], "exp": 1001, "nbf": 1030})), Ok(Some(1001)));
        assert_eq!(judged(&json!({"exp": 1000.9, "token_type": "Bearer"})), Err(Refused::Expired));
        assert_eq!(judged(&json!({"exp": 1000})), Err(Refused::Expired));
        for claims in [
            json!({"iss": "https://id.example/"}),
            json!({"iss": ["https://id.example"]}),
            json!({"aud": "order"}),
            json!({"aud": []}),
            json!({"aud": {"orders": true}}),
            json!({"sub": 7}),
            json!({"nbf": 1031}),
            json!({"nbf": "1"}),
            json!({"exp": "tomorrow"}),
            json!({"exp": -1}),
            json!({"token_type": "DPoP"}),
        ] {
            assert!(matches!(judged(&claims), Err(Refused::Invalid(_))), "{claims}");
        }
    }

    #[test]
    fn credentials_are_encoded_before_they_are_joined() {
        let value = authorization("gate way", &spec().client_secret);
        let pair = value.to_str().expect("ASCII").strip_prefix("Basic ").expect("the scheme");
        assert_eq!(STANDARD.decode(pair).expect("base64"), b"gate+way:s%3Ae%26c%2F%FFret");
        assert!(value.is_sensitive() && !format!("{:?}", introspection()).contains(pair));
    }

    #[test]
    fn only_what_may_be_a_token_is_one() {
        for text in ["a", "a==", "aZ0-._~+/", &"a".repeat(MAX_TOKEN)] {
            assert!(is_token(text), "{text}");
        }
        for text in ["", "=", "a=b", "a b", "a&token=b", "a\n", "\u{e4}", "a%41", &"a".repeat(MAX_TOKEN + 1)] {
            assert!(!is_token(text), "{text}");
        }
    }

    #[test]
    fn an_answer_is_remembered_no_longer_than_the_token_lives_and_the_operator_allows() {
        let introspection = introspection();
        let claims = Arc::new(Map::new());
        for (token, ends, last) in [("short", Some(1010), 1009), ("long", Some(5000), 1059), ("endless", None, 1059)] {
            introspection.keep(Fingerprint::of(token), &claims, ends, at(1000));
            let recalled = |second| introspection.recall(&Presented::new(token, 0), at(second));
            assert_eq!(
                (recalled(1000), recalled(last)),
                (Some(Ok(claims.clone())), Some(Ok(claims.clone()))),
                "{token}"
            );
            assert_eq!((recalled(last + 1), recalled(999)), (None, None), "{token}");
        }
    }

    #[test]
    fn a_refusal_is_remembered_for_a_moment_and_what_it_was() {
        let introspection = introspection();
        let token = Presented::new("bad", 0);
        for refused in [Refused::Invalid("refused a moment ago"), Refused::Expired] {
            introspection.keep_refused(token.fingerprint(), &refused, at(1000));
            assert_eq!(introspection.recall(&token, at(1004)), Some(Err(refused)));
            assert_eq!(introspection.recall(&token, at(1005)), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = encoded(&bytes).replace('+', " ");
            let decoded: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
            prop_assert_eq!(decoded, bytes);
        }

        #[test]
        fn a_token_cannot_add_to_the_form(text in "[a-z=+/&%. \u{e4}-]{0,12}") {
            if is_token(&text) {
                prop_assert!(!encoded(text.as_bytes()).contains(['&', '=', '+', ' ']));
            }
        }
    }
}
