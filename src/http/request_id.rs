//! The name of one request, in answers, logs and upstream.

use std::fmt;

use uuid::Uuid;

/// Longest id taken over from a trusted proxy.
const MAX_LEN: usize = 64;

/// A UUID of version 7 (RFC 9562 section 5.7), or what a trusted proxy called the request. Never on the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    text: [u8; MAX_LEN],
    len: u8,
}

impl RequestId {
    /// A new one; ids sort by time.
    #[expect(clippy::new_without_default, reason = "every id is another: there is no default one")]
    pub fn new() -> Self {
        let mut text = [0; MAX_LEN];
        let len = Uuid::now_v7().hyphenated().encode_lower(&mut text).len();
        Self { text, len: u8::try_from(len).expect("36 bytes") }
    }

    /// Takes over an id of 1 to 64 letters, digits and `.`, `_`, `~`, `-`.
    pub fn accept(id: &[u8]) -> Option<Self> {
        let is_sane = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
        if id.is_empty() || id.len() > MAX_LEN || !id.iter().all(is_sane) {
            return None;
        }
        let mut text = [0; MAX_LEN];
        text[..id.len()].copy_from_slice(id);
        Some(Self { text, len: u8::try_from(id.len()).ok()? })
    }

    /// As text: visible ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).expect("only ASCII is stored")
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A `traceparent` that starts a trace (W3C Trace Context, section 3.2): a new trace and span, not sampled.
pub fn traceparent() -> [u8; 55] {
    let (trace, span) = (Uuid::now_v7(), Uuid::now_v7());
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    trace.simple().encode_lower(&mut text[3..35]);
    let mut whole = [0; 32];
    span.simple().encode_lower(&mut whole);
    text[36..52].copy_from_slice(&whole[16..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_that_sort_by_time() {
        let (first, second) = (RequestId::new(), RequestId::new());
        assert_eq!(first.as_str().len(), 36);
        assert_eq!(&first.as_str()[14..15], "7");
        assert!(first.as_str() <= second.as_str() || first.as_str()[..13] == second.as_str()[..13]);
        assert_ne!(first, second);
    }

    #[test]
    fn only_sane_ids_are_taken_over() {
        assert_eq!(RequestId::accept(b"abc-1.2_3~4").expect("sane").as_str(), "abc-1.2_3~4");
        for id in [&b""[..], b"a b", b"a\"b", b"\xff", &[b'a'; 65]] {
            assert_eq!(RequestId::accept(id), None);
        }
    }

    #[test]
    fn a_traceparent_has_its_form() {
        let text = String::from_utf8(traceparent().to_vec()).expect("ASCII");
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2]);
    }
}
