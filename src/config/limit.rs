//! `[limits.NAME]`: how much.

use std::num::{NonZeroU32, NonZeroUsize};

use super::{Queue, Rate, Selector, Store};

/// `[limits.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// `rate` with `burst`, or `concurrent`
    pub kind: LimitKind,
    /// With `concurrent`: who may wait for a place; default: nobody
    pub queue: Option<Queue>,
    /// Several together make one key; a part that is missing counts as one shared empty value
    pub key: Vec<Selector>,
    /// Keys tracked at once; default: 1,000,000, or 10,000 where each has a limit of its own to find
    pub max_keys: NonZeroUsize,
    /// When every tracked key is active; default: allow
    pub on_full: OnFull,
    /// Default: enforce
    pub mode: Mode,
    /// Who keeps the budgets; `None` is this gateway alone
    pub store: Option<Store>,
}

impl Limit {
    /// Whether it can only be counted once the caller is known.
    pub fn needs_identity(&self) -> bool {
        self.key.iter().any(Selector::needs_identity)
    }

    /// Whether whoever is refused is not to blame for it: what is counted together is not what one client does.
    pub fn is_shared(&self) -> bool {
        let tells_nobody_apart = |part: &Selector| matches!(part, Selector::Route | Selector::Host | Selector::Method);
        matches!(self.kind, LimitKind::Adaptive { .. }) || self.key.iter().all(tells_nobody_apart)
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Requests per time
    Rate {
        /// `rate`
        rate: Rate,
        /// `burst`; default: the rate's own count
        burst: NonZeroU32,
    },
    /// `concurrent`: requests in flight
    Concurrent(NonZeroU32),
    /// `concurrent = "adaptive"`: as many in flight as the upstream answers without making them wait
    Adaptive {
        /// `min_concurrent`; default: 3
        min: NonZeroU32,
        /// `max_concurrent`, not less; default: 1000
        max: NonZeroU32,
    },
}

/// What a new key gets when every tracked key is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Let it through, uncounted
    Allow,
    /// Refuse it
    Deny,
}

/// Whether a refusal is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refuse
    Enforce,
    /// Decide, count and log, but let through
    Shadow,
}
