//! The name of one request, in answers, logs and upstream.

use std::fmt;
use std::time::{Duration, SystemTime};

use uuid::{NoContext, Timestamp, Uuid};

/// Longest id taken over from a trusted proxy.
const MAX_LEN: usize = 64;

/// A UUID of version 7 (RFC 9562 section 5.7), or what a trusted proxy called the request. Never on the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    text: [u8; MAX_LEN],
    len: u8,
    /// Whether it is a UUID of ours
    made: bool,
}

impl RequestId {
    /// A new one; ids sort by time.
    #[expect(clippy::new_without_default, reason = "every id is another: there is no default one")]
    pub fn new() -> Self {
        Self::at(SystemTime::now())
    }

    /// A new one for what began then.
    pub fn at(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        // Random below the millisecond: counting would cost a lock that all workers share.
        let uuid = Uuid::new_v7(Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos()));
        let mut text = [0; MAX_LEN];
        let len = uuid.hyphenated().encode_lower(&mut text).len();
        Self { text, len: u8::try_from(len).expect("36 bytes"), made: true }
    }

    /// Takes over an id of 1 to 64 letters, digits and `.`, `_`, `~`, `-`.
    pub fn accept(id: &[u8]) -> Option<Self> {
        let is_sane = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
        if id.is_empty() || id.len() > MAX_LEN || !id.iter().all(is_sane) {
            return None;
        }
        let mut text = [0; MAX_LEN];
        text[..id.len()].copy_from_slice(id);
        Some(Self { text, len: u8::try_from(id.len()).ok()?, made: false })
    }

    /// As text: visible ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).expect("only ASCII is stored")
    }

    /// A `traceparent` that starts a trace (W3C Trace Context, section 3.2), not sampled. An id of ours names the trace
    /// too, so that who has one of the two finds the other.
    pub fn traceparent(&self) -> [u8; 55] {
        let Self { text: id, .. } = if self.made { *self } else { Self::new() };
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut to = 3;
        for part in [0..8, 9..13, 14..18, 19..23, 24..36] {
            text[to..to + part.len()].copy_from_slice(&id[part.clone()]);
            to += part.len();
        }
        // The half of it that is all random.
        text.copy_within(19..35, 36);
        text
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
        let id = RequestId::new();
        let text = String::from_utf8(id.traceparent().to_vec()).expect("ASCII");
        let parts: Vec<_> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!(parts[1], id.as_str().replace('-', ""));
        assert_eq!(parts[2], &parts[1][16..]);
    }

    #[test]
    fn a_trace_is_not_called_what_somebody_else_called_the_request() {
        let id = RequestId::accept(b"00000000-0000-0000-0000-000000000000").expect("sane");
        assert_ne!(&id.traceparent()[3..35], [b'0'; 32]);
    }
}
