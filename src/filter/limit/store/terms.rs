//! What is counted, and what a store says of it.

use crate::config::Period;

/// What a limit lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::filter::limit) enum Terms {
    /// In nanoseconds: those that earn one request, and those that earn a whole burst
    Rate { interval: u64, burst: u64 },
    /// So many in each period of the server's calendar
    Quota { count: u32, period: Period },
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Of a rate, the nanoseconds that earn back what was taken; of a quota, how many were
    pub(super) owed: u64,
    /// Of a quota, the milliseconds until its period ends
    pub(super) left: u64,
    /// Of a quota, when that is, in seconds since 1970: which period it is
    pub(super) ends: u64,
}

/// The answer: how many were granted, and how things stand then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) granted: u32,
    pub(super) standing: Standing,
}

impl Terms {
    /// What so many owe.
    pub(super) fn price(self, count: u32) -> u64 {
        match self {
            Self::Rate { interval, .. } => interval.saturating_mul(count.into()),
            Self::Quota { .. } => count.into(),
        }
    }

    /// What can be owed at most.
    pub(super) fn most(self) -> u64 {
        match self {
            Self::Rate { burst, .. } => burst,
            Self::Quota { count, .. } => count.into(),
        }
    }

    /// How many would pass now.
    pub(super) fn remaining(self, owed: u64) -> u32 {
        u32::try_from(self.most().saturating_sub(owed) / self.price(1)).unwrap_or(u32::MAX)
    }

    /// Nanoseconds until so many would pass.
    pub(super) fn wait(self, standing: Standing, cost: u32) -> u64 {
        let missing = standing.owed.saturating_add(self.price(cost)).saturating_sub(self.most());
        match self {
            Self::Rate { .. } => missing,
            Self::Quota { .. } if missing == 0 => 0,
            Self::Quota { .. } => nanos(standing.left),
        }
    }

    /// Nanoseconds until all is there again.
    pub(super) fn reset(self, standing: Standing) -> u64 {
        match self {
            Self::Rate { .. } => standing.owed,
            Self::Quota { .. } => nanos(standing.left),
        }
    }
}

impl Standing {
    /// The same, had so many not been taken.
    pub(super) fn without(self, terms: Terms, count: u32) -> Self {
        Self { owed: self.owed.saturating_sub(terms.price(count)), ..self }
    }
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}
