//! Durations, sizes and rates.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::read::complaint::Complaint;
use crate::config::{Period, Rate};

/// Most requests a rate can count.
const MAX_COUNT: u32 = 1_000_000_000;

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
const PERIODS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// `"250ms"`, `"5s"`, `"1m"`, `"1h"`, within bounds.
pub(crate) fn duration(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, Complaint> {
    let form = "a duration is a whole number and its unit: \"250ms\", \"5s\", \"1m\" or \"1h\"";
    let millis = amount(text, &DURATION_UNITS, form)?;
    let duration = Duration::from_millis(millis);
    if millis == 0 {
        return Err(Complaint::new("zero is not possible here"));
    }
    if !bounds.contains(&duration) {
        let (least, most) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
        return Err(Complaint::new(format!("this must be from {least} to {most}")));
    }
    Ok(duration)
}

/// `"64KiB"`, `"10MiB"`, within bounds.
pub(crate) fn size(text: &str, bounds: RangeInclusive<u64>) -> Result<u64, Complaint> {
    let form = "a size is a whole number and its unit: \"512B\", \"64KiB\", \"10MiB\" or \"1GiB\"";
    let bytes = amount(text, &SIZE_UNITS, form)?;
    if bytes == 0 {
        return Err(Complaint::new("zero is not possible here"));
    }
    if !bounds.contains(&bytes) {
        let (least, most) = (show_size(*bounds.start()), show_size(*bounds.end()));
        return Err(Complaint::new(format!("this must be from {least} to {most}")));
    }
    Ok(bytes)
}

/// `"100/s"`, `"1000/m"`, `"5000/h"`.
pub(crate) fn rate(text: &str) -> Result<Rate, Complaint> {
    let form = "a rate is a whole number, \"/\" and s, m or h: \"100/s\", \"1000/m\" or \"5000/h\"";
    let (count, period) = text.split_once('/').ok_or_else(|| Complaint::new(form))?;
    let seconds = PERIODS.iter().find(|(name, _)| *name == period).map(|(_, seconds)| *seconds);
    let seconds = seconds.ok_or_else(|| Complaint::new(form))?;
    let count = count_of(count, form, "a rate can count to 1,000,000,000 at most")?;
    Ok(Rate { count, per: Duration::from_secs(seconds) })
}

/// `"100000/month"`.
pub(crate) fn quota(text: &str) -> Result<(NonZeroU32, Period), Complaint> {
    let form = "a quota is a whole number, \"/\" and minute, hour, day, week or month: \"100000/month\"";
    let (count, period) = text.split_once('/').ok_or_else(|| Complaint::new(form))?;
    let period = Period::ALL.iter().find(|(name, _)| *name == period).map(|(_, period)| *period);
    let period = period.ok_or_else(|| Complaint::new(form))?;
    Ok((count_of(count, form, "a quota can be 1,000,000,000 at most")?, period))
}

fn count_of(text: &str, form: &'static str, most: &'static str) -> Result<NonZeroU32, Complaint> {
    let count = digits(text).ok_or_else(|| Complaint::new(form))?;
    let count = count.and_then(|count| u32::try_from(count).ok()).filter(|count| *count <= MAX_COUNT);
    let count = count.ok_or_else(|| Complaint::new(most))?;
    NonZeroU32::new(count).ok_or_else(|| Complaint::new("zero is not possible here"))
}

fn amount(text: &str, units: &[(&str, u64)], form: &str) -> Result<u64, Complaint> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = digits(number).ok_or_else(|| Complaint::new(form))?;
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(Complaint::new(form));
    };
    number.and_then(|number| number.checked_mul(*factor)).ok_or_else(|| Complaint::new("this number is too large"))
}

/// `None` if these are not digits, `Some(None)` if they are too many.
fn digits(text: &str) -> Option<Option<u64>> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok())
}

/// In the largest unit that tells it exactly.
fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATION_UNITS)
}

fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().rev().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&units[0]);
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY_DURATION: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    #[test]
    fn the_documented_forms_are_read() {
        assert_eq!(duration("250ms", ANY_DURATION), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h", ANY_DURATION), Ok(Duration::from_secs(3600)));
        assert_eq!(size("64KiB", 0..=u64::MAX), Ok(65_536));
        assert_eq!(size("10B", 0..=u64::MAX), Ok(10));
        let rate = rate("1000/m").expect("a rate");
        assert_eq!((rate.count.get(), rate.per), (1000, Duration::from_secs(60)));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "5", "s", "5 s", "5S", "-5s", "1.5s", "5sec", "1d", "0s", "\u{661}s", "99999999999999999999s"]
        {
            assert!(duration(text, ANY_DURATION).is_err(), "{text}");
        }
        for text in ["", "64", "64KB", "64kib", "0B", "1 KiB", "1TiB", "99999999999GiB"] {
            assert!(size(text, 0..=u64::MAX).is_err(), "{text}");
        }
        for text in ["", "100", "100/", "/s", "100/d", "0/s", "1e3/s", "100 / s", "1000000001/s", "100/s/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_are_told_in_the_units_of_the_language() {
        let bounds = Duration::from_millis(1)..=Duration::from_secs(86_400);
        assert_eq!(duration("25h", bounds).map_err(|it| it.message), Err("this must be from 1ms to 24h".to_owned()));
        assert_eq!(
            size("1B", 1024..=1 << 20).map_err(|it| it.message),
            Err("this must be from 1KiB to 1MiB".to_owned())
        );
    }

    proptest! {
        #[test]
        fn durations_and_sizes_come_back(amount in 1_u64..=u64::MAX / (1 << 30)) {
            let duration_text = show_duration(Duration::from_millis(amount));
            prop_assert_eq!(duration(&duration_text, ANY_DURATION), Ok(Duration::from_millis(amount)));
            prop_assert_eq!(size(&show_size(amount), 0..=u64::MAX), Ok(amount));
        }

        #[test]
        fn rates_come_back(count in 1..=MAX_COUNT, period in 0..3_usize) {
            let (name, seconds) = PERIODS[period];
            let rate = rate(&format!("{count}/{name}")).expect("within bounds");
            prop_assert_eq!((rate.count.get(), rate.per.as_secs()), (count, seconds));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,12}") {
            let _ = (duration(&text, ANY_DURATION), size(&text, 0..=u64::MAX), rate(&text));
        }
    }
}
