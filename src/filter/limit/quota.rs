//! Calendar quotas: so many in each minute, hour, day, week or month of UTC, counted exactly and from zero at its
//! beginning.
//!
//! A mark is the beginning of a period, in minutes since 1970, and below it how much of that period's quota is used.
//!
//! The clock may be set back. A period that has begun then goes on until it ends, so nothing is granted twice. Only if
//! the clock is set back by more than a whole period was it wrong before: then what was used counts for the period that
//! it is, so that nobody waits for an end that is years away.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{SystemTime, UNIX_EPOCH};

use super::key::Key;
use super::rate::Decision;
use super::table::Table;
use crate::config::Period;

const DAY: u64 = 24 * 60;

/// A table of what is used.
#[derive(Debug)]
pub(super) struct Quota {
    count: u32,
    period: Period,
    table: Table,
}

impl Quota {
    pub(super) fn new(count: NonZeroU32, period: Period, max_keys: NonZeroUsize) -> Self {
        Self { count: count.get(), period, table: Table::new(max_keys) }
    }

    /// Takes `cost` from what the key may use in the present period.
    pub(super) fn take(&self, key: Key, cost: NonZeroU32, now: SystemTime) -> Decision {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = begin(self.period, minutes(seconds));
        let decide = |floor: u64, mark: u64| {
            // A mark beyond is of a clock that was wrong: what was used is used.
            let used = if mark > floor { mark as u32 } else { 0 };
            let left = end(self.period, floor >> 32).saturating_mul(60).saturating_sub(seconds).max(1);
            match used.checked_add(cost.get()).filter(|used| *used <= self.count) {
                Some(used) => {
                    let mark = floor | u64::from(used);
                    (mark, Decision::Allow { remaining: self.count - used, reset: left, mark })
                }
                None => (floor | u64::from(used), Decision::Refuse { seconds: left }),
            }
        };
        let raise = |last: u64| {
            let last = last >> 32;
            let is_wrong = now < last && now < begin(self.period, last.saturating_sub(1));
            (if is_wrong { now } else { now.max(last) }) << 32
        };
        self.table.update(key, raise, decide).unwrap_or(Decision::Full)
    }

    /// Undoes a [`Self::take`] that left `mark`, unless another period has begun.
    pub(super) fn give_back(&self, key: Key, cost: NonZeroU32, mark: u64) {
        self.table.change(key, |_, now| {
            let (used, is_same) = (now as u32, now >> 32 == mark >> 32);
            if is_same { now - u64::from(used.min(cost.get())) } else { now }
        });
    }

    /// Keys, evictions, and decisions made while full.
    pub(super) fn stats(&self) -> (u64, u64, u64) {
        self.table.stats()
    }

    /// The keys that have used most, and how much.
    pub(super) fn busiest(&self, count: usize) -> Vec<(Key, u64)> {
        self.table.highest(count).into_iter().map(|(key, mark)| (key, u64::from(mark as u32))).collect()
    }
}

/// Whole minutes: periods begin at them. Those of 8,000 years fit into half a mark.
fn minutes(seconds: u64) -> u64 {
    (seconds / 60).min(u64::from(u32::MAX))
}

/// When the period began in which this minute is.
fn begin(period: Period, minute: u64) -> u64 {
    let day = minute / DAY;
    match period {
        Period::Minute => minute,
        Period::Hour => minute / 60 * 60,
        Period::Day => day * DAY,
        // 1970-01-01 was a Thursday, and a week begins with its Monday (ISO 8601): the first days are of a week before.
        Period::Week => day.saturating_sub((day + 3) % 7) * DAY,
        Period::Month => (day - day_of_month(day)) * DAY,
    }
}

/// When it ends that began in this minute.
fn end(period: Period, begin: u64) -> u64 {
    match period {
        Period::Minute => begin + 1,
        Period::Hour => begin + 60,
        Period::Day => begin + DAY,
        Period::Week => self::begin(period, begin + 7 * DAY),
        // No month has more days, and none fewer than the 28 after which the next would begin at the earliest.
        Period::Month => self::begin(period, begin + 31 * DAY),
    }
}

