//! The host a request is for (RFC 9110 section 7.2).

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name DNS can carry.
const MAX_NAME: usize = 253;
/// Longest part of one.
const MAX_LABEL: usize = 63;

/// A Host or :authority, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Lower case, without a trailing dot; IPv6 without brackets
    pub name: Cow<'a, str>,
    /// If one was sent
    pub port: Option<u16>,
}

/// Not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHost;

impl<'a> Host<'a> {
    /// Parses `host [":" port]` strictly: a registered name of letters, digits, `-`, `_` and `.`, or an address.
    ///
    /// # Errors
    /// Anything else: user information, a path, a list, nothing.
    pub fn parse(text: &'a str) -> Result<Self, BadHost> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(BadHost)?;
            let address: Ipv6Addr = address.parse().map_err(|_| BadHost)?;
            return Ok(Self { name: Cow::Owned(address.to_string()), port: port(rest)? });
        }
        let end = text.find(':').unwrap_or(text.len());
        let port = port(&text[end..])?;
        let name = &text[..end];
        let name = name.strip_suffix('.').unwrap_or(name);
        if !is_name(name) {
            return Err(BadHost);
        }
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        Ok(Self { name, port })
    }
}

fn port(text: &str) -> Result<Option<u16>, BadHost> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Ok(None),
        Some("") => Ok(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| BadHost)
        }
        _ => Err(BadHost),
    }
}

fn is_name(name: &str) -> bool {
    let (mut label, mut numeric) = (0, true);
    for byte in name.bytes() {
        if byte == b'.' {
            if label == 0 {
                return false;
            }
            (label, numeric) = (0, true);
            continue;
        }
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return false;
        }
        label += 1;
        if label > MAX_LABEL {
            return false;
        }
        numeric &= byte.is_ascii_digit();
    }
    // A last label of digits is an IPv4 address or nothing: other spellings of addresses are read differently.
    label > 0 && name.len() <= MAX_NAME && (!numeric || name.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_parsed_and_normalised() {
        for (text, name, port) in [
            ("api.example.com", "api.example.com", None),
            ("API.example.com.:8443", "api.example.com", Some(8443)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "::1", Some(80)),
            ("localhost:", "localhost", None),
            ("my_service", "my_service", None),
        ] {
            assert_eq!(Host::parse(text), Ok(Host { name: name.into(), port }), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "user@a",
            "a:b",
            "a:99999",
            "a..b",
            "[::1",
            "[::1]x",
            "1.2.3",
            "0x7f.1",
            "a%2eb",
            "\u{e4}",
            "127.1",
            "2130706433",
        ] {
            assert_eq!(Host::parse(text), Err(BadHost), "{text}");
        }
    }

    #[test]
    fn names_and_their_parts_have_a_longest() {
        let (label, name) = ("a".repeat(63), format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61)));
        assert!(Host::parse(&label).is_ok() && Host::parse(&name).is_ok());
        assert!(Host::parse(&format!("{label}a")).is_err() && Host::parse(&format!("{name}a")).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_names_are_lower_case(text in "\\PC{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert!(!host.name.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        }
    }
}
