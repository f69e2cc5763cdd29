//! Keys that all gateways of a fleet have in common.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};

use super::script::name;
use super::terms::Terms;
use crate::config::{Name, Selector};
use crate::filter::Facts;
use crate::http::network;

/// 128 bits of SHA-256. Nobody finds two callers with one, and what a caller is called does not stand in the store; but
/// whoever reads the store can tell whether a name that he guesses is there.
pub(super) type Hash = [u8; 16];

/// From parts to keys.
pub(super) struct Keys {
    prefix: String,
    selectors: Vec<Selector>,
    /// Over the rate, or the period of a quota, and the selectors: other terms are other keys, so that nothing old is misread
    terms: Context,
}

/// Parts are hashed with their length, so that no two lists of parts run into one another.
struct Hashed<'a>(&'a mut Context);

impl Hashed<'_> {
    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn new(limit: &Name, selectors: &[Selector], terms: Terms) -> Self {
        let mut context = Context::new(&SHA256);
        let mut hashed = Hashed(&mut context);
        match terms {
            Terms::Rate { interval, burst } => {
                hashed.part(&interval.to_be_bytes());
                hashed.part(&burst.to_be_bytes());
            }
            // What is used of a quota is so of a larger one too.
            Terms::Quota { period, .. } => hashed.part(name(period).as_bytes()),
        }
        for selector in selectors {
            hashed.part(format!("{selector:?}").as_bytes());
        }
        Self { prefix: format!("tollgate:{limit}:"), selectors: selectors.to_vec(), terms: context }
    }

    /// A part that a request lacks counts as one shared empty value.
    pub(super) fn hash(&self, facts: &Facts<'_>) -> Hash {
        let mut context = self.terms.clone();
        let mut hashed = Hashed(&mut context);
        for selector in &self.selectors {
            match selector {
                Selector::ClientAddress => match network(facts.request.client) {
                    IpAddr::V4(address) => hashed.part(&address.octets()),
                    IpAddr::V6(address) => hashed.part(&address.octets()),
                },
                other => hashed.part(facts.read(other).as_deref().unwrap_or("").as_bytes()),
            }
        }
        let digest = context.finish();
        let mut hash = Hash::default();
        hash.copy_from_slice(&digest.as_ref()[..16]);
        hash
    }

    /// What is kept for the limit besides its keys. No hash is written so.
    pub(super) fn named(&self, what: &str) -> Vec<u8> {
        format!("{}{what}", self.prefix).into_bytes()
    }

    /// As it stands in the store: `tollgate:NAME:` and the hash.
    pub(super) fn text(&self, hash: &Hash) -> Vec<u8> {
        let mut text = String::with_capacity(self.prefix.len() + 32);
        text.push_str(&self.prefix);
        for byte in hash {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.into_bytes()
    }
}
