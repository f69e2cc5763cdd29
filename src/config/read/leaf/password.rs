//! Hashes of passwords: those that take long to compute, within bounds.
//!
//! The bounds are there because every wrong password costs us one such computation. What is not a slow hash is refused
//! with the command that makes one: a file that leaks must not be worth much.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::config::PasswordHash;

/// 2^14 rounds take about a second.
const MAX_BCRYPT_COST: u32 = 14;
/// KiB.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 16;

const BARE: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone);
/// There are programs that leave bits behind the last byte.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, BARE.with_decode_allow_trailing_bits(true));
const PHC: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BARE);

type Result<T> = std::result::Result<T, &'static str>;

/// `$2y$…`, `$2b$…`, `$2a$…` or `$argon2id$…`.
pub(crate) fn hash(text: &str) -> Result<PasswordHash> {
    if let Some(rest) = ["$2y$", "$2b$", "$2a$"].iter().find_map(|prefix| text.strip_prefix(prefix)) {
        return bcrypt(rest);
    }
    if let Some(rest) = text.strip_prefix("$argon2id$") {
        return argon2id(rest);
    }
    Err(match text {
        text if text.starts_with("$apr1$") || text.starts_with("$1$") => {
            "this is MD5, of which billions are tried a second: `htpasswd -B -C 12 FILE USER` makes a good line"
        }
        text if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => {
            "this is SHA-1, of which billions are tried a second: `htpasswd -B -C 12 FILE USER` makes a good line"
        }
        text if text.starts_with("$argon2") => {
            "only the kind argon2id is read: `argon2 SALT -id -e` makes one, `htpasswd -B -C 12 FILE USER` a whole line"
        }
        text if text.starts_with("$2") => {
            "this bcrypt is of a kind with known mistakes: `htpasswd -B -C 12 FILE USER` makes a good line"
        }
        _ => {
            "this is no hash by bcrypt (\"$2y$…\") or argon2id (\"$argon2id$…\"), and nothing else is read: \
              `htpasswd -B -C 12 FILE USER` makes a good line"
        }
    })
}

/// `COST$` and 53 characters: the salt and the digest.
fn bcrypt(text: &str) -> Result<PasswordHash> {
    let form =
        "this is cut or changed: bcrypt's hashes have 60 characters, `htpasswd -B -C 12 FILE USER` makes a good line";
    let (cost, rest) = text.split_once('$').ok_or(form)?;
    let cost = if cost.len() == 2 { number(cost) } else { None }.ok_or(form)?;
    if !(4..=MAX_BCRYPT_COST).contains(&cost) {
        return Err("its cost must be from 4 to 14: each step doubles the time, and 14 takes about a second");
    }
    if rest.len() != 53 || !rest.is_ascii() {
        return Err(form);
    }
    let (salt, digest) = rest.split_at(22);
    let salt = BCRYPT.decode(salt).ok().and_then(|salt| salt.try_into().ok()).ok_or(form)?;
    let digest = BCRYPT.decode(digest).ok().and_then(|digest| digest.try_into().ok()).ok_or(form)?;
    Ok(PasswordHash::Bcrypt { cost, salt, digest })
}

/// `v=19$m=…,t=…,p=…$SALT$DIGEST`, the parameters in this order, as all programs write them.
fn argon2id(text: &str) -> Result<PasswordHash> {
    let form = "this is cut or changed: argon2id's hashes are \"$argon2id$v=19$m=…,t=…,p=…$SALT$HASH\"";
    let fields: Vec<_> = text.split('$').collect();
    let [version, parameters, salt, digest] = fields[..] else { return Err(form) };
    if version != "v=19" {
        return Err("only version 19 of argon2id is read: those before have known weaknesses");
    }
    let parameters: Vec<_> = parameters.split(',').collect();
    let [memory, passes, lanes] = parameters[..] else { return Err(form) };
    let value = |field: &str, name| field.strip_prefix(name).and_then(number).ok_or(form);
    let (memory, passes, lanes) = (value(memory, "m=")?, value(passes, "t=")?, value(lanes, "p=")?);
    if !(1..=MAX_LANES).contains(&lanes)
        || !(1..=MAX_PASSES).contains(&passes)
        || !(8 * lanes..=MAX_MEMORY).contains(&memory)
    {
        return Err(
            "its costs are out of bounds: m (KiB) from 8 for each lane to 262144, t from 1 to 10, p from 1 to 16",
        );
    }
    let (salt, digest) = (PHC.decode(salt).map_err(|_| form)?, PHC.decode(digest).map_err(|_| form)?);
    if !(8..=64).contains(&salt.len()) || !(16..=64).contains(&digest.len()) {
        return Err("its salt must have from 8 to 64 bytes, and its hash from 16 to 64");
    }
    Ok(PasswordHash::Argon2id { memory, passes, lanes, salt, digest })
}

