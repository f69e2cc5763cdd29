//! `type = "basic"`: people who are known by a password (RFC 7617).
//!
//! A password is guessed, so its hash takes long to compute, and a request carries it each time. Hence three rules.
//! Hashes are computed on threads of their own, few at once, behind a door with a short queue (`door`): whoever floods us
//! with passwords makes others wait for a bounded time, and requests that need no hash not at all. What was verified is
//! remembered for a while, and so is what was refused, so that a client that repeats a mistake costs one hash and not
//! thousands. And a user who does not exist costs what one who does would.
//!
//! What is remembered is an HMAC of the pair by a key that was drawn when this version of the file was loaded and is
//! nowhere but in this process: a dump of the memory is no list of quickly computed hashes.

mod credentials;
mod door;
mod password;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::{Map, Value};

pub use self::credentials::Credentials;
use self::door::Door;
use super::cache::{Cache, Fingerprint};
use super::call::{Call, Presented};
use super::inherited::Inherited;
use super::lifetime::Lifetime;
use super::{Claims, Refused};
use crate::config::{BasicAuth, Name, Problem};

/// One version of the file, one cache: no other generation is ever in it.
const GENERATION: u64 = 1;
/// For how long a pair that was refused is refused again unseen.
const REMEMBER_REFUSED: Duration = Duration::from_secs(30);
const REFUSED: &str = "a wrong name or password";

/// The users of one file.
#[derive(Debug)]
pub(super) struct Basic {
    name: Name,
    spec: BasicAuth,
    /// Of each user of `spec`
    claims: Box<[Claims]>,
    key: hmac::Key,
    verified: Cache,
    /// Empty claims; that they are here says all
    refused: Cache,
    door: Inherited<Arc<Door>>,
}

impl Basic {
    /// # Errors
    /// The system has no randomness.
    pub(super) fn build(name: &Name, spec: &BasicAuth) -> Result<Self, Problem> {
        let random = |_| Problem::new("", "the system has no randomness");
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).map_err(random)?;
        if spec.users.is_empty() {
            log::warn!("auth {name}: {} has no users, so it lets nobody in", spec.file.display());
        }
        let claims = spec.users.iter().map(|user| claims(&user.name)).collect();
        Ok(Self {
            name: name.clone(),
            spec: spec.clone(),
            claims,
            key,
            verified: Cache::new(),
            refused: Cache::new(),
            door: Inherited::new(Arc::new(Door::new())),
        })
    }

    /// Those who compute for an earlier version still do.
    pub(super) fn inherit(&self, previous: &Self) {
        self.door.inherit(&previous.door);
    }

    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn remembered(&self) -> usize {
        self.verified.len()
    }

    pub(super) fn realm(&self) -> &str {
        &self.spec.realm
    }

    /// What is remembered of the pair.
    pub(super) fn recall(
        &self,
        presented: Option<&Presented<'_>>,
        wall: SystemTime,
    ) -> Option<Result<Claims, Refused>> {
        let Some(presented) = presented else { return Some(Err(Refused::Missing)) };
        self.find(self.mark(presented.text()), wall)
    }

    fn find(&self, mark: Fingerprint, wall: SystemTime) -> Option<Result<Claims, Refused>> {
        if let Some(Ok(claims)) = self.verified.find(mark, GENERATION, wall) {
            return Some(Ok(claims));
        }
        let refused = matches!(self.refused.find(mark, GENERATION, wall), Some(Ok(_)));
        refused.then_some(Err(Refused::Invalid(REFUSED)))
    }

    /// Base64 has one form here, so its text stands for the pair.
    fn mark(&self, text: &str) -> Fingerprint {
        let tag = hmac::sign(&self.key, text.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Fingerprint::from_bytes(bytes)
    }

    /// Verifies the pair, and remembers what came of it.
    pub(super) async fn verify(&self, call: &Call<'_>) -> Result<Claims, Refused> {
        let presented = call.presented.as_ref().ok_or(Refused::Missing)?;
        let verdict = self.judge(presented.text(), call).await;
        match verdict {
            Err(Refused::Invalid(why)) => log::debug!("auth {}: a password is refused: {why}", self.name),
            Err(Refused::Unavailable) => log::debug!("auth {}: too many passwords wait to be verified", self.name),
            _ => {}
        }
        verdict
    }

    async fn judge(&self, text: &str, call: &Call<'_>) -> Result<Claims, Refused> {
        let credentials = Credentials::parse(text).map_err(Refused::Invalid)?;
        let (index, is_user) = self.whose_hash(&credentials.user).ok_or(Refused::Invalid("there are no users"))?;
        let place = self.door.get().queue(&credentials.user, call.request.client).ok_or(Refused::Unavailable)?;
        let place = place.admitted().await.ok_or(Refused::Unavailable)?;
        let mark = self.mark(text);
        // The same pair may have been in front of us.
        if let Some(verdict) = self.find(mark, call.wall) {
            return verdict;
        }
        let users = Arc::clone(&self.spec.users);
        let password = credentials.password;
        let fits = tokio::task::spawn_blocking(move || {
            // Until the hash is computed, whether or not anybody still waits for it.
            let _place = place;
            users.get(index).is_some_and(|user| password::fits(&user.hash, &password))
        });
        let fits = fits.await.map_err(|_| Refused::Unavailable)?;
        match self.claims.get(index).filter(|_| fits && is_user) {
            Some(claims) => {
                if let Some(remember) = self.spec.remember {
                    self.verified.remember(mark, GENERATION, lifetime(call.wall, remember), claims);
                }
                Ok(Claims::clone(claims))
            }
            None => {
                let nothing = Claims::default();
                self.refused.remember(mark, GENERATION, lifetime(call.wall, REMEMBER_REFUSED), &nothing);
                Err(Refused::Invalid(REFUSED))
            }
        }
    }

    /// Against which user's hash the password is judged, and whether that is the user's own.
    ///
    /// For a name that nobody has it is the hash of somebody, always the same for one name: the answer takes as long as
    /// for a name that there is, and is no.
    fn whose_hash(&self, user: &str) -> Option<(usize, bool)> {
        let found = self.spec.users.binary_search_by(|known| (*known.name).cmp(user));
        let [a, b, c, d, ..] = *self.mark(user).bytes();
        let anybody = (u32::from_be_bytes([a, b, c, d]) as usize).checked_rem(self.spec.users.len())?;
        Some((found.unwrap_or(anybody), found.is_ok()))
    }
}

fn claims(user: &str) -> Claims {
    Arc::new(Map::from_iter([("sub".to_owned(), Value::from(user))]))
}

fn lifetime(wall: SystemTime, remember: Duration) -> Lifetime {
    let now = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    Lifetime::new(now, now.saturating_add(remember.as_secs()))
}

#[cfg(test)]
mod tests;
