//! `type = "jwt"`: JSON Web Tokens (RFC 7519, read as RFC 8725 says).
//!
//! A token is perhaps remembered, else taken apart strictly (`token`) and verified (`verify`) with a key (`keyring`).
//! What is refused is refused in one place each: the shape of a token in `token`, keys in `key`, `jwk` and `pem`, claims
//! in `verify`.

pub(super) mod json;

mod freshness;
mod jwk;
mod key;
mod keyring;
mod pem;
mod published;
mod refresh;
mod remote;
mod token;
mod verify;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use self::keyring::Keyring;
pub(super) use self::refresh::Outcome;
use self::remote::Owner;
pub(super) use self::remote::Pace;
pub(super) use self::token::Token;
use self::verify::Verifier;
use super::cache::{Cache, Fingerprint};
use super::counters::{Counters, Counts};
use super::inherited::Inherited;
use super::{Claims, Refused, Task};
use crate::config::{self, FileContent, KeySource, Name, Problem};

/// The keys and rules of one issuer, and its tokens that are remembered.
#[derive(Debug)]
pub(super) struct Jwt {
    name: Name,
    spec: config::Jwt,
    verifier: Verifier,
    cache: Cache,
    keyring: Inherited<Arc<Keyring>>,
}

impl Jwt {
    pub(super) fn build(name: &Name, spec: &config::Jwt, pace: Pace) -> Result<Self, Problem> {
        Ok(Self {
            name: Arc::clone(name),
            verifier: Verifier::new(name, spec),
            spec: spec.clone(),
            cache: Cache::new(),
            keyring: Inherited::new(Arc::new(Keyring::build(name, spec, pace)?)),
        })
    }

    /// Goes on with the keys of an earlier version, if they come from the same place.
    pub(super) fn inherit(&self, previous: &Self) {
        if place(&previous.spec) == place(&self.spec) {
            self.keyring.inherit(&previous.keyring);
        }
    }

    /// Where keys are fetched, what fetches them. It holds the keys weakly and ends when they are gone, or when the task
    /// of a later version is at work.
    pub(super) fn task(&self, counters: &Arc<Counters>) -> Option<Task> {
        let owner = Owner::new(self.keyring.get())?;
        Some(Box::pin(refresh::follow(owner, Arc::clone(counters))))
    }

    /// Waits for the first keys, but not for long.
    pub(super) async fn settled(&self) {
        if let Some(remote) = self.keyring.get().source() {
            remote.first().await;
        }
    }

    pub(super) fn count(&self, counters: &Counters, counts: &mut Counts) {
        let keyring = self.keyring.get();
        if let Some(remote) = keyring.source() {
            counts.refreshes = counters.refreshes();
            counts.jwks_age = remote.age(Instant::now());
        }
        counts.keys = Some(keyring.current().as_ref().map_or(0, |loaded| loaded.set.len()));
        counts.remembered = Some(self.cache.len());
    }

    pub(super) fn issuer(&self) -> &str {
        &self.spec.issuer
    }

    /// What is remembered of a token that the keys of this moment have verified.
    pub(super) fn recall(&self, token: Fingerprint, wall: SystemTime) -> Option<Result<Claims, Refused>> {
        let keys = self.keyring.get().current();
        self.cache.find(token, keys.as_ref()?.generation, wall)
    }

    /// Verifies a token with the keys of this moment, and remembers it.
    pub(super) fn verify(
        &self,
        token: Result<&Token<'_>, &'static str>,
        fingerprint: Fingerprint,
        wall: SystemTime,
    ) -> Result<Claims, Refused> {
        let verdict = token.map_err(Refused::Invalid).and_then(|token| self.judge(token, fingerprint, wall));
        if let Err(Refused::Invalid(why)) = verdict {
            log::debug!("auth {}: a token is refused: {why}", self.name);
        }
        verdict
    }

    fn judge(&self, token: &Token<'_>, fingerprint: Fingerprint, wall: SystemTime) -> Result<Claims, Refused> {
        self.verifier.concerns(token)?;
        let keys = self.keyring.get().current();
        let keys = keys.as_ref().ok_or(Refused::Unavailable)?;
        let lifetime = self.verifier.verify(token, keys, wall)?;
        self.cache.remember(fingerprint, keys.generation, lifetime, &token.claims);
        Ok(Arc::clone(&token.claims))
    }

    /// As if these keys had been fetched.
    #[cfg(test)]
    pub(super) fn rotate(&self, set: &str) {
        self.keyring.get().replace(jwk::read(set.as_bytes()).expect("a set").set);
    }

    /// Asks for newer keys than those of `generation`, and waits a moment for them. False when there are none.
    pub(super) async fn newer_keys(&self, generation: u64) -> bool {
        let keyring = self.keyring.get();
        let newer = || keyring.current().as_ref().is_some_and(|loaded| loaded.generation != generation);
        let Some(remote) = keyring.source() else { return false };
        // Somebody else may have asked between our look at the keys and now.
        if !newer() {
            remote.newer().await;
        }
        newer()
    }
}

/// Whether a text has the shape of a token, whoever may have signed it.
pub fn is_token(text: &str) -> bool {
    Token::parse(text).is_ok()
}

/// How many keys of a JWK set could verify tokens; `None` where there are none, or it is no such set.
pub fn usable_keys(set: &[u8]) -> Option<usize> {
    jwk::read(set).ok().map(|read| read.set.len())
}

/// All that decides which keys these are.
fn place(spec: &config::Jwt) -> (&KeySource, Option<&FileContent>, Option<&str>) {
    // A document of another issuer may name the same keys, and would have been refused.
    let issuer = matches!(spec.keys, KeySource::Discovery(_)).then_some(&*spec.issuer);
    (&spec.keys, spec.ca_file.as_ref(), issuer)
}

#[cfg(test)]
mod cookbook;
#[cfg(test)]
mod vectors;