/// From zero, by the civil calendar: years are taken to begin in March, so that a leap day is the last of one.
fn day_of_month(day: u64) -> u64 {
    /// Days from 0000-03-01 to 1970-01-01, and those of 400 years, after which the calendar is the same again.
    const SHIFT: u64 = 719_468;
    const ERA: u64 = 146_097;
    let day_of_era = (day + SHIFT) % ERA;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month + 2) / 5
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PERIODS: [Period; 5] = [Period::Minute, Period::Hour, Period::Day, Period::Week, Period::Month];

    fn quota(count: u32, period: Period) -> Quota {
        let count = NonZeroU32::new(count).expect("not zero");
        Quota::new(count, period, NonZeroUsize::new(10).expect("not zero"))
    }

    fn key() -> Key {
        Key::of(1)
    }

    fn at(text: &str) -> SystemTime {
        httpdate::parse_http_date(text).expect("a date")
    }

    fn passes(quota: &Quota, now: SystemTime) -> bool {
        matches!(quota.take(key(), NonZeroU32::MIN, now), Decision::Allow { .. })
    }

    fn wait(quota: &Quota, now: SystemTime) -> u64 {
        match quota.take(key(), NonZeroU32::MIN, now) {
            Decision::Refuse { seconds } => seconds,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_period_ends_where_the_calendar_says() {
        // Each: a last second that is refused, and a first that is not.
        let edges = [
            (Period::Month, "Thu, 29 Feb 2024 23:59:59 GMT", "Fri, 01 Mar 2024 00:00:00 GMT"),
            (Period::Month, "Sun, 28 Feb 2100 23:59:59 GMT", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (Period::Month, "Wed, 31 Jan 2024 23:59:59 GMT", "Thu, 01 Feb 2024 00:00:00 GMT"),
            (Period::Month, "Thu, 31 Dec 2026 23:59:59 GMT", "Fri, 01 Jan 2027 00:00:00 GMT"),
            (Period::Week, "Sun, 29 Nov 2026 23:59:59 GMT", "Mon, 30 Nov 2026 00:00:00 GMT"),
            (Period::Day, "Wed, 25 Nov 2026 23:59:59 GMT", "Thu, 26 Nov 2026 00:00:00 GMT"),
            (Period::Hour, "Wed, 25 Nov 2026 12:59:59 GMT", "Wed, 25 Nov 2026 13:00:00 GMT"),
            (Period::Minute, "Wed, 25 Nov 2026 12:34:59 GMT", "Wed, 25 Nov 2026 12:35:00 GMT"),
        ];
        for (period, last, first) in edges {
            let quota = quota(2, period);
            assert!(passes(&quota, at(last)) && passes(&quota, at(last)), "{last}");
            assert_eq!(wait(&quota, at(last)), 1, "{last}");
            assert!(passes(&quota, at(first)), "{first}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_grants_nothing_and_keeps_nobody_waiting_for_years() {
        let quota = quota(2, Period::Day);
        let morning = at("Thu, 26 Nov 2026 00:00:01 GMT");
        assert!(passes(&quota, morning) && passes(&quota, morning) && !passes(&quota, morning));
        let evening = morning - Duration::from_secs(2);
        assert_eq!(wait(&quota, evening), 24 * 60 * 60 + 1, "the day that has begun goes on");
        assert!(!passes(&quota, morning), "and is not another one when it begins again");
        let future = morning + Duration::from_secs(10 * 365 * 24 * 60 * 60);
        assert!(passes(&quota, future) && passes(&quota, future) && !passes(&quota, future));
        assert_eq!(wait(&quota, morning), 24 * 60 * 60 - 1, "what was used in a wrong year counts today");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_in_its_period_alone() {
        let quota = quota(5, Period::Day);
        let cost = NonZeroU32::new(5).expect("not zero");
        let (today, tomorrow) = (at("Wed, 25 Nov 2026 12:00:00 GMT"), at("Thu, 26 Nov 2026 12:00:00 GMT"));
        let take = |now| match quota.take(key(), cost, now) {
            Decision::Allow { mark, .. } => Some(mark),
            _ => None,
        };
        let first = take(today).expect("all of it");
        assert_eq!(take(today), None);
        quota.give_back(key(), cost, first);
        let second = take(today).expect("all of it again");
        let third = take(tomorrow).expect("all of another day");
        quota.give_back(key(), cost, second);
        assert_eq!(take(tomorrow), None);
        quota.give_back(key(), cost, third);
        assert!(take(tomorrow).is_some());
    }

    /// The calendar once more, by counting.
    fn month_of(day: u64) -> (u64, u64, u64) {
        let (mut year, mut month, mut left) = (1970, 1, day);
        loop {
            let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let days = match month {
                2 => 28 + u64::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            if left < days {
                return (year, month, left);
            }
            left -= days;
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
    }

    proptest! {
        #[test]
        fn months_are_those_of_the_calendar(day in 0u64..200_000) {
            prop_assert_eq!(day_of_month(day), month_of(day).2);
        }

        #[test]
        fn periods_follow_one_another_without_a_gap(minute in 20_000u64..300_000_000, which in 0usize..5) {
            let period = PERIODS[which];
            let first = begin(period, minute);
            let next = end(period, first);
            prop_assert!(first <= minute && minute < next);
            prop_assert_eq!(begin(period, next - 1), first);
            prop_assert_eq!(begin(period, next), next);
        }

        /// Steps of up to 40 days forwards, and back by less than the shortest month.
        #[test]
        fn no_period_grants_more_than_its_quota_wherever_the_clock_goes(
            count in 1u32..6, which in 0usize..5,
            steps in proptest::collection::vec((any::<bool>(), 0u64..100, 1u32..4), 1..200),
        ) {
            let period = PERIODS[which];
            let length = [60, 3600, 86_400, 604_800, 28 * 86_400][which];
            let quota = quota(count, period);
            let (mut now, mut latest, mut used) = (2_000_000_000u64, 0, 0);
            for (is_back, percent, cost) in steps {
                now = if is_back { now - length * percent / 100 } else { now + length * percent / 70 };
                let this = begin(period, minutes(now));
                // Back by a whole period, in several steps, is more than a clock that is a little wrong.
                if this < begin(period, latest - u64::from(latest > 0)) {
                    now = latest * 60;
                    continue;
                }
                if this > latest {
                    (latest, used) = (this, 0);
                }
                let cost = NonZeroU32::new(cost).expect("from 1");
                let decision = quota.take(key(), cost, UNIX_EPOCH + Duration::from_secs(now));
                if used + cost.get() <= count {
                    used += cost.get();
                    let is_right = matches!(decision, Decision::Allow { remaining, .. } if remaining == count - used);
                    prop_assert!(is_right, "{:?}", decision);
                } else {
                    let end = end(period, latest) * 60;
                    prop_assert_eq!(decision, Decision::Refuse { seconds: end - now });
                }
            }
        }
    }
}
