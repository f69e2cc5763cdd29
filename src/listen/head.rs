//! The strict reading of an HTTP/1 request head (RFC 9112), before Pingora sees a byte of it.
//!
//! Pingora's parser is lenient where leniency is how requests are smuggled: it takes bare LF, two ways of saying where
//! the body ends, and a missing Host. What this scanner lets through has exactly one reading.

use http::header::{CONTENT_LENGTH, COOKIE};
use pingora_http::RequestHeader;

use crate::http::{Host, Reason};

/// Longest method that is looked at; registered ones end at 17 bytes.
const MAX_METHOD: usize = 24;

/// How much of a head is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    /// Header fields
    pub(super) max_headers: usize,
    /// Bytes of the request line and all fields
    pub(super) max_bytes: usize,
}

/// What must be known of a head to read its message and to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes up to and with the empty line
    pub(super) len: usize,
    /// Where the body ends
    pub(super) body: Body,
    /// The client asks to speak another protocol afterwards
    pub(super) upgrade: bool,
}

/// Where a request's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// After so many bytes
    Length(u64),
    /// After the last chunk
    Chunked,
}

/// Reads a head from the front of `buffer`; `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// The reason to refuse, as soon as it is certain.
pub(super) fn parse(buffer: &[u8], limits: HeadLimits) -> Result<Option<Head>, Reason> {
    let Some((line, mut at)) = line(buffer, 0)? else {
        return incomplete(buffer, limits, true);
    };
    if at > limits.max_bytes {
        return Err(Reason::UriTooLong);
    }
    let (http10, authority) = request_line(line)?;
    let mut fields = Fields { authority, ..Fields::default() };
    let mut count = 0;
    loop {
        let Some((line, next)) = self::line(buffer, at)? else {
            return incomplete(buffer, limits, false);
        };
        at = next;
        if at > limits.max_bytes {
            return Err(Reason::HeadTooLarge);
        }
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.max_headers {
            return Err(Reason::TooManyHeaders);
        }
        fields.take(line)?;
    }
    fields.finish(at, http10).map(Some)
}

/// Judges a head that came by h2, which has no lines to scan, as strictly: what is behind us may speak HTTP/1. Framing
/// and the ban on fields of the connection are h2's own; where the request goes was looked at when it was accepted.
///
/// # Errors
/// The reason to refuse.
pub(super) fn check(request: &RequestHeader, limits: HeadLimits) -> Result<(), Reason> {
    let target = request.raw_path();
    let method = request.method.as_str().as_bytes();
    if method.len() > MAX_METHOD {
        return Err(Reason::MalformedRequest);
    }
    if method == b"CONNECT" {
        return Err(Reason::Unsupported);
    }
    if target.len() > limits.max_bytes {
        return Err(Reason::UriTooLong);
    }
    if !matches!(target.first(), Some(b'/' | b'*')) {
        return Err(Reason::MalformedRequest);
    }
    target_form(method, target)?;
    // A browser sends each cookie as a field of its own (RFC 9113 section 8.2.3).
    let cookies = request.headers.get_all(COOKIE).iter().count();
    if request.headers.len() - cookies.saturating_sub(1) > limits.max_headers {
        return Err(Reason::TooManyHeaders);
    }
    let mut fields = Fields::default();
    request.headers.get_all(CONTENT_LENGTH).iter().try_for_each(|length| fields.content_length(length.as_bytes()))
}

fn incomplete(buffer: &[u8], limits: HeadLimits, in_request_line: bool) -> Result<Option<Head>, Reason> {
    match (buffer.len() > limits.max_bytes, in_request_line) {
        (false, _) => Ok(None),
        (true, true) => Err(Reason::UriTooLong),
        (true, false) => Err(Reason::HeadTooLarge),
    }
}

/// The line that starts at `from`, without its CRLF, and where the next one starts. A bare CR or LF is an error.
fn line(buffer: &[u8], from: usize) -> Result<Option<(&[u8], usize)>, Reason> {
    let rest = &buffer[from..];
    let Some(end) = memchr::memchr(b'\n', rest) else {
        return Ok(None);
    };
    match rest[..end].split_last() {
        Some((b'\r', line)) => Ok(Some((line, from + end + 1))),
        _ => Err(Reason::MalformedRequest),
    }
}

/// Checks `METHOD SP target SP HTTP/1.x` (section 3); returns whether it is HTTP/1.0, and the host its target names.
fn request_line(line: &[u8]) -> Result<(bool, Option<&[u8]>), Reason> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Reason::MalformedRequest);
    };
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|&byte| is_token(byte)) {
        return Err(Reason::MalformedRequest);
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        b"HTTP/2.0" | b"HTTP/3.0" => return Err(Reason::Unsupported),
        _ => return Err(Reason::MalformedRequest),
    };
    if method == b"CONNECT" {
        return Err(Reason::Unsupported);
    }
    target_form(method, target)?;
    Ok((http10, authority(target)))
}

