//! The canonical form of a path: what is matched is what is forwarded.
//!
//! Two programs that read one path differently are how a request for `/admin` gets past a rule for `/admin`. So there
//! is one form (RFC 3986 section 6.2.2), made before anything is decided: dot segments and doubled slashes are gone,
//! escapes of unreserved characters are decoded, other escapes are upper case. What has no safe form is refused.

use std::borrow::Cow;

use crate::config::EncodedSlash;

/// A path with no safe canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// A path in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// Borrowed when it was sent in this form
    pub path: Cow<'a, str>,
    /// It keeps a `%2F`
    pub encoded_slash: bool,
}

/// Makes `raw`, a path without its query, canonical. `*` (OPTIONS of the whole server) is itself.
///
/// # Errors
/// A path that does not start with `/`, or has a backslash, a control character, a byte outside ASCII, a malformed
/// escape, an escaped control character or backslash, a dot segment with parameters (`/..;x/`), more `..` than
/// segments before them, or an escaped slash where those are refused.
pub fn canonical(raw: &[u8], slash: EncodedSlash) -> Result<Canonical<'_>, BadPath> {
    let text = std::str::from_utf8(raw).map_err(|_| BadPath)?;
    if text == "*" {
        return Ok(Canonical { path: Cow::Borrowed(text), encoded_slash: false });
    }
    if raw.first() != Some(&b'/') || raw.iter().any(|byte| !(0x21..=0x7e).contains(byte) || *byte == b'\\') {
        return Err(BadPath);
    }
    if is_plain(raw) {
        return Ok(Canonical { path: Cow::Borrowed(text), encoded_slash: false });
    }
    let (decoded, encoded_slash) = decode(raw, slash)?;
    let path = without_dots(&decoded)?;
    Ok(Canonical { path: if path == text { Cow::Borrowed(text) } else { Cow::Owned(path) }, encoded_slash })
}

/// Nothing to decode, remove or merge.
fn is_plain(raw: &[u8]) -> bool {
    !raw.contains(&b'%') && !raw.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

/// Decodes escapes of unreserved characters and upper-cases the others.
fn decode(raw: &[u8], slash: EncodedSlash) -> Result<(String, bool), BadPath> {
    let mut decoded = String::with_capacity(raw.len());
    let mut encoded_slash = false;
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(char::from(byte));
            continue;
        }
        let mut digit = || bytes.next().and_then(|&byte| char::from(byte).to_digit(16)).ok_or(BadPath);
        let value = u8::try_from(digit()? * 16 + digit()?).map_err(|_| BadPath)?;
        match value {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(value)),
            0..=0x1f | 0x7f | b'\\' => return Err(BadPath),
            b'/' if slash == EncodedSlash::Refuse => return Err(BadPath),
            _ => {
                encoded_slash |= value == b'/';
                push_escape(&mut decoded, value);
            }
        }
    }
    Ok((decoded, encoded_slash))
}

fn push_escape(text: &mut String, value: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(value >> 4)]));
    text.push(char::from(DIGITS[usize::from(value & 15)]));
}

/// Removes dot segments (RFC 3986 section 5.2.4) and merges slashes.
fn without_dots(path: &str) -> Result<String, BadPath> {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    let mut directory = false;
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "" | "." => directory = last,
            ".." => {
                segments.pop().ok_or(BadPath)?;
                directory = last;
            }
            _ if matches!(part.split(';').next(), Some("." | "..")) => return Err(BadPath),
            _ => segments.push(part),
        }
    }
    let mut result = String::with_capacity(path.len());
    for segment in &segments {
        result.push('/');
        result.push_str(segment);
    }
    if directory || segments.is_empty() {
        result.push('/');
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(raw: &str) -> Result<String, BadPath> {
        canonical(raw.as_bytes(), EncodedSlash::Refuse).map(|canonical| canonical.path.into_owned())
    }

    #[test]
    fn a_plain_path_is_borrowed() {
        let canonical = canonical(b"/orders/17;v=1", EncodedSlash::Refuse).expect("good");
        assert!(matches!(canonical.path, Cow::Borrowed("/orders/17;v=1")));
    }

    #[test]
    fn equivalent_paths_have_one_form() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/%61dmin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("//a///b", "/a/b"),
            ("/a//", "/a/"),
            ("/a%c3%a4", "/a%C3%A4"),
            ("/a%252e", "/a%252e"),
            ("/a%20b%25", "/a%20b%25"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(form(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn paths_without_a_safe_form_are_refused() {
        for raw in [
            "",
            "a",
            "/..",
            "/a/../..",
            "/%2e%2e",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0a",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a b",
            "/\u{e4}",
            "/a/..;x/b",
            "/a/.;/b",
            "/a/%2e%2e;/b",
        ] {
            assert_eq!(form(raw), Err(BadPath), "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_may_be_kept_but_never_separates() {
        let canonical = canonical(b"/a%2f..%2fb", EncodedSlash::Keep).expect("good");
        assert_eq!(canonical, Canonical { path: "/a%2F..%2Fb".into(), encoded_slash: true });
    }

    proptest! {
        #[test]
        fn the_form_is_a_fixed_point(raw in "/[a-c./%2eEfF;0-9]{0,24}") {
            if let Ok(first) = canonical(raw.as_bytes(), EncodedSlash::Keep) {
                let second = canonical(first.path.as_bytes(), EncodedSlash::Keep).expect("canonical is good");
                prop_assert_eq!(&first.path, &second.path);
                prop_assert!(first.path.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!first.path.contains("//"));
                prop_assert_eq!(first.encoded_slash, first.path.contains("%2F"));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = canonical(&raw, EncodedSlash::Keep);
        }
    }
}
