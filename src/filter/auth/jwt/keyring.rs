//! The keys of one provider as they are now.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

use super::key::{Key, KeySet, needs};
use super::published::{Entry, Place};
use super::remote::{Pace, Remote};
use super::{jwk, pem};
use crate::config::{Jwt, KeySource, Name, Problem};
use crate::http::fetch::Trust;

/// Where a provider's keys are found: fixed, or fetched and replaced in the background.
#[derive(Debug)]
pub(super) struct Keyring {
    current: ArcSwapOption<Loaded>,
    remote: Option<Remote>,
}

/// A set of keys and how many there were before it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) set: KeySet,
    /// Tokens that another generation verified are verified anew
    pub(super) generation: u64,
}

impl Keyring {
    pub(super) fn build(name: &Name, spec: &Jwt, pace: Pace) -> Result<Self, Problem> {
        Ok(match &spec.keys {
            KeySource::JwksUrl(uri) => Self::remote(name, place(Entry::Keys(uri.clone()), spec)?, pace),
            KeySource::Discovery(uri) => {
                let entry = Entry::Discovery { document: uri.clone(), issuer: spec.issuer.clone() };
                Self::remote(name, place(entry, spec)?, pace)
            }
            KeySource::JwksFile(file) => Self::fixed(from_jwks(name, spec, file.content.expose())?),
            KeySource::PublicKey(file) => {
                let keys = pem::read(file.content.expose()).map_err(|why| Problem::new("public_key_file", why))?;
                Self::fixed(all_served(KeySet::unnamed(keys), spec, "public_key_file")?)
            }
            KeySource::Secret(secret) => {
                Self::fixed(all_served(KeySet::unnamed(vec![Key::secret(secret)]), spec, "secret")?)
            }
        })
    }

    pub(super) fn fixed(set: KeySet) -> Self {
        Self { current: ArcSwapOption::from_pointee(Loaded { set, generation: 1 }), remote: None }
    }

    pub(super) fn remote(name: &Name, place: Place, pace: Pace) -> Self {
        Self { current: ArcSwapOption::empty(), remote: Some(Remote::new(name, place, pace)) }
    }

    /// The keys of this moment; `None` before the first.
    pub(super) fn current(&self) -> Guard<Option<Arc<Loaded>>> {
        self.current.load()
    }

    /// Where the keys are fetched from, if they are.
    pub(super) fn source(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// From here on these keys verify. The same keys again are no change, and every token stays remembered. To be called
    /// by one task at a time.
    pub(super) fn replace(&self, set: KeySet) -> bool {
        let current = self.current.load();
        let generation = match &*current {
            Some(current) if current.set == set => return false,
            Some(current) => current.generation + 1,
            None => 1,
        };
        self.current.store(Some(Arc::new(Loaded { set, generation })));
        true
    }
}

fn place(entry: Entry, spec: &Jwt) -> Result<Place, Problem> {
    let trust = Trust::build(spec.ca_file.as_ref()).map_err(|why| Problem::new("ca_file", why))?;
    Ok(Place { entry, trust })
}

fn from_jwks(name: &Name, spec: &Jwt, bytes: &[u8]) -> Result<KeySet, Problem> {
    let read = jwk::read(bytes).map_err(|why| Problem::new("jwks_file", why))?;
    for skipped in read.skipped {
        log::warn!("auth {name}: key {} of jwks_file is not used: {}", skipped.id, skipped.why);
    }
    if !spec.algorithms.iter().any(|algorithm| read.set.serves(*algorithm)) {
        return Err(Problem::new("jwks_file", "no key in it fits any of the algorithms"));
    }
    Ok(read.set)
}

/// An algorithm without a key would only ever refuse.
fn all_served(set: KeySet, spec: &Jwt, path: &str) -> Result<KeySet, Problem> {
    match spec.algorithms.iter().find(|algorithm| !set.serves(**algorithm)) {
        None => Ok(set),
        Some(algorithm) => {
            let needs = needs(*algorithm);
            Err(Problem::new(path, format!("algorithms names {algorithm:?}, which needs {needs}; there is none here")))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::config::Secret;

    fn set(byte: u8) -> KeySet {
        KeySet::unnamed(vec![Key::secret(&Secret::new(vec![byte; 32]))])
    }

    #[test]
    fn another_set_is_another_generation_and_the_same_set_is_not() {
        let entry = Entry::Keys(Uri::from_static("https://id.example.com/"));
        let keyring = Keyring::remote(&"corporate".into(), Place { entry, trust: Trust::System }, Pace::USUAL);
        let generation = || keyring.current().as_ref().map(|loaded| loaded.generation);
        assert_eq!(generation(), None);
        for (byte, changed, expected) in [(1, true, 1), (1, false, 1), (2, true, 2), (1, true, 3)] {
            assert_eq!(keyring.replace(set(byte)), changed);
            assert_eq!(generation(), Some(expected));
        }
    }
}
