//! When credentials that were verified may be used again without being verified.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Refused;

/// When a verified token may be used, in seconds since 1970, leeway included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    begins: u64,
    /// The first second it may not be used
    ends: u64,
}

impl Lifetime {
    pub(super) fn new(begins: u64, ends: u64) -> Self {
        Self { begins, ends }
    }

    /// `exp` and `nbf` (RFC 7519 sections 4.1.4 and 4.1.5), judged at every use.
    pub(super) fn check(self, wall: SystemTime) -> Result<(), Refused> {
        let now = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if now >= self.ends {
            return Err(Refused::Expired);
        }
        if now < self.begins {
            return Err(Refused::Invalid("not valid yet"));
        }
        Ok(())
    }
}

/// A NumericDate (RFC 7519 section 2); fractions are dropped.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return Some(whole);
    }
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Duration::try_from_secs_f64(seconds).ok().map(|duration| duration.as_secs())
}