/// Digits alone, and few of them.
fn number(text: &str) -> Option<u32> {
    let is_number = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &str = "DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";

    #[test]
    fn hashes_as_programs_write_them_are_read() {
        for prefix in ["$2a$", "$2b$", "$2y$"] {
            let hash = hash(&format!("{prefix}06${REST}")).expect("a hash");
            let PasswordHash::Bcrypt { cost: 6, salt, digest } = hash else { panic!("{hash:?}") };
            assert_eq!((&salt[..4], &digest[20..]), (&[0x14, 0x4b, 0x3d, 0x69][..], &[0xf8, 0x19, 0xde, 0xe0][1..]));
        }
        let hash =
            hash("$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaQXwkvfQ").expect("a hash");
        let PasswordHash::Argon2id { memory: 65_536, passes: 3, lanes: 4, salt, digest } = hash else {
            panic!("{hash:?}")
        };
        assert_eq!((&salt[..], digest.len()), (&b"somesalt"[..], 25));
    }

    #[test]
    fn what_is_quickly_computed_or_takes_too_long_is_refused() {
        let refused = |text: &str, why: &str| {
            let message = hash(text).expect_err(text);
            assert!(message.contains(why), "{text}: {message}");
        };
        for text in ["$apr1$x$y", "$1$x$y", "{SHA}x", "$6$x$y", "hunter2", "", "rqXexS6ZhobKA", "$2x$05$"] {
            refused(text, "htpasswd -B");
        }
        for cost in ["03", "15", "31", "00"] {
            refused(&format!("$2y${cost}${REST}"), "from 4 to 14");
        }
        for text in [format!("$2y$6${REST}"), format!("$2y$+6${REST}"), format!("$2y$06${}", &REST[1..])] {
            refused(&text, "60 characters");
        }
        let argon = |costs: &str| format!("$argon2id$v=19${costs}$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaQXwkvfQ");
        for costs in ["m=262145,t=1,p=1", "m=64,t=11,p=1", "m=64,t=0,p=1", "m=64,t=1,p=17", "m=15,t=1,p=2"] {
            refused(&argon(costs), "out of bounds");
        }
        for costs in ["m=64,t=1", "t=1,m=64,p=1", "m=64,t=1,p=1,data=eA", "m=99999999999,t=1,p=1", "m=+64,t=1,p=1"] {
            refused(&argon(costs), "cut or changed");
        }
        refused("$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaQXwkvfQ", "argon2id");
        refused("$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaQXwkvfQ", "version 19");
        refused("$argon2id$v=19$m=64,t=1,p=1$c29tZQ$RdescudvJCsgt3ub+b4dWRWJTmaQXwkvfQ", "8 to 64 bytes");
    }

    proptest! {
        /// Whatever passes is within the bounds, so a file cannot make us compute for ever.
        #[test]
        fn what_is_read_is_within_the_bounds(
            text in "\\$(2[aby]\\$[0-9]{2}\\$[./A-Za-z0-9]{53}|argon2id\\$v=19\\$m=[0-9]{1,7},t=[0-9]{1,2},p=[0-9]{1,2}\\$[A-Za-z0-9+/]{8,24}\\$[A-Za-z0-9+/]{16,48})",
        ) {
            match hash(&text) {
                Ok(PasswordHash::Bcrypt { cost, .. }) => prop_assert!((4..=14).contains(&cost)),
                Ok(PasswordHash::Argon2id { memory, passes, lanes, salt, digest }) => {
                    prop_assert!(memory <= 256 * 1024 && passes <= 10 && lanes <= 16 && memory >= 8 * lanes);
                    prop_assert!(passes > 0 && lanes > 0 && salt.len() >= 8 && digest.len() >= 16);
                }
                Err(message) => prop_assert!(!message.is_empty()),
            }
        }
    }
}
