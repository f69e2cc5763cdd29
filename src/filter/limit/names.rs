//! `show_keys = true`: what keys stand for, of those that are busy alone.
//!
//! A table knows hashes. Here is remembered what was hashed, whenever a key is refused or nearly is: seldom enough to
//! cost nothing, and these are the keys that an operator asks for.

use std::collections::HashMap;
use std::fmt::Write;

use parking_lot::Mutex;

use super::key::Key;
use crate::config::Selector;
use crate::filter::Facts;
use crate::filter::prehashed::Prehashed;
use crate::http::network;

/// Keys of one limit whose names are remembered.
const MOST: usize = 1024;
/// Bytes of a name, about: a client chooses how long a header is.
const MAX_BYTES: usize = 128;

/// Names of one limit's busy keys.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<Key, Box<str>, Prehashed>>);

impl Names {
    /// Remembers one. Where there are too many, another is forgotten: the busy ones come again.
    pub(super) fn remember(&self, key: Key, selectors: &[Selector], facts: &Facts<'_>) {
        let mut names = self.0.lock();
        if names.contains_key(&key) {
            return;
        }
        if names.len() >= MOST
            && let Some(other) = names.keys().next().copied()
        {
            names.remove(&other);
        }
        names.insert(key, name(selectors, facts).into());
    }

    pub(super) fn find(&self, key: Key) -> Option<String> {
        self.0.lock().get(&key).map(ToString::to_string)
    }
}

/// What an operator who looks at limits has no business to see: by where it stands, or by the name of its field.
fn may_hold_a_credential(selector: &Selector) -> bool {
    match selector {
        Selector::Cookie(_) | Selector::Query(_) => true,
        Selector::Header(name) => {
            let name = name.as_str();
            ["auth", "cookie", "key", "token", "secret", "password", "session", "signature"]
                .iter()
                .any(|word| name.contains(word))
        }
        _ => false,
    }
}

fn name(selectors: &[Selector], facts: &Facts<'_>) -> String {
    let mut name = String::new();
    for selector in selectors {
        if !name.is_empty() {
            name.push_str(", ");
        }
        match selector {
            // Writing to a string does not fail.
            Selector::ClientAddress => drop(write!(name, "{}", network(facts.request.client))),
            other if may_hold_a_credential(other) => name.push_str("***"),
            other => name.extend(facts.read(other).as_deref().unwrap_or("").chars().take(MAX_BYTES)),
        }
    }
    let end = (0..=MAX_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.truncate(end);
    name
}
