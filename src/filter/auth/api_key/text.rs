//! What a key looks like: `tg_ID_` and 49 letters and digits.
//!
//! The form is that of the tokens of GitHub, for its reasons. The prefix and the ID say whose key it is that somebody has
//! found, without being of use to anybody. The alphabet has no character that needs quoting or ends a word, so that a
//! double click takes all of it. The last six characters are a checksum of all before: a scanner for secrets that have
//! leaked knows a key from what only looks like one without asking us, and a key that was cut or mistyped can be told
//! from one that nobody has.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

use crate::config::KeyHash;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "tg_";
/// 62^43 is a little more than 2^256.
const RANDOM: usize = 43;
/// 62^6 is more than 2^32.
const CHECKSUM: usize = 6;

/// A key, to be shown once.
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// A new one, of 256 random bits.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random(id: &str) -> Result<Self, Unspecified> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + id.len() + 1 + RANDOM + CHECKSUM));
        text.push_str(PREFIX);
        text.push_str(id);
        text.push('_');
        text.push_str(&random(RANDOM)?);
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Ok(Self(text))
    }

    /// An ID for a key that nobody has named.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random_id() -> Result<String, Unspecified> {
        Ok(random(10)?.to_ascii_lowercase())
    }

    /// The only way to read it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> KeyHash {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        KeyHash(bytes)
    }

    /// Whether a text begins like a key but cannot be one. Of a text that does not, nothing can be said.
    pub(super) fn is_mistyped(text: &str) -> bool {
        let Some(rest) = text.strip_prefix(PREFIX) else { return false };
        let Some((_, tail)) = rest.rsplit_once('_') else { return true };
        let is_tail = tail.len() == RANDOM + CHECKSUM && tail.bytes().all(|byte| byte.is_ascii_alphanumeric());
        !is_tail || text[text.len() - CHECKSUM..] != checksum(&text[..text.len() - CHECKSUM])
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Characters of the alphabet, each as likely as every other.
fn random(length: usize) -> Result<Zeroizing<String>, Unspecified> {
    let mut text = Zeroizing::new(String::with_capacity(length));
    let mut bytes = Zeroizing::new([0; 64]);
    while text.len() < length {
        aws_lc_rs::rand::fill(&mut *bytes)?;
        // 248 is the largest multiple of 62 in a byte: without what is above, no character is favoured.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        let missing = length - text.len();
        text.extend(fair.take(missing));
    }
    Ok(text)
}

/// CRC-32 in base 62, the most significant digit first.
fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest as usize % 62];
        rest /= 62;
    }
    digits.map(char::from).iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_tells_its_id_and_nothing_else() {
        let key = KeyText::random("acme_2027").expect("random");
        let text = key.expose();
        assert!(text.starts_with("tg_acme_2027_") && text.len() == 13 + 49, "{text}");
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{text}");
        assert!(!KeyText::is_mistyped(text));
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn no_character_is_favoured_and_no_key_drawn_twice() {
        let drawn: HashSet<_> = (0..1000).map(|_| random(RANDOM).expect("random").to_string()).collect();
        assert_eq!(drawn.len(), 1000);
        let mut counts = [0_u32; 128];
        drawn.iter().flat_map(|text| text.bytes()).for_each(|byte| counts[usize::from(byte)] += 1);
        for character in ALPHABET {
            let count = counts[usize::from(*character)];
            // 694 are to be expected, with a deviation of 26.
            assert!((480..=910).contains(&count), "{}: {count}", char::from(*character));
        }
    }

    #[test]
    fn the_checksum_is_crc_32_in_base_62() {
        // The check value of CRC-32 is 0xcbf43926: 3 45 35 27 22 14 in base 62.
        assert_eq!(checksum("123456789"), "3jZRME");
        assert_eq!(checksum(""), "000000");
    }

    proptest! {
        #[test]
        fn a_mistake_in_one_character_is_noticed(id in "[a-z0-9][a-z0-9_-]{0,20}", at in any::<prop::sample::Index>(), by in 1_usize..62) {
            let key = KeyText::random(&id).expect("random");
            let text = key.expose();
            let from = PREFIX.len() + id.len() + 1;
            let at = from + at.index(text.len() - from);
            let old = ALPHABET.iter().position(|character| *character == text.as_bytes()[at]).expect("of the alphabet");
            let mut changed = text.to_owned();
            changed.replace_range(at..=at, &char::from(ALPHABET[(old + by) % 62]).to_string());
            prop_assert!(KeyText::is_mistyped(&changed));
            prop_assert!(KeyText::is_mistyped(&text[..at]));
        }

        #[test]
        fn whatever_is_shown_is_judged_without_a_panic(text in "(tg_)?\\PC{0,60}", tail in "[0-9A-Za-z_\u{e4}]{40,60}") {
            KeyText::is_mistyped(&text);
            KeyText::is_mistyped(&format!("tg_{tail}"));
            prop_assert!(!KeyText::is_mistyped("eyJhbGciOiJFUzI1NiJ9.e30.x"));
        }
    }
}
