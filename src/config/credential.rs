//! Credentials that stand in files of their own: keys of programs, passwords of people. Only hashes of either.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Name, Timestamp};

/// `type = "api_key"`
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKeyAuth {
    /// `keys_file`
    pub file: PathBuf,
    /// What it held when the configuration was loaded
    pub keys: ApiKeys,
}

/// The keys of one file: each ID and each hash once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiKeys(pub(super) Arc<[ApiKey]>);

/// `[keys.ID]`
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    /// Names the key without being it: for lists, logs and the claim `key_id`
    pub id: Name,
    /// `hash`
    pub hash: KeyHash,
    /// `expires`: the first moment that it is not valid any more
    pub expires: Option<Timestamp>,
    /// `disabled`; default: false
    pub disabled: bool,
    /// What is known of whoever has it: `owner` as `sub`, `scopes` as `scope`, the ID as `key_id`, and `claims`. Shared,
    /// since every request with the key is given them
    pub claims: Arc<Map<String, Value>>,
}

impl ApiKeys {
    /// Most bytes of a file of keys.
    pub const MAX_FILE: u64 = 16 * 1024 * 1024;

    /// All of them, ordered by ID.
    pub fn all(&self) -> &[ApiKey] {
        &self.0
    }

    /// The one with this ID.
    pub fn find(&self, id: &str) -> Option<&ApiKey> {
        self.0.iter().find(|key| *key.id == *id)
    }

    /// The same, but that this one is disabled.
    #[must_use]
    pub fn without(&self, id: &str) -> Self {
        let keys = self.0.iter().cloned().map(|key| ApiKey { disabled: key.disabled || *key.id == *id, ..key });
        Self(keys.collect())
    }
}

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// What stands in front of the hexadecimal digits.
    pub const PREFIX: &'static str = "sha256:";

    /// `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

/// As [`KeyHash::parse`] reads it.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `type = "basic"`
#[derive(Clone, Debug, PartialEq)]
pub struct BasicAuth {
    /// `users_file`
    pub file: PathBuf,
    /// What it held when the configuration was loaded: each name once, in the order of the names
    pub users: Arc<[BasicUser]>,
    /// What people are told the password is for; visible ASCII without quotes. Default: tollgate
    pub realm: String,
    /// For how long a verified password is believed without being verified; `None` is not at all. Default: 10m
    pub remember: Option<Duration>,
}

/// A line of a file of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicUser {
    /// What they call themselves
    pub name: Name,
    /// Of their password
    pub hash: PasswordHash,
}

/// A password's hash, of a kind that takes long to compute but not too long.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$2y$COST$…`, also `$2a$` and `$2b$`
    Bcrypt {
        /// Each step doubles the time
        cost: u32,
        /// Which of all the hashes of one password this is
        salt: [u8; 16],
        /// As much of the result as is written down
        digest: [u8; 23],
    },
    /// `$argon2id$v=19$m=…,t=…,p=…$…` (RFC 9106)
    Argon2id {
        /// KiB
        memory: u32,
        /// Passes over the memory
        passes: u32,
        /// Parts of the memory that could be filled at once
        lanes: u32,
        /// Which of all the hashes of one password this is
        salt: Vec<u8>,
        /// The result
        digest: Vec<u8>,
    },
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bcrypt { .. } => "Bcrypt(***)",
            Self::Argon2id { .. } => "Argon2id(***)",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_has_one_form_and_is_not_printed_by_accident() {
        let digits = "0123456789abcdef".repeat(4);
        let hash = KeyHash::parse(&format!("sha256:{digits}")).expect("a hash");
        assert_eq!(format!("{hash:?} {hash}"), format!("*** sha256:{digits}"));
        for text in [
            digits.clone(),
            format!("sha1:{digits}"),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{digits}0"),
            format!("sha256:+{}", &digits[1..]),
            format!("sha256:{}\u{e4}", &digits[2..]),
        ] {
            assert_eq!(KeyHash::parse(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_hash_that_was_written_is_read(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(KeyHash::parse(&KeyHash(bytes).to_string()), Some(KeyHash(bytes)));
        }
    }
}
