//! `balance` and what belongs to it: which endpoint is next.

use std::time::Duration;

use super::{Secret, Selector};

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin
    RoundRobin,
    /// The less busy of two, by requests in flight over weight
    LeastRequest,
    /// The one of two that is likely to answer earlier
    PeakEwma {
        /// `ewma_decay`: how long a latency is remembered; default: 10s
        decay: Duration,
    },
    /// By chance, weighted
    Random,
    /// The same endpoint for the same key
    ConsistentHash {
        /// `hash_key`: several together make one key
        key: Vec<Selector>,
        /// `hash_balance_factor`, in hundredths: how much more than its share an endpoint is given; default: 125
        factor: Option<u32>,
    },
}

/// `sticky`: a client comes back to the endpoint that it was at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name
    pub cookie: String,
    /// What it is signed with
    pub secret: Secret,
    /// How long it is good for; default: until the browser is closed
    pub ttl: Option<Duration>,
    /// Default: lax
    pub same_site: SameSite,
}

/// With which requests of other sites' pages a cookie is sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// None
    Strict,
    /// When a link is followed
    Lax,
    /// All, and only over TLS
    None,
}
