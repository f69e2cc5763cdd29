//! One `[auth.NAME]`: its keys, its rules and the tokens it remembers.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value};

use super::cache::{Cache, Fingerprint};
use super::counters::{Counters, Counts};
use super::keyring::Keyring;
use super::refresh;
use super::remote::{Owner, Pace};
use super::token::Token;
use super::verify::Verifier;
use super::{Refused, Task};
use crate::config::{self, Jwt, Name, Problem, TokenSource};

/// A way of knowing who calls.
#[derive(Debug)]
pub struct Authenticator {
    name: Name,
    spec: Jwt,
    verifier: Verifier,
    cache: Cache,
    own: Lineage,
    /// Set at most once, before anything is asked
    inherited: OnceLock<Lineage>,
}

/// What the successive versions of one `auth` have in common.
#[derive(Clone, Debug)]
struct Lineage {
    counters: Arc<Counters>,
    keyring: Arc<Keyring>,
}

impl Authenticator {
    /// Builds it from its configuration. Paths of problems are relative to `[auth.NAME]`.
    ///
    /// Fetches nothing and starts nothing: keys behind a URL are there when [`tasks`](Self::tasks) run.
    ///
    /// # Errors
    /// Keys that cannot be used, or do not fit the algorithms.
    pub fn build(name: &Name, spec: &config::Auth) -> Result<Self, Problem> {
        Self::with_pace(name, spec, Pace::USUAL)
    }

    pub(super) fn with_pace(name: &Name, spec: &config::Auth, pace: Pace) -> Result<Self, Problem> {
        let config::Auth::Jwt(spec) = spec;
        let keyring = Arc::new(Keyring::build(name, spec, pace)?);
        Ok(Self {
            name: Arc::clone(name),
            verifier: Verifier::new(name, spec),
            spec: spec.clone(),
            cache: Cache::new(),
            own: Lineage { counters: Arc::default(), keyring },
            inherited: OnceLock::new(),
        })
    }

    /// Goes on with what an earlier version of this `auth` has counted, and with its keys if they come from the same
    /// place. To be called once, before [`tasks`](Self::tasks).
    pub fn inherit(&self, previous: &Self) {
        let old = previous.lineage();
        let keyring = if previous.spec.keys == self.spec.keys { &old.keyring } else { &self.own.keyring };
        let lineage = Lineage { counters: Arc::clone(&old.counters), keyring: Arc::clone(keyring) };
        // A second time changes nothing: there is one line of descent.
        let _ = self.inherited.set(lineage);
    }

    /// What runs in the background for it: one task where keys are fetched. It holds the keys weakly and ends when they
    /// are gone, or when the task of a later version is at work.
    pub fn tasks(self: &Arc<Self>) -> Vec<Task> {
        let Lineage { counters, keyring } = self.lineage();
        let owner = Owner::new(keyring);
        owner.map(|owner| Box::pin(refresh::follow(owner, Arc::clone(counters))) as Task).into_iter().collect()
    }

    /// Waits for the first keys, but not for long. To be awaited, with the tasks running, before calling the first
    /// requests in.
    pub async fn settled(&self) {
        if let Some(remote) = self.lineage().keyring.source() {
            remote.first().await;
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What was counted, since the process started, and what is held now.
    pub fn counts(&self) -> Counts {
        let Lineage { counters, keyring } = self.lineage();
        let remote = keyring.source();
        Counts {
            decisions: counters.decisions(),
            refreshes: remote.map(|_| counters.refreshes()).unwrap_or_default(),
            jwks_age: remote.and_then(|remote| remote.age(Instant::now())),
            keys: keyring.current().as_ref().map_or(0, |loaded| loaded.set.len()),
            remembered: self.cache.len(),
        }
    }

    pub(super) fn spec(&self) -> &Jwt {
        &self.spec
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.lineage().counters
    }

    /// What carried an accepted token, unless it is to be passed on.
    pub(super) fn carried_by(&self, source: &TokenSource) -> Option<TokenSource> {
        (!self.spec.forward_token).then(|| source.clone())
    }

    /// What is remembered of a token.
    pub(super) fn recall(
        &self,
        token: Fingerprint,
        wall: SystemTime,
    ) -> Option<Result<Arc<Map<String, Value>>, Refused>> {
        let keys = self.lineage().keyring.current();
        self.cache.find(token, keys.as_ref()?.generation, wall)
    }

    /// Verifies a token with the keys of this moment, and remembers it. Says which generation of keys judged, 0 for none.
    pub(super) fn verify(
        &self,
        token: &Token<'_>,
        fingerprint: Fingerprint,
        wall: SystemTime,
    ) -> (u64, Result<(), Refused>) {
        if let Err(refused) = self.verifier.concerns(token) {
            return (0, Err(refused));
        }
        let keys = self.lineage().keyring.current();
        let Some(keys) = keys.as_ref() else { return (0, Err(Refused::Unavailable)) };
        let verdict = self.verifier.verify(token, &keys.set, wall);
        if let Ok(lifetime) = verdict {
            self.cache.remember(fingerprint, keys.generation, lifetime, &token.claims);
        }
        (keys.generation, verdict.map(drop))
    }

    /// Asks for newer keys than those of `generation`, and waits a moment for them. False when there are none.
    pub(super) async fn newer_keys(&self, generation: u64) -> bool {
        let keyring = &self.lineage().keyring;
        let newer = || keyring.current().as_ref().is_some_and(|loaded| loaded.generation != generation);
        let Some(remote) = keyring.source() else { return false };
        // Somebody else may have asked between our look at the keys and now.
        if !newer() {
            remote.newer().await;
        }
        newer()
    }

    fn lineage(&self) -> &Lineage {
        self.inherited.get().unwrap_or(&self.own)
    }
}
