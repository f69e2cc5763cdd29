//! Whether a token is what it claims to be: signature, issuer, audience, time and required claims.

use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::key::NoKey;
use super::keyring::Loaded;
use super::token::Token;
use crate::config::{Algorithm, Claim, Jwt, Name};
use crate::filter::Identity;
use crate::filter::auth::Refused;
use crate::filter::auth::lifetime::{Lifetime, seconds};

/// The rules of one provider.
#[derive(Debug)]
pub(super) struct Verifier {
    name: Name,
    issuer: String,
    /// One an algorithm, with nothing else accepted: the library wants all algorithms of one call to be of one family
    validations: Vec<(Algorithm, Validation)>,
    required: Vec<Claim>,
    leeway: u64,
}

impl Verifier {
    pub(super) fn new(name: &Name, spec: &Jwt) -> Self {
        let leeway = spec.leeway.as_secs();
        let validations = spec.algorithms.iter().map(|algorithm| {
            let mut validation = Validation::new(library(*algorithm));
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            validation.set_issuer(&[&spec.issuer]);
            validation.set_audience(&spec.audience);
            validation.validate_exp = true;
            validation.validate_nbf = true;
            validation.validate_aud = true;
            validation.leeway = leeway;
            (*algorithm, validation)
        });
        Self {
            name: Arc::clone(name),
            issuer: spec.issuer.clone(),
            validations: validations.collect(),
            required: spec.required_claims.iter().map(|name| claim(name)).collect(),
            leeway,
        }
    }

    /// Whether a token could be this provider's: nothing is proved yet, but no key can prove what is refused here. So a
    /// foreign token costs no signature check and makes nobody look for newer keys.
    pub(super) fn concerns(&self, token: &Token<'_>) -> Result<(), Refused> {
        // A list of issuers, which the library would take, is no issuer (RFC 7519 section 4.1.1).
        if token.claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(Refused::Invalid("another issuer"));
        }
        if !self.validations.iter().any(|(algorithm, _)| *algorithm == token.algorithm) {
            return Err(Refused::Invalid("an algorithm that this provider does not use"));
        }
        Ok(())
    }

    /// The whole verification: when it succeeds, the token's claims are true until its lifetime ends.
    pub(super) fn verify(&self, token: &Token<'_>, keys: &Loaded, wall: SystemTime) -> Result<Lifetime, Refused> {
        self.concerns(token)?;
        let validation = self.validations.iter().find(|(algorithm, _)| *algorithm == token.algorithm);
        let (_, validation) = validation.ok_or(Refused::Invalid("an algorithm that this provider does not use"))?;
        let mut refused = Refused::Invalid("no key fits its algorithm");
        let picked = keys.set.pick(token.algorithm, token.key_id.as_deref()).map_err(|no_key| match no_key {
            NoKey::Unknown => Refused::UnknownKey { generation: keys.generation },
            NoKey::OfAnotherAlgorithm => Refused::Invalid("the key it names is for another algorithm"),
        });
        for key in picked? {
            match signed(token, key.decoding(), validation) {
                Ok(()) => {
                    let lifetime = self.lifetime(&token.claims)?;
                    lifetime.check(wall)?;
                    self.check_claims(&token.claims)?;
                    return Ok(lifetime);
                }
                // Only the key that signed it gets as far as the claims.
                Err(Refused::Invalid(BAD_SIGNATURE)) => refused = Refused::Invalid(BAD_SIGNATURE),
                Err(other) => return Err(other),
            }
        }
        Err(refused)
    }

    fn lifetime(&self, claims: &Map<String, Value>) -> Result<Lifetime, Refused> {
        let ends = claims.get("exp").and_then(seconds).ok_or(Refused::Invalid("an exp that is no time"))?;
        let begins = match claims.get("nbf") {
            None => 0,
            Some(value) => seconds(value).ok_or(Refused::Invalid("an nbf that is no time"))?,
        };
        Ok(Lifetime::new(begins.saturating_sub(self.leeway), ends.saturating_add(self.leeway)))
    }

    fn check_claims(&self, claims: &Arc<Map<String, Value>>) -> Result<(), Refused> {
        // A subject that is no text would be no subject to whoever reads it, a limit for instance.
        if claims.get("sub").is_some_and(|subject| !subject.is_string()) {
            return Err(Refused::Invalid("a sub that is no text"));
        }
        let identity = Identity { auth: Arc::clone(&self.name), claims: Arc::clone(claims), carried_by: None };
        let has = |claim: &Claim| identity.claim(claim).is_some_and(|value| !value.is_null());
        if !self.required.iter().all(has) {
            return Err(Refused::Invalid("without a required claim"));
        }
        Ok(())
    }
}

const BAD_SIGNATURE: &str = "not signed by the key";

/// What the library says: signature first, then exp, nbf, iss and aud.
fn signed(token: &Token<'_>, key: &DecodingKey, validation: &Validation) -> Result<(), Refused> {
    match decode::<IgnoredAny>(token.text, key, validation) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            ErrorKind::ExpiredSignature => Refused::Expired,
            ErrorKind::InvalidSignature => Refused::Invalid(BAD_SIGNATURE),
            ErrorKind::ImmatureSignature => Refused::Invalid("not valid yet"),
            ErrorKind::InvalidAudience => Refused::Invalid("another audience"),
            ErrorKind::InvalidIssuer => Refused::Invalid("another issuer"),
            ErrorKind::MissingRequiredClaim(_) => Refused::Invalid("without exp, iss or aud"),
            ErrorKind::InvalidClaimFormat(_) => Refused::Invalid("an exp or nbf that is no time"),
            _ => Refused::Invalid("not a JWT that can be read"),
        }),
    }
}

/// A claim by the name in the configuration: one member, or a JSON Pointer (RFC 6901) after a leading `/`.
fn claim(name: &str) -> Claim {
    match name.strip_prefix('/') {
        Some(path) => {
            Claim::Pointer(path.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
        }
        None => Claim::Member(name.to_owned()),
    }
}

fn library(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::HS384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    }
}
