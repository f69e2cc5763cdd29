//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): what a client keeps so that its next handshake is a short one.
//!
//! rustls' own ticketer makes keys that nobody can take out of it, so each reload and each upgrade would forget every
//! session. These keys belong to the process and are handed to its successor. A ticket is
//! `key name (16) ‖ nonce (12) ‖ the session, sealed ‖ tag (16)`. What is sealed with it, unseen, is the context: a
//! ticket opens only for the listener that made it, as long as that asks its clients for the same.
//!
//! There is no cache of sessions beside: every client of TLS 1.3 and nearly every one of TLS 1.2 takes tickets, and a
//! cache would be memory that clients fill, a lock that workers share, and nothing a successor could be given.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use parking_lot::Mutex;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::config;

/// How long a key seals. Then another does, and this one still opens for as long again.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);
/// The age at which a key opens nothing any more. No ticket is older; who comes again in time gets a new one.
const LIFETIME: Duration = Duration::from_secs(2 * PERIOD.as_secs());
/// Bytes of a ticket. A session holds the client's certificates; one with more than this is not worth a ticket.
const MAX_TICKET: usize = 16 * 1024;
const NAME_LEN: usize = 16;
const SECRET_LEN: usize = 32;
/// Of what rustls writes into a ticket. To be raised when it writes something else (a test here says so): a successor
/// with another rustls must not misread a session.
const FORMAT: &[u8] = b"tollgate ticket 1";

/// A key as one process hands it to the next.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    name: [u8; NAME_LEN],
    secret: [u8; SECRET_LEN],
    /// Seconds since 1970
    born: u64,
}

/// The keys of the process. None is made before the first is needed.
pub struct TicketKeys {
    keys: ArcSwapOption<Keys>,
    renewal: Mutex<()>,
}

struct Keys {
    current: Arc<Key>,
    previous: Option<Arc<Key>>,
}

struct Key {
    key: TicketKey,
    // GCM-SIV, since nonces are random and two processes draw them: one drawn twice costs nothing (RFC 8452).
    cipher: LessSafeKey,
}

/// Seals and opens the tickets of one listener.
#[derive(Debug)]
pub(super) struct Ticketer {
    keys: Arc<TicketKeys>,
    context: [u8; 32],
}

impl TicketKeys {
    /// No keys yet.
    pub fn new() -> Self {
        Self { keys: ArcSwapOption::empty(), renewal: Mutex::new(()) }
    }

    /// The keys of a predecessor, the current one first, as [`Self::export`] gave them.
    pub fn inherited(keys: Vec<TicketKey>) -> Self {
        let mut keys = keys.into_iter().filter_map(|key| Key::new(key).ok()).map(Arc::new);
        let current = keys.next();
        let keys = current.map(|current| Arc::new(Keys { current, previous: keys.next() }));
        Self { keys: ArcSwapOption::new(keys), renewal: Mutex::new(()) }
    }

    /// For a successor, which then opens what this process has sealed.
    pub fn export(&self) -> Vec<TicketKey> {
        let Some(keys) = self.at(now()) else {
            return Vec::new();
        };
        std::iter::once(&keys.current).chain(&keys.previous).map(|key| key.key.clone()).collect()
    }

    /// The keys of a moment, the current one made anew if its time is over; `None` if the system has no random bytes.
    fn at(&self, now: u64) -> Option<Arc<Keys>> {
        let fresh = |keys: &Option<Arc<Keys>>| {
            keys.as_ref().filter(|keys| keys.current.age(now) < PERIOD.as_secs()).map(Arc::clone)
        };
        if let Some(keys) = fresh(&self.keys.load()) {
            return Some(keys);
        }
        let _one_at_a_time = self.renewal.lock();
        let old = self.keys.load_full();
        if let Some(keys) = fresh(&old) {
            return Some(keys);
        }
        let current = Arc::new(Key::random(now).ok()?);
        let previous = old.map(|old| Arc::clone(&old.current)).filter(|key| key.opens(now));
        let keys = Arc::new(Keys { current, previous });
        self.keys.store(Some(Arc::clone(&keys)));
        Some(keys)
    }

    fn seal(&self, context: &[u8], session: &[u8], now: u64) -> Option<Vec<u8>> {
        let keys = self.at(now)?;
        let Key { key, cipher } = &*keys.current;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = session.to_vec();
        let tag = cipher.seal_in_place_separate_tag(Nonce::from(&nonce), Aad::from(context), &mut sealed).ok()?;
        let ticket = [&key.name[..], &nonce, &sealed, tag.as_ref()].concat();
        (ticket.len() <= MAX_TICKET).then_some(ticket)
    }

    fn open(&self, context: &[u8], ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.at(now)?;
        let key = std::iter::once(&keys.current).chain(&keys.previous).find(|key| key.key.name == *name)?;
        if !key.opens(now) {
            return None;
        }
        let mut session = sealed.to_vec();
        let len = key.cipher.open_in_place(Nonce::from(nonce), Aad::from(context), &mut session).ok()?.len();
        session.truncate(len);
        Some(session)
    }
}

impl Key {
    fn new(key: TicketKey) -> Result<Self, Unspecified> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key.secret)?);
        Ok(Self { key, cipher })
    }

    fn random(now: u64) -> Result<Self, Unspecified> {
        let mut key = TicketKey { name: [0; NAME_LEN], secret: [0; SECRET_LEN], born: now };
        rand::fill(&mut key.name)?;
        rand::fill(&mut key.secret)?;
        Self::new(key)
    }

    /// A clock that was set back makes a key old, not young for ever.
    fn age(&self, now: u64) -> u64 {
        self.key.born.abs_diff(now)
    }

    fn opens(&self, now: u64) -> bool {
        self.age(now) < LIFETIME.as_secs()
    }
}

impl Ticketer {
    /// The listener and what it asks of its clients are what a session may be resumed for: one that began without a
    /// certificate must not go on where one is required. rustls itself binds the server name, version and cipher.
    pub(super) fn new(keys: &Arc<TicketKeys>, listener: &str, clients: Option<&config::ClientAuth>) -> Self {
        let mut context = digest::Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        part(FORMAT);
        part(listener.as_bytes());
        if let Some(clients) = clients {
            part(if clients.is_required { b"required" } else { b"optional" });
            part(clients.ca.content.expose());
        }
        let context = context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { keys: Arc::clone(keys), context }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs().try_into().expect("a day at most (RFC 8446 section 4.6.1)")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.seal(&self.context, plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.keys.open(&self.context, cipher, now())
    }
}

/// A clock before 1970 is as good as one that stands.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Default for TicketKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(***)")
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(***)")
    }
}

#[cfg(test)]
mod tests;
