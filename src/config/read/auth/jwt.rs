//! `type = "jwt"`.

use std::time::Duration;

use http::Uri;

use super::{file, value};
use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::{address, selector};
use crate::config::read::node::Node;
use crate::config::read::table::Table;
use crate::config::{Algorithm, Jwt, KeySource, Secret};

const MAX_AUDIENCES: usize = 64;
const MAX_CLAIMS: usize = 64;
/// More than this is a clock that is wrong, not one that is off.
const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// Exactly one of them, or `discovery = true`
const KEY_SOURCES: [&str; 6] = ["discovery_url", "jwks_url", "jwks_file", "public_key_file", "secret", "secret_file"];

const ALGORITHMS: [(&str, Algorithm); 13] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("ES512", Algorithm::ES512),
    ("EdDSA", Algorithm::EdDSA),
];

pub(super) fn jwt(table: &mut Table<'_>) -> Option<Jwt> {
    let issuer = table.required("issuer", "the \"iss\" that tokens must have", value::text);
    let audience = table.required("audience", "the \"aud\" that tokens must have, any of a list", |node| {
        node.some(MAX_AUDIENCES, "a token is always for somebody", value::text)
    });
    let discovery = discovery(table, issuer.as_deref());
    let key_node = table.one_of(&KEY_SOURCES);
    if let (Discovery::Wanted(_), Some((key, node))) = (&discovery, &key_node) {
        node.problem_of_key(format!("\"discovery\" finds the keys already: leave it out, or \"{key}\""));
    }
    let is_found = matches!(discovery, Discovery::Wanted(_));
    let keys = match discovery {
        Discovery::Wanted(found) => found.map(KeySource::Discovery),
        Discovery::Unwanted => key_node.as_ref().and_then(|(key, node)| keys(key, node)),
    };
    let algorithms = table.required("algorithms", "nothing but what is listed here is accepted, [\"RS256\"]", |node| {
        let is_secret = key_node.as_ref().map(|(key, _)| key.starts_with("secret")).or(is_found.then_some(false));
        node.some(ALGORITHMS.len(), "nothing would be accepted", |item| algorithm(item, is_secret))
    });
    if key_node.is_none() && !is_found {
        table.node.problem(
            "the keys are missing: one of \"jwks_url\", \"jwks_file\", \"public_key_file\", \"secret\" and \"secret_file\", or \
             discovery = true",
        );
    }
    if let (Some((_, node)), Some(KeySource::Secret(secret)), Some(algorithms)) = (&key_node, &keys, &algorithms) {
        check_length(node, secret, algorithms);
    }
    let ca_file = table.optional("ca_file", |node| {
        if matches!(keys, Some(KeySource::JwksFile(_) | KeySource::PublicKey(_) | KeySource::Secret(_))) {
            node.problem_of_key("nothing is fetched here, so nobody has to be believed: leave it out");
            return None;
        }
        file::content(node)
    });
    let leeway = table.or("leeway", Duration::from_secs(30), |node| value::duration(node, MAX_LEEWAY));
    let token_type = table.optional("token_type", |node| node.parse(token_type));
    let required_claims = table.or("required_claims", Vec::new(), |node| {
        node.distinct(MAX_CLAIMS, |item| value::text(item).and_then(|_| item.parse(selector::claim)))
    });
    Some(Jwt {
        issuer: issuer?,
        audience: audience?,
        algorithms: algorithms?,
        keys: keys?,
        ca_file: ca_file?,
        leeway: leeway?,
        token_type: token_type?,
        required_claims: required_claims?,
    })
}

/// Whether the keys are to be found by the issuer's name.
enum Discovery {
    Unwanted,
    /// Nothing in it if that cannot be
    Wanted(Option<Uri>),
}

/// OpenID Connect Discovery 1.0 section 4: a slash at the issuer's end is taken away first.
fn discovery(table: &mut Table<'_>, issuer: Option<&str>) -> Discovery {
    let Some(node) = table.get("discovery") else { return Discovery::Unwanted };
    match node.boolean() {
        Some(false) => Discovery::Unwanted,
        None => Discovery::Wanted(None),
        Some(true) => Discovery::Wanted(issuer.and_then(|issuer| {
            let base = issuer.strip_suffix('/').unwrap_or(issuer);
            let found = address::fetch_url(&format!("{base}/.well-known/openid-configuration"));
            let found = found.ok().filter(|uri| uri.query().is_none());
            if found.is_none() {
                node.problem_of_key(
                    "the issuer is no address to fetch from, https (or http to a loopback address) without a query: \
                     write discovery_url",
                );
            }
            found
        })),
    }
}

fn keys(key: &str, node: &Node<'_>) -> Option<KeySource> {
    match key {
        "discovery_url" => node.parse(address::fetch_url).map(KeySource::Discovery),
        "jwks_url" => node.parse(address::fetch_url).map(KeySource::JwksUrl),
        "jwks_file" => file::content(node).map(KeySource::JwksFile),
        "public_key_file" => file::content(node).map(KeySource::PublicKey),
        "secret_file" => file::secret(node).map(KeySource::Secret),
        _ => node.parse(secret).map(KeySource::Secret),
    }
}

fn secret(text: &str) -> Result<Secret, Complaint> {
    if text.is_empty() { Err(Complaint::new("the secret is empty")) } else { Ok(Secret::new(text.as_bytes())) }
}

/// A shared secret fits HS* and nothing else does: a public key taken for a secret is how tokens are forged.
fn algorithm(node: &Node<'_>, is_secret: Option<bool>) -> Option<Algorithm> {
    if let Some(text) = node.text()
        && text.as_str().eq_ignore_ascii_case("none")
    {
        node.problem("a token without a signature proves nothing: \"none\" is never accepted");
        return None;
    }
    let algorithm = node.word(&ALGORITHMS, &[])?;
    match (is_secret, secret_bytes(algorithm).is_some()) {
        (Some(true), false) => {
            node.problem("a secret verifies HS256, HS384 and HS512 only; this one needs a public key")
        }
        (Some(false), true) => {
            node.problem("this needs \"secret\" or \"secret_file\"; public keys verify the other algorithms")
        }
        _ => return Some(algorithm),
    }
    None
}

/// The shortest secret an algorithm may have (RFC 7518 section 3.2).
fn secret_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}

fn check_length(node: &Node<'_>, secret: &Secret, algorithms: &[Algorithm]) {
    let needed = algorithms.iter().filter_map(|algorithm| secret_bytes(*algorithm)).max().unwrap_or(0);
    if secret.expose().len() < needed {
        node.problem(format!(
            "the secret is too short to be safe: these algorithms need {needed} bytes at least (RFC 7518 section 3.2)"
        ));
    }
}

/// A media type of `application` (RFC 7515 section 4.1.9), which may be left out: compared without it and whatever the case.
fn token_type(text: &str) -> Result<String, Complaint> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("application/").unwrap_or(&lower);
    // RFC 6838 section 4.2.
    let is_restricted = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    if name.is_empty() || name.len() > 127 || !name.bytes().all(is_restricted) {
        return Err(Complaint::new("this is not a type that a token can have: \"at+jwt\", \"JWT\""));
    }
    Ok(name.to_owned())
}
