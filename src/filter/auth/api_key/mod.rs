//! `type = "api_key"`: programs that are known by a key of ours.
//!
//! A file has the SHA-256 of each key. A fast hash is right here, where it would be wrong for a password: a key is 256
//! random bits, so nobody finds one by trying, however fast that is. It also makes the answer one lookup, without a lock
//! and without a wait.

mod text;

use std::collections::HashMap;
use std::time::SystemTime;

use subtle::ConstantTimeEq;

pub use self::text::KeyText;
use super::call::Presented;
use super::{Claims, Refused};
use crate::config::{ApiKey, ApiKeyAuth, ApiKeys, Name, Timestamp};
use crate::filter::prehashed::Prehashed;

/// Shorter than this is nothing that was drawn at random, so its hash would tell what it is.
const MIN_LENGTH: usize = 32;

/// The keys of one file.
#[derive(Debug)]
pub(super) struct Keys {
    name: Name,
    keys: ApiKeys,
    /// Indexes of `keys`, in the order of their hashes' beginnings
    order: Box<[u32]>,
    /// By its beginning, where in `order` a hash would be
    places: HashMap<u64, u32, Prehashed>,
}

impl Keys {
    pub(super) fn new(name: &Name, spec: &ApiKeyAuth) -> Self {
        let all = spec.keys.all();
        if all.is_empty() {
            log::warn!("auth {name}: {} has no keys, so it lets nobody in", spec.file.display());
        }
        let mut order: Vec<u32> = (0..).take(all.len()).collect();
        order.sort_by_key(|index| beginning(&all[*index as usize].hash.0));
        let mut places = HashMap::default();
        for (place, index) in (0..).zip(&order) {
            places.entry(beginning(&all[*index as usize].hash.0)).or_insert(place);
        }
        Self { name: name.clone(), keys: spec.keys.clone(), order: order.into(), places }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn judge(&self, presented: Option<&Presented<'_>>, wall: SystemTime) -> Result<Claims, Refused> {
        let presented = presented.ok_or(Refused::Missing)?;
        let verdict = match self.find(presented.fingerprint().bytes()) {
            Some(key) if key.disabled => Err(Refused::Invalid("it is disabled")),
            Some(key) if key.expires.is_some_and(|expires| Timestamp::of(wall) >= expires) => Err(Refused::Expired),
            Some(_) if presented.text().len() < MIN_LENGTH => Err(Refused::Invalid("it is too short to be safe")),
            Some(key) => Ok(Claims::clone(&key.claims)),
            None if KeyText::is_mistyped(presented.text()) => Err(Refused::Invalid("it is cut or mistyped")),
            None => Err(Refused::Invalid("nobody has it")),
        };
        if let Err(Refused::Invalid(why)) = verdict {
            log::debug!("auth {}: a key is refused: {why}", self.name);
        }
        verdict
    }

    /// The key with this hash. How long that takes tells at most how a hash begins, and the whole of it in equal time.
    fn find(&self, hash: &[u8; 32]) -> Option<&ApiKey> {
        let beginning_of_it = beginning(hash);
        let place = *self.places.get(&beginning_of_it)? as usize;
        let candidates = self.order[place..].iter().map(|index| &self.keys.all()[*index as usize]);
        let mut candidates = candidates.take_while(|key| beginning(&key.hash.0) == beginning_of_it);
        candidates.find(|key| bool::from(key.hash.0.ct_eq(hash)))
    }
}

fn beginning(hash: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::config::KeyHash;

    fn keys(text: &str) -> Keys {
        let keys = ApiKeys::read(text, Path::new("api-keys.toml")).expect("keys");
        Keys::new(&"partners".into(), &ApiKeyAuth { file: "api-keys.toml".into(), keys })
    }

    fn table(id: &str, hash: KeyHash, more: &str) -> String {
        format!("[keys.{id}]\nhash = \"{hash}\"\nowner = \"{id}\"\n{more}\n")
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn judged(keys: &Keys, text: &str, seconds: u64) -> Result<Claims, Refused> {
        keys.judge(Some(&Presented::new(text, 0)), at(seconds))
    }

    #[test]
    fn a_key_is_known_until_the_moment_it_expires_or_is_disabled() {
        let [good, brief, disabled] = ["good", "brief", "disabled"].map(|id| KeyText::random(id).expect("random"));
        let keys = keys(
            &[
                table("good", good.hash(), ""),
                table("brief", brief.hash(), "expires = 2001-09-09T01:46:40Z"),
                table("disabled", disabled.hash(), "disabled = true"),
            ]
            .concat(),
        );
        assert_eq!(judged(&keys, good.expose(), u32::MAX.into()).expect("known")["sub"], "good");
        assert_eq!(judged(&keys, brief.expose(), 999_999_999).expect("known")["key_id"], "brief");
        assert_eq!(judged(&keys, brief.expose(), 1_000_000_000), Err(Refused::Expired));
        assert_eq!(judged(&keys, disabled.expose(), 0), Err(Refused::Invalid("it is disabled")));
        assert_eq!(keys.judge(None, at(0)), Err(Refused::Missing));
        let stranger = KeyText::random("good").expect("random");
        assert_eq!(judged(&keys, stranger.expose(), 0), Err(Refused::Invalid("nobody has it")));
        let typo = format!("{}0", &good.expose()[..good.expose().len() - 1]);
        if typo != good.expose() {
            assert_eq!(judged(&keys, &typo, 0), Err(Refused::Invalid("it is cut or mistyped")));
        }
    }

    #[test]
    fn what_is_too_short_to_be_random_is_refused_though_its_hash_is_listed() {
        let hash = |text| KeyHash(*crate::filter::auth::cache::Fingerprint::of(text).bytes());
        let long = "0123456789abcdef0123456789abcdef";
        let keys = keys(&[table("short", hash("hunter2"), ""), table("long", hash(long), "")].concat());
        assert_eq!(judged(&keys, "hunter2", 0), Err(Refused::Invalid("it is too short to be safe")));
        judged(&keys, long, 0).expect("a key of somebody else's making");
    }

    proptest! {
        /// Hashes that begin alike are the only ones that share a place.
        #[test]
        fn each_hash_is_found_and_no_other(
            hashes in prop::collection::btree_set((0_u8..3, 0_u8..3, 0_u8..3), 1..20),
            asked in (0_u8..3, 0_u8..3, 0_u8..3),
        ) {
            let hash = |(first, eighth, last): (u8, u8, u8)| {
                let mut bytes = [0; 32];
                (bytes[0], bytes[7], bytes[31]) = (first, eighth, last);
                KeyHash(bytes)
            };
            let text: String =
                hashes.iter().enumerate().map(|(index, of)| table(&format!("k{index}"), hash(*of), "")).collect();
            let keys = keys(&text);
            let found = keys.find(&hash(asked).0).map(|key| key.hash);
            prop_assert_eq!(found, hashes.contains(&asked).then(|| hash(asked)));
        }
    }
}
