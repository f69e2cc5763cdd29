//! Whether a token is what it claims to be: signature, issuer, audience, time and required claims.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::key::{Material, NoKey};
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
    audience: Vec<String>,
    /// Nothing else is accepted. One validation an algorithm, since the library wants all algorithms of one call to be of
    /// one family; none where it lacks the algorithm
    algorithms: Vec<(Algorithm, Option<Validation>)>,
    token_type: Option<String>,
    required: Vec<Claim>,
    leeway: u64,
}

impl Verifier {
    pub(super) fn new(name: &Name, spec: &Jwt) -> Self {
        let leeway = spec.leeway.as_secs();
        let validation = |algorithm: Algorithm| {
            let mut validation = Validation::new(library(algorithm)?);
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            validation.set_issuer(&[&spec.issuer]);
            validation.set_audience(&spec.audience);
            validation.validate_exp = true;
            validation.validate_nbf = true;
            validation.validate_aud = true;
            validation.leeway = leeway;
            Some(validation)
        };
        Self {
            name: Arc::clone(name),
            issuer: spec.issuer.clone(),
            audience: spec.audience.clone(),
            algorithms: spec.algorithms.iter().map(|algorithm| (*algorithm, validation(*algorithm))).collect(),
            token_type: spec.token_type.clone(),
            required: spec.required_claims.clone(),
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
        if !self.algorithms.iter().any(|(algorithm, _)| *algorithm == token.algorithm) {
            return Err(Refused::Invalid("an algorithm that this provider does not use"));
        }
        if self.token_type.is_some() && self.token_type != token.media_type {
            return Err(Refused::Invalid("another typ"));
        }
        Ok(())
    }

    /// The whole verification: when it succeeds, the token's claims are true until its lifetime ends.
    pub(super) fn verify(&self, token: &Token<'_>, keys: &Loaded, wall: SystemTime) -> Result<Lifetime, Refused> {
        self.concerns(token)?;
        let validation = self.algorithms.iter().find(|(algorithm, _)| *algorithm == token.algorithm);
        let (_, validation) = validation.ok_or(Refused::Invalid("an algorithm that this provider does not use"))?;
        let mut refused = Refused::Invalid("no key fits its algorithm");
        let picked = keys.set.pick(token.algorithm, token.key_id.as_deref()).map_err(|no_key| match no_key {
            NoKey::Unknown => Refused::UnknownKey { generation: keys.generation },
            NoKey::OfAnotherAlgorithm => Refused::Invalid("the key it names is for another algorithm"),
        });
        let (message, signature) = token.text.rsplit_once('.').ok_or(Refused::Invalid("not three segments"))?;
        for key in picked? {
            let verdict = match (key.material(), validation) {
                (Material::Library(key), Some(validation)) => by_library(token, key, validation),
                (Material::P521(key), _) => by_p521(message, signature, key),
                (Material::Library(_), None) => Err(Refused::Invalid("no key fits its algorithm")),
            };
            match verdict {
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

    /// `aud` is a text or a list of texts (RFC 7519 section 4.1.3).
    fn is_for_us(&self, claims: &Map<String, Value>) -> bool {
        match claims.get("aud") {
            Some(Value::String(one)) => self.audience.contains(one),
            Some(Value::Array(all)) => {
                let is_ours = |one: &Value| one.as_str().is_some_and(|one| self.audience.iter().any(|our| our == one));
                all.iter().all(Value::is_string) && all.iter().any(is_ours)
            }
            _ => false,
        }
    }

    /// What is not about time. The library has looked at some of it; but not for every algorithm.
    fn check_claims(&self, claims: &Arc<Map<String, Value>>) -> Result<(), Refused> {
        if !self.is_for_us(claims) {
            return Err(Refused::Invalid("another audience"));
        }
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

/// ES512 (RFC 7518 section 3.4): two numbers of 66 bytes each, and no other length.
pub(super) fn by_p521(message: &str, signature: &str, key: &ParsedPublicKey) -> Result<(), Refused> {
    let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|signature| signature.len() == 132);
    let verified = signature.and_then(|signature| key.verify_sig(message.as_bytes(), &signature).ok());
    verified.ok_or(Refused::Invalid(BAD_SIGNATURE))
}

/// What the library says: signature first, then exp, nbf, iss and aud.
fn by_library(token: &Token<'_>, key: &DecodingKey, validation: &Validation) -> Result<(), Refused> {
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

/// The library's name of an algorithm; it has all but one.
fn library(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    Some(match algorithm {
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
        Algorithm::ES512 => return None,
    })
}
