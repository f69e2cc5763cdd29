//! Tokens of many users, and the keys they are verified with.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::Failure;

/// Who is said to have issued them, and for whom.
pub(super) const ISSUER: &str = "https://id.bench.test";
pub(super) const AUDIENCE: &str = "bench";
/// What every user may do.
pub(super) const SCOPE: &str = "orders.read";
/// Users.
const USERS: usize = 1000;
/// Longer than any comparison takes.
const VALID_SECONDS: u64 = 86_400;

/// What a token is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    Hs256,
}

/// A token for each user, and what verifies them.
pub(super) struct Tokens {
    pub(super) key: Key,
    pub(super) all: Vec<String>,
}

/// What a token is verified with.
pub(super) enum Key {
    /// A file with a public key in PEM
    Public(PathBuf),
    Secret(String),
}

impl Algorithm {
    /// Its name in tokens and configurations.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Hs256 => "HS256",
        }
    }
}

impl Tokens {
    /// Makes a key, and a token for each user.
    pub(super) fn make(algorithm: Algorithm, directory: &Path) -> Result<Self, Failure> {
        let public = |pair: &rcgen::KeyPair| -> Result<Key, Failure> {
            let file = directory.join(format!("{}.public.pem", algorithm.name()));
            fs::write(&file, pair.public_key_pem())?;
            Ok(Key::Public(file))
        };
        let (key, signing, kind) = match algorithm {
            Algorithm::Rs256 => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
                let signing = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())?;
                (public(&pair)?, signing, jsonwebtoken::Algorithm::RS256)
            }
            Algorithm::Es256 => {
                let pair = rcgen::KeyPair::generate()?;
                let signing = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?;
                (public(&pair)?, signing, jsonwebtoken::Algorithm::ES256)
            }
            Algorithm::Hs256 => {
                // It guards nothing.
                let secret = "only-for-measuring-and-long-enough-for-SHA-256".to_owned();
                let signing = EncodingKey::from_secret(secret.as_bytes());
                (Key::Secret(secret), signing, jsonwebtoken::Algorithm::HS256)
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let token = |user: usize| {
            let claims = json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": format!("user-{user:04}"), "iat": now, "exp": now + VALID_SECONDS,
                "scope": format!("{SCOPE} orders.write"), "tenant": { "plan": "gold" },
            });
            jsonwebtoken::encode(&Header::new(kind), &claims, &signing)
        };
        Ok(Self { key, all: (0..USERS).map(token).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn each_user_has_a_token_that_the_key_verifies() {
        let directory = tempfile::tempdir().expect("a directory");
        for (algorithm, kind) in [
            (Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
            (Algorithm::Hs256, jsonwebtoken::Algorithm::HS256),
            (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
        ] {
            let tokens = Tokens::make(algorithm, directory.path()).expect("made");
            let key = match &tokens.key {
                Key::Secret(secret) => DecodingKey::from_secret(secret.as_bytes()),
                Key::Public(file) if algorithm == Algorithm::Rs256 => {
                    DecodingKey::from_rsa_pem(&fs::read(file).expect("read")).expect("a key")
                }
                Key::Public(file) => DecodingKey::from_ec_pem(&fs::read(file).expect("read")).expect("a key"),
            };
            let mut validation = Validation::new(kind);
            validation.set_audience(&[AUDIENCE]);
            let mut users = std::collections::BTreeSet::new();
            for token in &tokens.all {
                let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).expect("valid").claims;
                users.insert(claims["sub"].as_str().expect("text").to_owned());
            }
            assert_eq!(users.len(), USERS);
        }
    }
}
