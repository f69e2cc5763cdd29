//! A token taken apart, before anything in it is believed (RFC 7515 section 5.2, RFC 7519 section 7.2).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use crate::config::Algorithm;

/// Longest token that is looked at.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A well-formed token. Nothing in it is true until `verify` says so.
#[derive(Debug)]
pub(in crate::filter::auth) struct Token<'a> {
    /// As it came
    pub(super) text: &'a str,
    /// One that exists; whether it is accepted is the provider's matter
    pub(super) algorithm: Algorithm,
    /// `kid`
    pub(super) key_id: Option<String>,
    /// `typ`, in lower case and without "application/"
    pub(super) media_type: Option<String>,
    /// The payload
    pub(super) claims: Arc<Map<String, Value>>,
}

impl<'a> Token<'a> {
    /// Takes `text` apart, or says what is wrong with it.
    ///
    /// Three segments of base64url in its one form (no padding, no stray bits, no whitespace), an object each in the
    /// first two. Headers that name keys (`jku`, `jwk`, `x5u`, `x5c`) are never followed: a token does not say what
    /// verifies it. `crit` is refused whatever it names, since we understand no extension (RFC 7515 section 4.1.11).
    pub(in crate::filter::auth) fn parse(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err("longer than 16 KiB");
        }
        let mut segments = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err("not three segments");
        };
        let header = json::object(&decode(header)?).ok_or("the header is not one JSON object with distinct members")?;
        if decode(signature)?.is_empty() {
            return Err("no signature");
        }
        if header.contains_key("crit") {
            return Err("crit names an extension");
        }
        // RFC 7797 section 6 wants it named by crit, and whoever does not know it would check another signature.
        if header.contains_key("b64") {
            return Err("b64 without crit");
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or("no alg")?;
        let algorithm = algorithm_named(algorithm).ok_or("an alg that is not supported")?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err("a kid that is no text"),
        };
        let media_type = media_type_in(&header, "typ")?;
        // Its payload would be a token again (RFC 7519 section 5.2), with claims of its own.
        if media_type_in(&header, "cty")?.is_some_and(|content| content == "jwt") {
            return Err("a token within a token");
        }
        let claims =
            json::object(&decode(payload)?).ok_or("the payload is not one JSON object with distinct members")?;
        Ok(Self { text, algorithm, key_id, media_type, claims: Arc::new(claims) })
    }
}

/// A media type as RFC 7515 section 4.1.9 has them compared: "application/" may be left out, and case does not count.
fn media_type_in(header: &Map<String, Value>, name: &str) -> Result<Option<String>, &'static str> {
    let lower = match header.get(name) {
        None => return Ok(None),
        Some(Value::String(text)) => text.to_ascii_lowercase(),
        Some(_) => return Err("a typ or cty that is no text"),
    };
    Ok(Some(match lower.strip_prefix("application/") {
        Some(short) if !short.contains('/') => short.to_owned(),
        _ => lower,
    }))
}

fn decode(segment: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| "not base64url in its one form")
}

