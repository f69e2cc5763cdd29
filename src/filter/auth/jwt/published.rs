//! What an issuer publishes: its keys, and perhaps a document that says where they are (OpenID Connect Discovery 1.0
//! section 4, RFC 8414 section 3).
//!
//! A document is believed for one thing, the address of the keys, and only if it is about this issuer and no other
//! (RFC 8414 section 3.3). It is asked for each time the keys are, so that keys that have moved are found.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

use super::freshness::{self, Validators};
use super::json;
use super::jwk::{self, Read};
use super::refresh::Outcome;
use crate::http::fetch::{FetchError, Limits, Trust, fetch, is_fetchable};

/// Of a whole key set, and of a document that says where it is.
const MAX_BYTES: usize = 256 * 1024;

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) entry: Entry,
    pub(super) trust: Trust,
}

#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// The keys are here
    Keys(Uri),
    /// This issuer's document is here, and says where the keys are
    Discovery { document: Uri, issuer: String },
}

/// What is known of the last good answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    document: Option<Answered>,
    keys: Option<Answered>,
}

/// An answer that is in use.
#[derive(Clone, Debug)]
struct Answered {
    /// Where the keys are
    keys_at: Uri,
    validators: Validators,
}

/// What there is now.
#[derive(Debug)]
pub(super) struct Published {
    /// `None`: the same as before
    pub(super) keys: Option<Read>,
    /// For how long, if the issuer says so
    pub(super) fresh_for: Option<Duration>,
    pub(super) known: Known,
}

/// Why there is nothing.
pub(super) type Failure = (Outcome, String);

impl Place {
    /// Asks for the keys of this moment, within `timeout` for all of it.
    pub(super) async fn ask(&self, known: Known, timeout: Duration) -> Result<Published, Failure> {
        let asked = self.find(known, Limits { timeout, max_bytes: MAX_BYTES });
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(failure(&FetchError::TimedOut)))
    }

    async fn find(&self, known: Known, limits: Limits) -> Result<Published, Failure> {
        let (document, of_document) = match &self.entry {
            Entry::Keys(uri) => (Answered { keys_at: uri.clone(), validators: Validators::default() }, None),
            Entry::Discovery { document, issuer } => {
                let before = known.document.as_ref();
                let answer = self.get(document, before.map(|before| &before.validators), limits).await?;
                let found = match (answer.body, before) {
                    (Some(body), _) => {
                        let keys_at = keys_at(&body, issuer)
                            .map_err(|why| (Outcome::Discovery, format!("the document about the issuer {why}")))?;
                        Answered { keys_at, validators: answer.validators }
                    }
                    (None, Some(before)) => before.clone(),
                    (None, None) => return Err(unasked()),
                };
                (found, answer.fresh_for)
            }
        };
        let uri = document.keys_at.clone();
        let before = known.keys.filter(|before| before.keys_at == uri);
        let answer = self.get(&uri, before.as_ref().map(|before| &before.validators), limits).await?;
        let (keys, of_keys) = match (answer.body, before) {
            (Some(body), _) => {
                let why = |why| (Outcome::Invalid, format!("the answer is no key set: {why}"));
                let read = jwk::read(&body).map_err(why)?;
                (Some(read), Answered { keys_at: uri, validators: answer.validators })
            }
            (None, Some(before)) => (None, before),
            (None, None) => return Err(unasked()),
        };
        let fresh_for = [of_document, answer.fresh_for].into_iter().flatten().min();
        Ok(Published { keys, fresh_for, known: Known { document: Some(document), keys: Some(of_keys) } })
    }

    async fn get(&self, uri: &Uri, before: Option<&Validators>, limits: Limits) -> Result<Answer, Failure> {
        let none = HeaderMap::new();
        let conditions = before.map_or(&none, Validators::fields);
        let fetched = fetch(uri, conditions, &self.trust, limits).await.map_err(|error| failure(&error))?;
        let fresh_for = freshness::lifetime(&fetched.headers, SystemTime::now());
        if fetched.status == StatusCode::NOT_MODIFIED && !conditions.is_empty() {
            return Ok(Answer { body: None, fresh_for, validators: Validators::default() });
        }
        if fetched.status != StatusCode::OK {
            return Err((Outcome::Status, format!("the answer was {}", fetched.status)));
        }
        if fetched.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err((Outcome::Invalid, "the answer is packed, which was not asked for".into()));
        }
        if !is_json(&fetched.headers) {
            return Err((Outcome::Invalid, "the answer's Content-Type is not JSON".into()));
        }
        Ok(Answer { body: Some(fetched.body), fresh_for, validators: Validators::of(&fetched.headers) })
    }
}