/// What stands between the scheme of an absolute form and its path.
fn authority(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") {
        return None;
    }
    let start = target.windows(3).position(|window| window == b"://")? + 3;
    target[start..].split(|byte| matches!(byte, b'/' | b'?')).next()
}

/// Origin form, absolute form with an http scheme, or `*` for OPTIONS (section 3.2); never a fragment.
fn target_form(method: &[u8], target: &[u8]) -> Result<(), Reason> {
    if target.iter().any(|&byte| !(0x21..=0x7e).contains(&byte) || matches!(byte, b'#' | b'"' | b'<' | b'>')) {
        return Err(Reason::MalformedRequest);
    }
    // Browsers send it as it is in a query; in a path it has to be escaped, and Pingora ends there without a word.
    if target.split(|&byte| byte == b'?').next().is_some_and(|path| path.contains(&b'`')) {
        return Err(Reason::MalformedRequest);
    }
    let absolute = |scheme: &[u8]| {
        target.len() > scheme.len()
            && target[..scheme.len()].eq_ignore_ascii_case(scheme)
            && !matches!(target[scheme.len()], b'/' | b'?')
    };
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == b"OPTIONS" => Ok(()),
        _ if absolute(b"http://") || absolute(b"https://") => Ok(()),
        _ => Err(Reason::MalformedRequest),
    }
}

/// The fields that decide framing, as they pass by.
#[derive(Default)]
struct Fields<'a> {
    /// The host in the target, which must be the one in Host
    authority: Option<&'a [u8]>,
    host: u8,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

impl Fields<'_> {
    fn take(&mut self, line: &[u8]) -> Result<(), Reason> {
        // A line that starts with white space would continue the one before (section 5.2); a name with white space
        // behind it could be read as another field (section 5.1). Neither is a token, so both end here.
        let colon = memchr::memchr(b':', line).ok_or(Reason::MalformedRequest)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) || !is_value(value) {
            return Err(Reason::MalformedRequest);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Reason> {
        self.host = self.host.saturating_add(1);
        let other = self.authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(value));
        // User information is what Pingora refuses without a word; the rest of a bad host is for the routes to refuse.
        let refused = self.host > 1 || value.is_empty() || other || value.contains(&b'@');
        if refused { Err(Reason::BadHost) } else { Ok(()) }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten();
        match (length, self.length) {
            (Some(length), None) => {
                self.length = Some(length);
                Ok(())
            }
            _ => Err(Reason::AmbiguousFraming),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reason> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Reason::AmbiguousFraming);
        }
        self.chunked = true;
        Ok(())
    }

    fn finish(self, len: usize, http10: bool) -> Result<Head, Reason> {
        let named = self.authority.is_none_or(|authority| std::str::from_utf8(authority).is_ok_and(is_host));
        if self.host == 0 && !http10 || !named {
            return Err(Reason::BadHost);
        }
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Reason::AmbiguousFraming),
            (true, None) if http10 => return Err(Reason::AmbiguousFraming),
            (true, None) => Body::Chunked,
            (false, length) => Body::Length(length.unwrap_or(0)),
        };
        Ok(Head { len, body, upgrade: self.upgrade && self.connection_upgrade && !http10 })
    }
}

