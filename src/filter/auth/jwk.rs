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
