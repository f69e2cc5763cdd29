//! The generic cell rate algorithm: per key one number, the moment at which its budget would be full again.
//!
//! A request of a key moves that moment by the time it takes to earn what the request costs; it is refused if the
//! moment would then lie further ahead than a whole burst takes to earn. So in any time t at most `burst + rate * t`
//! passes, and no counter is ever reset (ITU-T I.371, "virtual scheduling").

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Instant;

use super::key::Key;
use super::table::Table;
use crate::config;

/// A table of budgets: marks are nanoseconds since the epoch.
#[derive(Debug)]
pub(super) struct Rate {
    /// Nanoseconds that earn one request, rounded up
    interval: u64,
    /// Nanoseconds that earn a whole burst
    burst: u64,
    /// What times are counted from
    epoch: Instant,
    table: Table,
}

/// What a budget says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Taken; so many more would pass at once, all is refilled in so many seconds, and this is the mark it left
    Allow { remaining: u32, reset: u64, mark: u64 },
    /// Not taken; it would pass in so many seconds, rounded up
    Refuse { seconds: u64 },
    /// Every tracked key is active
    Full,
}

impl Rate {
    pub(super) fn new(rate: config::Rate, burst: NonZeroU32, max_keys: NonZeroUsize) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rate.count.get()));
        Self {
            interval,
            burst: interval.saturating_mul(u64::from(burst.get())),
            epoch: Instant::now(),
            table: Table::new(max_keys),
        }
    }

    /// Nanoseconds that earn one request, and a whole burst.
    pub(super) fn terms(&self) -> (u64, u64) {
        (self.interval, self.burst)
    }

    /// Takes `cost` from the key's budget. The clock of a shard does not go back: who comes with an earlier instant
    /// comes after those who came with a later one.
    pub(super) fn take(&self, key: Key, cost: NonZeroU32, now: Instant) -> Decision {
        let (now, price) = (self.nanos(now), self.price(cost));
        let decide = |now: u64, full_at: u64| {
            let moved = full_at.saturating_add(price);
            let owed = moved - now;
            if owed > self.burst {
                return (full_at, Decision::Refuse { seconds: seconds(owed - self.burst) });
            }
            let remaining = u32::try_from((self.burst - owed) / self.interval).unwrap_or(u32::MAX);
            (moved, Decision::Allow { remaining, reset: seconds(owed), mark: moved })
        };
        self.table.update(key, |last| last.max(now), decide).unwrap_or(Decision::Full)
    }

    /// Undoes a [`Self::take`] that left `mark`. What it took and has since been earned back, an idle key has earned
    /// without it too: only what is still owed of it goes back.
    pub(super) fn give_back(&self, key: Key, cost: NonZeroU32, mark: u64, now: Instant) {
        let now = self.nanos(now);
        let price = self.price(cost);
        self.table.change(key, |last, full_at| full_at - price.min(mark.saturating_sub(last.max(now))).min(full_at));
    }

    /// Keys, evictions, and decisions made while full.
    pub(super) fn stats(&self) -> (u64, u64, u64) {
        self.table.stats()
    }

    /// The keys that owe most, and how many requests each would have to wait for.
    pub(super) fn busiest(&self, count: usize, now: Instant) -> Vec<(Key, u64)> {
        let now = self.nanos(now);
        let owed = |mark: u64| mark.saturating_sub(now).div_ceil(self.interval);
        let highest = self.table.highest(count).into_iter().map(|(key, mark)| (key, owed(mark)));
        highest.filter(|(_, owed)| *owed > 0).collect()
    }

    fn price(&self, cost: NonZeroU32) -> u64 {
        self.interval.saturating_mul(u64::from(cost.get()))
    }

    /// An instant from before the epoch is the epoch: clocks that disagree a little grant nothing.
    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Rounded up: never earlier than the truth.
pub(super) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests;