/// The algorithm with exactly this name; `none` is nobody's.
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "ES512" => Algorithm::ES512,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.{}", encoded(header), encoded(payload), encoded("signature"))
    }

    fn flaw(text: &str) -> &'static str {
        Token::parse(text).expect_err("refused")
    }

    #[test]
    fn a_well_formed_token_is_taken_apart() {
        let text = token(r#"{"alg":"ES256","kid":"a","jku":"https://evil.example"}"#, r#"{"sub":"alice"}"#);
        let token = Token::parse(&text).expect("well-formed");
        assert_eq!((token.algorithm, token.key_id.as_deref()), (Algorithm::ES256, Some("a")));
        assert_eq!(token.claims["sub"], "alice");
    }

    #[test]
    fn only_three_segments_are_a_token() {
        for text in ["", ".", "..", "a.b", "e30.e30", "e30.e30.e30.e30", "e30.e30.e30.e30.e30"] {
            Token::parse(text).expect_err(text);
        }
        assert_eq!(flaw(&format!("{}.{}.", encoded(r#"{"alg":"HS256"}"#), encoded("{}"))), "no signature");
    }

    #[test]
    fn an_algorithm_that_is_none_unknown_or_spelt_otherwise_is_refused() {
        for alg in ["none", "None", "NONE", "", "hs256", "HS256 ", "ES256K", "RSA-OAEP", "dir"] {
            assert_eq!(flaw(&token(&format!(r#"{{"alg":"{alg}"}}"#), "{}")), "an alg that is not supported");
        }
        assert_eq!(flaw(&token("{}", "{}")), "no alg");
        assert_eq!(flaw(&token(r#"{"alg":null}"#, "{}")), "no alg");
        assert_eq!(flaw(&token(r#"{"alg":["HS256"]}"#, "{}")), "no alg");
    }

    #[test]
    fn crit_is_refused_whatever_it_names() {
        for crit in [r#"["exp"]"#, "[]", "null", r#"["b64"]"#] {
            let text = token(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#), "{}");
            assert_eq!(flaw(&text), "crit names an extension");
        }
    }

    #[test]
    fn a_payload_that_is_not_encoded_is_refused() {
        for b64 in ["false", "true", "null"] {
            assert_eq!(flaw(&token(&format!(r#"{{"alg":"HS256","b64":{b64}}}"#), "{}")), "b64 without crit");
        }
    }

    #[test]
    fn a_key_id_is_text() {
        assert_eq!(flaw(&token(r#"{"alg":"HS256","kid":7}"#, "{}")), "a kid that is no text");
        let text = token(r#"{"alg":"HS256","kid":""}"#, "{}");
        assert_eq!(Token::parse(&text).expect("well-formed").key_id.as_deref(), Some(""), "a name like any other");
    }

    #[test]
    fn types_are_compared_as_media_types() {
        let media_type = |typ: &str| {
            let text = token(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), "{}");
            Token::parse(&text).expect("well-formed").media_type
        };
        for (typ, expected) in [
            ("at+jwt", "at+jwt"),
            ("AT+JWT", "at+jwt"),
            ("application/at+jwt", "at+jwt"),
            ("Application/At+Jwt", "at+jwt"),
            ("application/a/b", "application/a/b"),
            ("", ""),
        ] {
            assert_eq!(media_type(typ).as_deref(), Some(expected));
        }
        assert_eq!(flaw(&token(r#"{"alg":"HS256","typ":["JWT"]}"#, "{}")), "a typ or cty that is no text");
    }

    #[test]
    fn a_token_within_a_token_is_refused() {
        for cty in ["JWT", "jwt", "application/JWT"] {
            assert_eq!(flaw(&token(&format!(r#"{{"alg":"HS256","cty":"{cty}"}}"#), "{}")), "a token within a token");
        }
        Token::parse(&token(r#"{"alg":"HS256","cty":"json"}"#, "{}")).expect("well-formed");
        let inner = token(r#"{"alg":"HS256"}"#, "{}");
        assert!(flaw(&token(r#"{"alg":"HS256"}"#, &inner)).contains("payload"));
    }

    #[test]
    fn members_named_twice_are_refused_in_header_and_payload() {
        flaw(&token(r#"{"alg":"HS256","alg":"RS256"}"#, "{}"));
        flaw(&token(r#"{"alg":"HS256"}"#, r#"{"sub":"alice","sub":"bob"}"#));
        flaw(&token(r#"{"alg":"HS256"}"#, r#"{"x":{"y":1,"y":2}}"#));
    }

    #[test]
    fn padding_stray_bits_whitespace_and_the_other_alphabet_are_refused() {
        let good = token(r#"{"alg":"HS256"}"#, "{}");
        Token::parse(&good).expect("well-formed");
        let (head, signature) = good.rsplit_once('.').expect("three segments");
        // The last character of a two-byte group carries two bits that must be zero.
        let stray = format!("{head}.{}", "e31");
        for text in [
            format!("{good}="),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}\n"),
            format!("{head}. {signature}"),
            format!("{head}.+/+/"),
            format!("{head}.A"),
            stray,
        ] {
            assert_eq!(flaw(&text), "not base64url in its one form", "{text:?}");
        }
    }

    #[test]
    fn a_token_over_16_kib_is_refused_unread() {
        assert_eq!(flaw(&"a".repeat(MAX_TOKEN_BYTES + 1)), "longer than 16 KiB");
        assert_ne!(flaw(&"a".repeat(MAX_TOKEN_BYTES)), "longer than 16 KiB");
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in "[ -~]{0,80}") {
            let _ = Token::parse(&text);
        }

        /// The cache hashes the text, so two texts must never be one token.
        #[test]
        fn no_other_text_is_the_same_token(signature in proptest::collection::vec(any::<u8>(), 1..70), at in 0usize..100, to in "[A-Za-z0-9_=+/ -]") {
            let text = format!("{}.e30.{}", encoded(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(&signature));
            let start = text.rfind('.').expect("three segments") + 1;
            let at = start + at % (text.len() - start);
            let mut other = text.clone();
            other.replace_range(at..=at, &to);
            prop_assume!(other != text);
            if Token::parse(&other).is_ok() {
                let decoded = URL_SAFE_NO_PAD.decode(&other[start..]).expect("parsed");
                prop_assert_ne!(decoded, signature);
            }
        }
    }
}