struct Answer {
    /// `None`: the same as before
    body: Option<Bytes>,
    fresh_for: Option<Duration>,
    validators: Validators,
}

fn failure(error: &FetchError) -> Failure {
    let outcome = match error {
        FetchError::TimedOut => Outcome::Timeout,
        FetchError::TooLarge => Outcome::TooLarge,
        FetchError::Forbidden | FetchError::Unreachable(_) | FetchError::Broken(_) => Outcome::Unreachable,
    };
    (outcome, error.to_string())
}

/// "Not modified" to whoever had nothing to compare with.
fn unasked() -> Failure {
    (Outcome::Status, "the answer was 304 Not Modified to a question without conditions".into())
}

/// The address of the keys in a document that is about this issuer.
fn keys_at(document: &[u8], issuer: &str) -> Result<Uri, &'static str> {
    let document = json::object(document).ok_or("is not one JSON object with distinct members")?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err("is about another issuer");
    }
    let uri: Option<Uri> = document.get("jwks_uri").and_then(Value::as_str).and_then(|uri| uri.parse().ok());
    uri.filter(is_fetchable).ok_or("has no jwks_uri that can be fetched, https or http to a loopback address")
}

/// `application/json`, `application/jwk-set+json` and relatives; a server that says nothing is believed.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.example.com";

    #[test]
    fn json_is_told_by_its_type() {
        let read = |value: Option<&'static str>| {
            is_json(&value.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value))).into_iter().collect())
        };
        for value in ["application/json", "application/jwk-set+json", "Application/JSON; charset=utf-8"] {
            assert!(read(Some(value)), "{value}");
        }
        assert!(read(None));
        for value in ["text/html", "", "application/jsonp", "text/plain"] {
            assert!(!read(Some(value)), "{value}");
        }
    }

    #[test]
    fn a_document_is_believed_about_its_own_issuer_alone() {
        let of =
            |issuer: Value| keys_at(json!({"issuer": issuer, "jwks_uri": "https://k/"}).to_string().as_bytes(), ISSUER);
        assert_eq!(of(json!(ISSUER)), Ok(Uri::from_static("https://k/")));
        for issuer in [json!("https://id.example.com/"), json!("https://ID.example.com"), json!(null), json!([ISSUER])]
        {
            assert_eq!(of(issuer.clone()), Err("is about another issuer"), "{issuer}");
        }
        let twice = format!(r#"{{"issuer":"{ISSUER}","issuer":"{ISSUER}","jwks_uri":"https://k/"}}"#);
        assert!(keys_at(twice.as_bytes(), ISSUER).is_err());
    }

    #[test]
    fn keys_are_where_they_can_be_fetched_safely() {
        let of = |uri: Value| keys_at(json!({"issuer": ISSUER, "jwks_uri": uri}).to_string().as_bytes(), ISSUER);
        for uri in ["https://elsewhere.example/keys?x", "http://127.0.0.1:8080/keys", "http://[::1]/keys"] {
            assert_eq!(of(json!(uri)), Ok(Uri::from_static(uri)));
        }
        for uri in [
            json!(null),
            json!(7),
            json!(""),
            json!("/keys"),
            json!("http://elsewhere.example/keys"),
            json!("http://10.0.0.1/keys"),
            json!("https://me:secret@elsewhere.example/keys"),
            json!("file:///etc/passwd"),
            json!("https://a b/"),
        ] {
            of(uri.clone()).map(drop).expect_err(&uri.to_string());
        }
    }

    proptest! {
        #[test]
        fn any_document_is_read_or_refused(text in ".{0,80}", uri in "[a-z0-9:/@.#?-]{0,40}") {
            let _ = keys_at(text.as_bytes(), ISSUER);
            let document = json!({"issuer": ISSUER, "jwks_uri": uri}).to_string();
            if let Ok(uri) = keys_at(document.as_bytes(), ISSUER) {
                prop_assert!(is_fetchable(&uri));
            }
        }
    }
}
