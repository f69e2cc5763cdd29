//! What stands behind `Basic ` (RFC 7617 section 2), read strictly: base64 in its one form, UTF-8, no control characters.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// More than this is nobody's name and password.
const MAX_TEXT: usize = 2048;

/// A user and a password, as they came.
pub struct Credentials {
    /// All before the first colon
    pub user: String,
    /// All behind it; wiped when it has been looked at
    pub password: Zeroizing<String>,
}

impl Credentials {
    /// Takes it apart.
    ///
    /// # Errors
    /// Why that is not possible; what was sent has no part in it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_TEXT {
            return Err("longer than 2 KiB");
        }
        let pair = Zeroizing::new(STANDARD.decode(text).map_err(|_| "not base64 in its one form")?);
        let pair = std::str::from_utf8(&pair).map_err(|_| "not UTF-8")?;
        if pair.chars().any(char::is_control) {
            return Err("a control character");
        }
        let (user, password) = pair.split_once(':').ok_or("no colon between user and password")?;
        Ok(Self { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pair_is_taken_apart_at_its_first_colon() {
        let read = |text: &str| Credentials::parse(text).map(|read| (read.user, read.password.to_string()));
        // The example of RFC 7617 section 2, and that of its section 2.1.
        assert_eq!(read("QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(("Aladdin".into(), "open sesame".into())));
        assert_eq!(read("dGVzdDoxMjPCow=="), Ok(("test".into(), "123\u{a3}".into())));
        assert_eq!(read(&STANDARD.encode("a:b:c")), Ok(("a".into(), "b:c".into())));
        assert_eq!(read(&STANDARD.encode(":")), Ok((String::new(), String::new())));
        for text in ["", "QWxhZGRpbg==", "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "QWxhZGRpbjpvcGVuIHNlc2FtZR==", "Og== ", "O-g_"]
        {
            Credentials::parse(text).expect_err(text);
        }
        for pair in [&b"a:\xff"[..], b"a:\n", b"a\0:b", b"a:\x7f", "a:\u{85}".as_bytes()] {
            Credentials::parse(&STANDARD.encode(pair)).expect_err("not text");
        }
        Credentials::parse(&STANDARD.encode(format!("a:{}", "b".repeat(1600)))).expect_err("too long");
    }

    proptest! {
        #[test]
        fn what_a_client_sends_is_what_is_read(user in "[^:\\pC]{0,20}", password in "\\PC{0,20}") {
            prop_assume!(!user.chars().chain(password.chars()).any(char::is_control));
            let read = Credentials::parse(&STANDARD.encode(format!("{user}:{password}"))).expect("a pair");
            prop_assert_eq!((read.user, read.password.to_string()), (user, password));
        }

        /// So that the text can stand for the pair.
        #[test]
        fn no_two_texts_are_one_pair(text in "[A-Za-z0-9+/]{0,12}={0,2}") {
            if let Ok(read) = Credentials::parse(&text) {
                prop_assert_eq!(STANDARD.encode(format!("{}:{}", read.user, *read.password)), text);
            }
        }
    }
}
