//! JSON Web Key Sets (RFC 7517, RFC 7518 section 6, RFC 8037 section 2), read strictly.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::key::{Key, KeySet};
use super::token::algorithm_named;

/// Most keys in one set.
const MAX_KEYS: usize = 100;
/// Members of private and symmetric keys. A key that has been published with them is nobody's secret any more.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A set, and the keys of it that are left out.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) set: KeySet,
    pub(super) skipped: Vec<Skipped>,
}

/// A key that is not used, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    /// `kid`, as far as it is worth showing
    pub(super) id: String,
    pub(super) why: &'static str,
}

/// Reads a set. One key that cannot be used does not spoil the others, since sets serve encryption too; a set without
/// any is an error.
pub(super) fn read(bytes: &[u8]) -> Result<Read, String> {
    let document = json::object(bytes).ok_or("it is not one JSON object with distinct members")?;
    let Some(Value::Array(keys)) = document.get("keys") else {
        return Err("it has no list \"keys\"".into());
    };
    if keys.len() > MAX_KEYS {
        return Err(format!("it has more than {MAX_KEYS} keys"));
    }
    let mut usable = Vec::new();
    let mut skipped = Vec::new();
    for jwk in keys {
        match key(jwk) {
            Ok(key) => usable.push(key),
            Err(why) => skipped.push(Skipped { id: shown(jwk), why }),
        }
    }
    let found = usable.len();
    let set = KeySet::named(usable);
    if set.len() < found {
        skipped.push(Skipped { id: "several".into(), why: "two keys have one kid: neither is used" });
    }
    if set.is_empty() {
        let why = skipped.first().map_or(String::new(), |one| format!(" (key {}: {})", one.id, one.why));
        return Err(format!("it has no key that can be used{why}"));
    }
    Ok(Read { set, skipped })
}

fn shown(jwk: &Value) -> String {
    let id = jwk.get("kid").and_then(Value::as_str).unwrap_or("without kid");
    id.escape_debug().take(40).collect()
}

fn key(jwk: &Value) -> Result<Key, &'static str> {
    let jwk = jwk.as_object().ok_or("not an object")?;
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err("a kid that is no text"),
    };
    let key_type = jwk.get("kty").and_then(Value::as_str).ok_or("no kty")?;
    if key_type == "oct" {
        return Err("a shared secret: write it as secret or secret_file");
    }
    if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
        return Err("a private key");
    }
    verifies(jwk)?;
    let curve = jwk.get("crv").map(|curve| curve.as_str().unwrap_or_default());
    let key = match (key_type, curve) {
        ("RSA", None) => Key::rsa(&member(jwk, "n")?, &member(jwk, "e")?)?,
        ("EC", Some("P-256")) => Key::p256(&point(jwk)?)?,
        ("EC", Some("P-384")) => Key::p384(&point(jwk)?)?,
        ("EC", Some("P-521")) => Key::p521(&point(jwk)?)?,
        ("OKP", Some("Ed25519")) => Key::ed25519(&member(jwk, "x")?)?,
        _ => return Err("a kty and crv that no algorithm uses"),
    };
    let only = match jwk.get("alg") {
        None => None,
        Some(name) => {
            let algorithm = name.as_str().and_then(algorithm_named).ok_or("an alg that is not supported")?;
            Some(algorithm)
                .filter(|algorithm| key.fits(*algorithm))
                .ok_or("an alg that its kty or crv does not fit")?
                .into()
        }
    };
    Ok(key.named(id, only))
}

/// `use` and `key_ops` must allow to verify (RFC 7517 sections 4.2 and 4.3).
fn verifies(jwk: &Map<String, Value>) -> Result<(), &'static str> {
    if jwk.get("use").is_some_and(|usage| usage != "sig") {
        return Err("a use other than sig");
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(_) => Err("key_ops without verify"),
    }
}

fn member(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or("a member of the key is missing")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member of the key is not base64url in its one form")
}

