//! What gRPC says in header fields ("gRPC over HTTP2", in its repository).

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Whether a message is one of gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// How long the caller waits for the whole call, if it says so: at most eight digits and a unit. What is no time is as
/// good as none.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get("grpc-timeout")?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 60 * 60)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(value: &[u8]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_bytes(value).ok()?);
        timeout(&headers)
    }

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        assert_eq!(read(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read(b"2M"), Some(Duration::from_secs(120)));
        assert_eq!(read(b"99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(read(b"7u"), Some(Duration::from_micros(7)));
        assert_eq!(read(b"0n"), Some(Duration::ZERO));
        for wrong in [&b""[..], b"S", b"1", b"1s", b"-1S", b"+1S", b" 1S", b"1 S", b"1.5S", b"123456789S"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_a_time_or_none(value in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Some(timeout) = read(&value) {
                prop_assert!(timeout <= Duration::from_secs(99_999_999 * 3600));
            }
        }
    }
}