fn is_host(text: &str) -> bool {
    Host::parse(text).is_ok()
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// RFC 9110 section 5.5: visible characters, space, tab and obs-text. A token is long: all bytes are looked at whatever
/// is found, and by that many at once.
fn is_value(value: &[u8]) -> bool {
    value.iter().fold(true, |all, &byte| all & ((byte == b'\t') | ((byte >= b' ') & (byte != 0x7f))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_headers: 5, max_bytes: 400 };

    fn read(text: &str) -> Result<Option<Head>, Reason> {
        parse(text.as_bytes(), LIMITS)
    }

    fn with(fields: &str) -> Result<Option<Head>, Reason> {
        read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn a_plain_request_has_no_body() {
        let head = read("GET /x?y HTTP/1.1\r\nHost: a\r\n\r\nrest").expect("valid").expect("complete");
        assert_eq!(head, Head { len: 30, body: Body::Length(0), upgrade: false });
    }

    #[test]
    fn framing_is_read_from_length_or_coding() {
        let body = |fields: &str| with(fields).expect("valid").expect("complete").body;
        assert_eq!(body("Content-Length: 12\r\n"), Body::Length(12));
        assert_eq!(body("transfer-encoding: Chunked\r\n"), Body::Chunked);
    }

    #[test]
    fn every_ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5 ,5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: identity\r\n",
        ] {
            assert_eq!(with(fields), Err(Reason::AmbiguousFraming), "{fields:?}");
        }
        let http10 = read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(http10, Err(Reason::AmbiguousFraming));
    }

    #[test]
    fn grammar_errors_are_refused() {
        for text in [
            "GET admin HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(read(text), Err(Reason::MalformedRequest), "{text:?}");
        }
    }

    #[test]
    fn a_control_character_is_seen_wherever_it_stands_in_a_value() {
        for byte in u8::MIN..=u8::MAX {
            let allowed = matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
            for at in 0..70 {
                let mut value = [b'a'; 70];
                value[at] = byte;
                assert_eq!(is_value(&value), allowed, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn host_must_be_there_once() {
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n"), Err(Reason::BadHost));
        assert_eq!(with("Host: b\r\n"), Err(Reason::BadHost));
        assert_eq!(read("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Err(Reason::BadHost));
        assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok_and(|head| head.is_some()));
    }

    #[test]
    fn a_target_that_names_a_host_names_the_same() {
        for target in ["http://A:80/?x://b", "HTTP://a:80?x", "https://a:80"] {
            let head = read(&format!("GET {target} HTTP/1.1\r\nHost: a:80\r\n\r\n"));
            assert!(head.is_ok_and(|head| head.is_some()), "{target}");
        }
        for target in ["http://b/", "http://a/", "http://u:p@a:80/", "http://[/", "http://a:b:c/", "http://@a:80/"] {
            assert_eq!(read(&format!("GET {target} HTTP/1.1\r\nHost: a:80\r\n\r\n")), Err(Reason::BadHost), "{target}");
        }
        assert_eq!(read("GET http://[/ HTTP/1.0\r\n\r\n"), Err(Reason::BadHost));
        assert!(with("").is_ok_and(|head| head.is_some()));
    }

    #[test]
    fn limits_hold_whether_or_not_the_head_is_complete() {
        assert_eq!(with(&"A: b\r\n".repeat(5)), Err(Reason::TooManyHeaders));
        assert_eq!(read(&format!("GET /{}", "a".repeat(400))), Err(Reason::UriTooLong));
        assert_eq!(read(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(400))), Err(Reason::UriTooLong));
        assert_eq!(with(&format!("A: {}\r\n", "b".repeat(400))), Err(Reason::HeadTooLarge));
        assert_eq!(read(&format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(400))), Err(Reason::HeadTooLarge));
    }

    #[test]
    fn an_upgrade_needs_both_fields() {
        let upgrade = |fields: &str| with(fields).expect("valid").expect("complete").upgrade;
        assert!(upgrade("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"));
        assert!(!upgrade("Upgrade: websocket\r\n"));
        assert!(!upgrade("Connection: upgrade\r\n"));
    }

    fn check_h2(method: &str, target: &str, fields: &[(&'static str, &str)]) -> Result<(), Reason> {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).expect("a request");
        for (name, value) in fields {
            request.append_header(*name, *value).expect("a field");
        }
        check(&request, LIMITS)
    }

    #[test]
    fn h2_heads_are_judged_as_strictly() {
        assert_eq!(check_h2("GET", "/a?b", &[("cookie", "a=1"), ("content-length", "5")]), Ok(()));
        assert_eq!(check_h2("OPTIONS", "*", &[]), Ok(()));
        assert_eq!(check_h2("GET", "*", &[]), Err(Reason::MalformedRequest));
        assert_eq!(check_h2("GET", "a", &[]), Err(Reason::MalformedRequest));
        assert_eq!(check_h2("GET", "http://a/", &[]), Err(Reason::MalformedRequest));
        assert_eq!(check_h2("GET", "/a\"b", &[]), Err(Reason::MalformedRequest));
        assert_eq!(check_h2("CONNECT", "a:443", &[]), Err(Reason::Unsupported));
        assert_eq!(check_h2("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "/", &[]), Err(Reason::MalformedRequest));
        assert_eq!(check_h2("GET", &format!("/{}", "a".repeat(400)), &[]), Err(Reason::UriTooLong));
        assert_eq!(check_h2("GET", "/", &[("content-length", "5, 5")]), Err(Reason::AmbiguousFraming));
        assert_eq!(check_h2("GET", "/", &[("a", "1"); 6]), Err(Reason::TooManyHeaders));
        assert_eq!(check_h2("GET", "/", &[("cookie", "a=1"); 9]), Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes, LIMITS);
        }

        #[test]
        fn a_prefix_is_incomplete_or_refused_but_never_another_message(cut in 0usize..60) {
            let text = b"POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello";
            let whole = parse(text, LIMITS).expect("valid").expect("complete");
            match parse(&text[..cut.min(text.len())], LIMITS) {
                Ok(None) => prop_assert!(cut < whole.len),
                Ok(Some(head)) => prop_assert_eq!(head, whole),
                Err(reason) => prop_assert!(false, "refused: {:?}", reason),
            }
        }
    }
}
