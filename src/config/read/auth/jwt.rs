//! `type = "jwt"`.

use std::time::Duration;

use super::{file, value};
use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::address;
use crate::config::read::node::Node;
use crate::config::read::table::Table;
use crate::config::{Algorithm, Jwt, KeySource, Secret};

const MAX_AUDIENCES: usize = 64;
const MAX_CLAIMS: usize = 64;
/// More than this is a clock that is wrong, not one that is off.
const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);

const ALGORITHMS: [(&str, Algorithm); 12] = [
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
    ("EdDSA", Algorithm::EdDSA),
];

pub(super) fn jwt(table: &mut Table<'_>) -> Option<Jwt> {
    let issuer = table.required("issuer", "the \"iss\" that tokens must have", value::text);
    let audience = table.required("audience", "the \"aud\" that tokens must have, any of a list", |node| {
        node.some(MAX_AUDIENCES, "a token is always for somebody", value::text)
    });
    let key_node = table.one_of(&["jwks_url", "jwks_file", "public_key_file", "secret", "secret_file"]);
    let keys = key_node.as_ref().and_then(|(key, node)| keys(key, node));
    let algorithms = table.required("algorithms", "nothing but what is listed here is accepted, [\"RS256\"]", |node| {
        let is_secret = key_node.as_ref().map(|(key, _)| key.starts_with("secret"));
        node.some(ALGORITHMS.len(), "nothing would be accepted", |item| algorithm(item, is_secret))
    });
    if key_node.is_none() && !table.has("discovery") {
        table.node.problem(
            "the keys are missing: one of \"jwks_url\", \"jwks_file\", \"public_key_file\", \"secret\" and \"secret_file\"",
        );
    }
    if let (Some((_, node)), Some(KeySource::Secret(secret)), Some(algorithms)) = (&key_node, &keys, &algorithms) {
        check_length(node, secret, algorithms);
    }
    let leeway = table.or("leeway", Duration::from_secs(30), |node| value::duration(node, MAX_LEEWAY));
    let required_claims = table.or("required_claims", Vec::new(), |node| node.distinct(MAX_CLAIMS, required_claim));
    table.only("discovery", &false, Node::boolean);
    Some(Jwt {
        issuer: issuer?,
        audience: audience?,
        algorithms: algorithms?,
        keys: keys?,
        leeway: leeway?,
        required_claims: required_claims?,
    })
}

fn keys(key: &str, node: &Node<'_>) -> Option<KeySource> {
    match key {
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

fn required_claim(node: &Node<'_>) -> Option<String> {
    let name = value::text(node)?;
    if name.starts_with('/') {
        node.problem("a JSON Pointer here is not implemented yet: name a claim of the first level");
        return None;
    }
    Some(name)
}
