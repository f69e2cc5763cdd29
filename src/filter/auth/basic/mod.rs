//! `type = "basic"`: people who are known by a password (RFC 7617).
//!
//! A password is guessed, so its hash takes long to compute, and a request carries it each time. Hence three rules.
//! Hashes are computed on threads of their own, few at once, behind a door with a short queue (`door`): whoever floods us
//! with passwords makes others wait for a bounded time, and requests that need no hash not at all. What was verified is
//! remembered for a while, and so is what was refused, and who asks the same at the same time waits for one answer
//! (`turn`): a client that repeats itself costs one hash and not thousands. And a user who does not exist costs what one who does would.
//!
//! What is remembered is an HMAC of the pair by a key that was drawn when this version of the file was loaded and is
//! nowhere but in this process: a dump of the memory is no list of quickly computed hashes.

mod credentials;
mod door;
mod password;
mod turn;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::{Map, Value};

pub use self::credentials::Credentials;
use self::door::Door;
use self::turn::{First, Turn, Turns};
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

/// The users of one file, and how they are verified.
#[derive(Debug)]
pub(super) struct Basic {
    name: Name,
    users: Arc<Users>,
    turns: Arc<Turns>,
    door: Inherited<Arc<Door>>,
}

/// What judging needs, also when nobody waits for the verdict any more.
#[derive(Debug)]
struct Users {
    spec: BasicAuth,
    /// Of each user of `spec`
    claims: Box<[Claims]>,
    key: hmac::Key,
    verified: Cache,
    /// Empty claims; that they are here says all
    refused: Cache,
}

impl Basic {
    /// # Errors
    /// The system has no randomness.
    pub(super) fn build(name: &Name, spec: &BasicAuth) -> Result<Self, Problem> {
        if spec.users.is_empty() {
            log::warn!("auth {name}: {} has no users, so it lets nobody in", spec.file.display());
        }
        Ok(Self {
            name: name.clone(),
            users: Arc::new(Users::build(spec)?),
            turns: Arc::default(),
            door: Inherited::new(Arc::new(Door::new())),
        })
    }

    /// Those who compute for an earlier version still do.
    pub(super) fn inherit(&self, previous: &Self) {
        self.door.inherit(&previous.door);
    }

    pub(super) fn len(&self) -> usize {
        self.users.claims.len()
    }

    pub(super) fn remembered(&self) -> usize {
        self.users.verified.len()
    }

    pub(super) fn realm(&self) -> &str {
        &self.users.spec.realm
    }

    /// What is remembered of the pair.
    pub(super) fn recall(
        &self,
        presented: Option<&Presented<'_>>,
        wall: SystemTime,
    ) -> Option<Result<Claims, Refused>> {
        let Some(presented) = presented else { return Some(Err(Refused::Missing)) };
        self.users.find(self.users.mark(presented.text()), wall)
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
        let pair = self.users.mark(text);
        loop {
            match self.turns.take(pair) {
                Turn::Ours(first) => return self.judge_for_all(first, credentials, pair, call).await,
                Turn::Theirs(answer) => {
                    if let Some(verdict) = answer.within(door::PATIENCE).await {
                        return verdict;
                    }
                }
            }
        }
    }

    async fn judge_for_all(
        &self,
        first: First,
        credentials: Credentials,
        pair: Fingerprint,
        call: &Call<'_>,
    ) -> Result<Claims, Refused> {
        let wall = call.wall;
        // Whoever was first before us may have answered since we looked.
        if let Some(verdict) = self.users.find(pair, wall) {
            first.answer(&verdict);
            return verdict;
        }
        let place = match self.door.get().queue(&credentials.user, call.request.client) {
            Some(place) => place.admitted().await,
            None => None,
        };
        let Some(place) = place else {
            let verdict = Err(Refused::Unavailable);
            first.answer(&verdict);
            return verdict;
        };
        let users = Arc::clone(&self.users);
        let judged = tokio::task::spawn_blocking(move || {
            let verdict = users.judge(&credentials, pair, wall);
            first.answer(&verdict);
            // Until the hash is computed, whether or not anybody still waits for it.
            drop(place);
            verdict
        });
        judged.await.unwrap_or(Err(Refused::Unavailable))
    }
}

impl Users {
    fn build(spec: &BasicAuth) -> Result<Self, Problem> {
        let random = |_| Problem::new("", "the system has no randomness");
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).map_err(random)?;
        let claims = spec.users.iter().map(|user| claims(&user.name)).collect();
        Ok(Self { spec: spec.clone(), claims, key, verified: Cache::new(), refused: Cache::new() })
    }

    /// Base64 has one form here, so its text stands for the pair.
    fn mark(&self, text: &str) -> Fingerprint {
        let tag = hmac::sign(&self.key, text.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Fingerprint::from_bytes(bytes)
    }

    fn find(&self, pair: Fingerprint, wall: SystemTime) -> Option<Result<Claims, Refused>> {
        if let Some(Ok(claims)) = self.verified.find(pair, GENERATION, wall) {
            return Some(Ok(claims));
        }
        let refused = matches!(self.refused.find(pair, GENERATION, wall), Some(Ok(_)));
        refused.then_some(Err(Refused::Invalid(REFUSED)))
    }

    /// Computes a hash. Slow: never to be called where requests are served.
    fn judge(&self, credentials: &Credentials, pair: Fingerprint, wall: SystemTime) -> Result<Claims, Refused> {
        let (index, is_user) = self.whose_hash(&credentials.user).ok_or(Refused::Invalid("there are no users"))?;
        let fits = password::fits(&self.spec.users[index].hash, &credentials.password);
        if fits && is_user {
            let claims = &self.claims[index];
            if let Some(remember) = self.spec.remember {
                self.verified.remember(pair, GENERATION, lifetime(wall, remember), claims);
            }
            return Ok(Claims::clone(claims));
        }
        self.refused.remember(pair, GENERATION, lifetime(wall, REMEMBER_REFUSED), &Claims::default());
        Err(Refused::Invalid(REFUSED))
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