/// Coordinates have the full length of the curve each (RFC 7518 section 6.2.1.2), so the point's length says it all.
fn point(jwk: &Map<String, Value>) -> Result<Vec<u8>, &'static str> {
    let (x, y) = (member(jwk, "x")?, member(jwk, "y")?);
    if x.len() != y.len() {
        return Err("not a point of its curve");
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Algorithm;

    /// RFC 8037 appendix A.2
    fn ed25519() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"})
    }

    /// RFC 7515 appendix A.3
    fn p256() -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
        })
    }

    fn changed(key: Value, name: &str, value: Value) -> Value {
        let mut key = key;
        key[name] = value;
        key
    }

    fn read_keys(keys: &[Value]) -> Result<Read, String> {
        read(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn why_not(key: &Value) -> &'static str {
        super::key(key).map(drop).expect_err("refused")
    }

    #[test]
    fn members_that_mean_nothing_here_do_no_harm() {
        let key = json!({
            "use": "sig", "key_ops": ["sign", "verify"], "alg": "EdDSA", "x5t": "x", "x5u": "https://evil.example", "nbf": 1
        });
        let mut whole = ed25519();
        whole.as_object_mut().expect("an object").extend(key.as_object().expect("an object").clone());
        let read = read_keys(&[whole]).expect("a set");
        assert!(read.set.serves(Algorithm::EdDSA) && read.skipped.is_empty());
    }

    #[test]
    fn a_key_that_is_not_for_verifying_is_refused() {
        for (name, value, why) in [
            ("use", json!("enc"), "a use other than sig"),
            ("use", json!(null), "a use other than sig"),
            ("key_ops", json!(["sign"]), "key_ops without verify"),
            ("key_ops", json!([]), "key_ops without verify"),
            ("key_ops", json!("verify"), "key_ops without verify"),
            ("alg", json!("RS256"), "an alg that its kty or crv does not fit"),
            ("alg", json!("ES256"), "an alg that its kty or crv does not fit"),
            ("alg", json!("HS256"), "an alg that its kty or crv does not fit"),
            ("alg", json!("ECDH-ES"), "an alg that is not supported"),
            ("alg", json!("none"), "an alg that is not supported"),
            ("alg", json!(7), "an alg that is not supported"),
            ("kid", json!(7), "a kid that is no text"),
        ] {
            assert_eq!(why_not(&changed(ed25519(), name, value.clone())), why, "{name} {value}");
        }
    }

    #[test]
    fn shared_secrets_and_private_keys_are_refused() {
        let oct = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"});
        assert!(why_not(&oct).starts_with("a shared secret"));
        for member in PRIVATE {
            assert_eq!(why_not(&changed(ed25519(), member, json!("AAAA"))), "a private key", "{member}");
        }
    }

    #[test]
    fn a_kty_and_crv_that_do_not_belong_together_are_refused() {
        for (kty, crv) in [
            (json!("RSA"), json!("Ed25519")),
            (json!("EC"), json!("Ed25519")),
            (json!("EC"), json!("secp256k1")),
            (json!("EC"), json!(null)),
            (json!("OKP"), json!("X25519")),
            (json!("OKP"), json!("Ed448")),
            (json!("ec"), json!("P-256")),
        ] {
            let key = changed(changed(ed25519(), "kty", kty), "crv", crv);
            assert_eq!(why_not(&key), "a kty and crv that no algorithm uses", "{key}");
        }
        assert_eq!(why_not(&changed(ed25519(), "kty", json!(null))), "no kty");
        assert_eq!(why_not(&json!("key")), "not an object");
    }

    #[test]
    fn key_material_has_its_one_form_and_length() {
        let off = "a member of the key is not base64url in its one form";
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        for (x, why) in [
            (format!("{x}="), off),
            (x.replace('U', "V"), off),
            (x.replace('3', "+"), off),
            (String::new(), "not a point of its curve"),
            (format!("AAAA{x}"), "not a point of its curve"),
            ("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0".into(), "not a point of its curve"),
        ] {
            assert_eq!(why_not(&changed(p256(), "x", json!(x))), why);
        }
        assert_eq!(why_not(&changed(p256(), "y", json!(null))), "a member of the key is missing");
        assert_eq!(why_not(&json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})), "an RSA key of less than 2048 bits");
    }

    #[test]
    fn one_bad_key_spoils_no_other() {
        let read = read_keys(&[p256(), changed(ed25519(), "use", json!("enc"))]).expect("a set");
        assert_eq!(read.set.len(), 1);
        assert_eq!(read.skipped, [Skipped { id: "a".into(), why: "a use other than sig" }]);
    }

    #[test]
    fn two_keys_of_one_kid_are_both_left_out_and_it_is_said() {
        let twin = changed(p256(), "kid", json!("a"));
        let read = read_keys(&[ed25519(), twin.clone(), p256()]).expect("a set");
        assert_eq!((read.set.len(), read.skipped.len()), (1, 1));
        assert!(read_keys(&[ed25519(), twin]).expect_err("none left").contains("one kid"));
    }

    #[test]
    fn a_set_without_keys_is_no_set() {
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[1]}"#]
        {
            read(text.as_bytes()).map(drop).expect_err(text);
        }
        let why = read_keys(&vec![ed25519(); MAX_KEYS + 1]).expect_err("too many");
        assert!(why.contains("more than 100"), "{why}");
    }

    #[test]
    fn what_a_stranger_calls_a_key_is_shown_with_care() {
        let key = changed(changed(ed25519(), "kid", json!("\n\u{1b}[31m".repeat(30))), "use", json!("enc"));
        let why = read_keys(&[key]).expect_err("none left");
        assert!(why.len() < 120 && !why.contains(['\n', '\u{1b}']), "{why}");
    }
}
