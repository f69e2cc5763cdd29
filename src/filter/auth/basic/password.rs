//! Whether a password is the one that was hashed. Slow: never to be called where requests are served.

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::PasswordHash;

/// Bytes that bcrypt looks at, the end of the text included if there is room.
const BCRYPT_BYTES: usize = 72;

/// Computes the hash of the password, and compares it in equal time.
pub(super) fn fits(hash: &PasswordHash, password: &str) -> bool {
    match hash {
        PasswordHash::Bcrypt { cost, salt, digest } => {
            let mut key = Zeroizing::new(Vec::with_capacity(password.len() + 1));
            key.extend_from_slice(password.as_bytes());
            key.push(0);
            key.truncate(BCRYPT_BYTES);
            let computed = bcrypt::bcrypt(*cost, *salt, &key);
            // What is longer would be right whatever it ends in. Only after the computation: it must take as long.
            bool::from(computed[..digest.len()].ct_eq(digest)) && password.len() <= BCRYPT_BYTES
        }
        PasswordHash::Argon2id { memory, passes, lanes, salt, digest } => {
            let Ok(params) = Params::new(*memory, *passes, *lanes, Some(digest.len())) else { return false };
            let mut computed = Zeroizing::new(vec![0; digest.len()]);
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password_into(password.as_bytes(), salt, &mut computed).is_ok()
                && bool::from(computed.ct_eq(digest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthKind, Config, System};

    /// As the reader of the file reads it.
    fn hash(text: &str) -> PasswordHash {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("users"), format!("user:{text}\n")).expect("written");
        let config = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[auth.people]\ntype = \"basic\"\n\
                      users_file = \"users\"\n";
        let (config, _) = Config::read(config, &directory.path().join("tollgate.toml"), &System).expect("valid");
        let AuthKind::Basic(basic) = &config.auth["people"].kind else { panic!("another kind") };
        basic.users[0].hash.clone()
    }

    #[test]
    fn passwords_fit_the_hashes_that_other_programs_made() {
        for (password, text) in [
            // jBCrypt's test vectors
            ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
            ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
            ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
            // The reference implementation's
            ("password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
            ("password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"),
        ] {
            let hash = hash(text);
            assert!(fits(&hash, password), "{text}");
            for wrong in [format!("{password} "), format!("x{password}"), password.to_uppercase() + "?"] {
                assert!(!fits(&hash, &wrong), "{wrong} for {text}");
            }
        }
    }

    #[test]
    fn a_password_that_bcrypt_would_not_read_to_its_end_is_refused() {
        let long = "x".repeat(72);
        let computed = bcrypt::bcrypt(4, [7; 16], long.as_bytes());
        let mut digest = [0; 23];
        digest.copy_from_slice(&computed[..23]);
        let hash = PasswordHash::Bcrypt { cost: 4, salt: [7; 16], digest };
        assert!(fits(&hash, &long));
        assert!(!fits(&hash, &format!("{long}y")));
        assert!(!fits(&hash, &long[1..]));
    }
}
