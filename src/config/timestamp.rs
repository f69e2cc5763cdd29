//! Moments that an operator writes: TOML's dates and times, which are those of RFC 3339.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toml::value::{Datetime, Offset};

const DAY: u64 = 24 * 60 * 60;

/// A moment to the second, in seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The second that `time` is in.
    pub fn of(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
    }

    /// A date and time with its difference from UTC, not before 1970. What is no whole second is cut off.
    pub fn from_datetime(datetime: &Datetime) -> Option<Self> {
        let (date, time) = (datetime.date?, datetime.time?);
        let ahead = match datetime.offset? {
            Offset::Z => 0,
            Offset::Custom { minutes } => i64::from(minutes) * 60,
        };
        let days = i64::try_from(days(u64::from(date.year), u64::from(date.month), u64::from(date.day))?).ok()?;
        let seconds = u32::from(time.hour) * 3600 + u32::from(time.minute) * 60 + u32::from(time.second.unwrap_or(0));
        u64::try_from(days * i64::try_from(DAY).ok()? + i64::from(seconds) - ahead).ok().map(Self)
    }

    /// A date, which is its first second in UTC, or what [`from_datetime`](Self::from_datetime) takes.
    pub fn parse(text: &str) -> Option<Self> {
        let datetime: Datetime = text.parse().ok()?;
        match (datetime.date, datetime.time) {
            (Some(date), None) => {
                days(u64::from(date.year), u64::from(date.month), u64::from(date.day)).map(|days| Self(days * DAY))
            }
            _ => Self::from_datetime(&datetime),
        }
    }
}

/// From 1970-01-01 to this date; years are counted from 1 March, so that the leap day ends one.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    (year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day).checked_sub(719_469)
}

/// RFC 3339, UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The other way round: eras of 400 years that begin on 1 March.
        let shifted = self.0 / DAY + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let second = self.0 % DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_in_utc_wherever_they_were_written() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("2000-03-01", 951_868_800),
            ("2001-09-09T01:46:40Z", 1_000_000_000),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199),
            ("2027-01-01 00:00:00-08:00", 1_798_790_400),
        ] {
            assert_eq!(Timestamp::parse(text), Some(Timestamp(seconds)), "{text}");
        }
        for text in ["", "tomorrow", "2027-02-29", "2027-01-01T00:00:00", "00:00:00", "1969-12-31", "0000-01-01"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_that_was_written_is_read(seconds in 0..253_402_300_800_u64) {
            prop_assert_eq!(Timestamp::parse(&Timestamp(seconds).to_string()), Some(Timestamp(seconds)));
        }
    }
}
