//! `queue` and `queue_timeout`: who may wait where there is no room now.

use std::num::NonZeroU32;
use std::time::Duration;

/// A line in which requests wait, of a limit or an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `queue`: how many may wait, of one key where there are keys
    pub length: NonZeroU32,
    /// `queue_timeout`: how long one may; default: 1s
    pub timeout: Duration,
}
