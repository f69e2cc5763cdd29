//! `[limits.NAME]`: how much.

use std::num::{NonZeroU32, NonZeroUsize};

use http::{HeaderName, Method};

use super::{Queue, Rate, Selector, Store};

/// `[limits.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// `rate` with `burst`, `quota`, or `concurrent`
    pub kind: LimitKind,
    /// What one request takes; default: 1
    pub cost: Cost,
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
    /// Tell clients in the fields of old, too; default: false
    pub legacy_headers: bool,
    /// Tell clients by which key they are counted, as a hash; default: false
    pub partition_key: bool,
    /// Show operators the busiest keys as they are; default: false
    pub show_keys: bool,
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
    /// `quota`: requests in each period of the calendar
    Quota {
        /// How many
        count: NonZeroU32,
        /// In which, of UTC
        period: Period,
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

/// After what a quota begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Sixty seconds
    Minute,
    /// Sixty minutes
    Hour,
    /// From midnight to midnight
    Day,
    /// From Monday to Sunday
    Week,
    /// From its first day to its last
    Month,
}

impl Period {
    /// Every period and its name, the shortest first.
    pub const ALL: [(&'static str, Self); 5] = [
        ("minute", Self::Minute),
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
    ];
}

/// What a request takes of a rate or a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// One
    One,
    /// By the method; 1 for those that are not named
    Method(Vec<(Method, NonZeroU32)>),
    /// What a trusted proxy says in this header; 1 where there is none
    Header(HeaderName),
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
