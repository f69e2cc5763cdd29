//! How long an answer holds, and how to ask whether it still does (RFC 9111 sections 4.2 and 4.3, for a private cache).

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue};

/// Longest validator that is sent back.
const MAX_VALIDATOR_BYTES: usize = 1024;

/// For how long an answer is fresh from now on; `None` if it says nothing about it. What cannot be read says that it is
/// stale (section 4.2.1).
pub(super) fn lifetime(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let told = if directive(headers, "no-store").is_some() || directive(headers, "no-cache").is_some() {
        Some(Duration::ZERO)
    } else if let Some(max_age) = directive(headers, "max-age") {
        Some(max_age.and_then(seconds).unwrap_or_default())
    } else if headers.contains_key(EXPIRES) {
        let written = date(headers, &DATE).unwrap_or(now);
        Some(date(headers, &EXPIRES).and_then(|end| end.duration_since(written).ok()).unwrap_or_default())
    } else if directive(headers, "must-revalidate").is_some() {
        // It forbids to guess, and nothing else is said.
        Some(Duration::ZERO)
    } else {
        None
    };
    let age = headers.get(AGE).and_then(|age| seconds(age.to_str().ok()?)).unwrap_or_default();
    told.map(|told| told.saturating_sub(age))
}

/// What asks for an answer only if it is another than before.
#[derive(Clone, Debug, Default)]
pub(super) struct Validators(HeaderMap);

impl Validators {
    /// Of a whole answer.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut asking = HeaderMap::new();
        for (told, asked) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
            if let Some(value) = headers.get(told).filter(|value| value.len() <= MAX_VALIDATOR_BYTES) {
                asking.insert(asked, value.clone());
            }
        }
        Self(asking)
    }

    /// The fields of the question; none if there is nothing to compare with.
    pub(super) fn fields(&self) -> &HeaderMap {
        &self.0
    }
}

/// The first directive of that name, with its value if it has one.
fn directive<'a>(headers: &'a HeaderMap, name: &str) -> Option<Option<&'a str>> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(|directive| {
        let (name, value) = directive.split_once('=').unzip();
        (name.unwrap_or(directive).trim(), value)
    });
    directives.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Seconds, perhaps in quotes; more than can be counted is for ever.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim().trim_matches('"');
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    headers.get(name).map(HeaderValue::to_str)?.ok().and_then(|text| httpdate::parse_http_date(text).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        fields.iter().map(field).collect()
    }

    fn told(fields: &[(&str, &str)]) -> Option<u64> {
        let now = httpdate::parse_http_date(NOON).expect("a date");
        lifetime(&headers(fields), now).map(|fresh| fresh.as_secs())
    }

    #[test]
    fn max_age_is_found_among_other_directives() {
        for (values, expected) in [
            (&["max-age=60"][..], Some(60)),
            (&["public, s-maxage=5, Max-Age=\"60\""], Some(60)),
            (&["no-transform", "max-age=60"], Some(60)),
            (&["max-age=60, must-revalidate"], Some(60)),
            (&["max-age=60, max-age=10"], Some(60)),
            (&["max-age=99999999999999999999"], Some(u64::MAX)),
            (&[], None),
            (&["public"], None),
            (&["x-max-age=1"], None),
            (&["max-age"], Some(0)),
            (&["max-age=-1"], Some(0)),
            (&["max-age=x"], Some(0)),
            (&["no-store"], Some(0)),
            (&["max-age=60, no-cache"], Some(0)),
            (&["must-revalidate"], Some(0)),
        ] {
            let fields: Vec<_> = values.iter().map(|value| ("cache-control", *value)).collect();
            assert_eq!(told(&fields), expected, "{values:?}");
        }
    }

    #[test]
    fn expires_counts_from_the_date_of_the_answer() {
        let later = "Sun, 06 Nov 1994 12:10:00 GMT";
        assert_eq!(told(&[("expires", later)]), Some(600));
        assert_eq!(told(&[("expires", later), ("date", "Sun, 06 Nov 1994 12:09:00 GMT")]), Some(60));
        assert_eq!(told(&[("expires", later), ("cache-control", "max-age=5")]), Some(5));
        assert_eq!(told(&[("expires", later), ("date", "Sun, 06 Nov 1994 13:00:00 GMT")]), Some(0));
        assert_eq!(told(&[("expires", "0")]), Some(0));
    }

    #[test]
    fn what_lay_in_a_cache_on_the_way_is_fresh_for_less() {
        assert_eq!(told(&[("cache-control", "max-age=60"), ("age", "50")]), Some(10));
        assert_eq!(told(&[("cache-control", "max-age=60"), ("age", "70")]), Some(0));
        assert_eq!(told(&[("cache-control", "max-age=60"), ("age", "old")]), Some(60));
        assert_eq!(told(&[("age", "50")]), None);
    }

    #[test]
    fn an_answer_is_asked_for_by_its_own_validators() {
        let fields = |told: &[(&str, &str)]| Validators::of(&headers(told)).fields().clone();
        let all = [("etag", "W/\"a\""), ("last-modified", NOON)];
        let expected = headers(&[("if-none-match", "W/\"a\""), ("if-modified-since", NOON)]);
        assert_eq!(fields(&all), expected);
        assert!(fields(&[("etag", &"x".repeat(MAX_VALIDATOR_BYTES + 1))]).is_empty());
        assert!(fields(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_read_as_some_time_or_none(cache_control in "[a-z0-9=,\" -]{0,40}", age in "[0-9x-]{0,25}", expires in "[A-Za-z0-9:, ]{0,32}") {
            let fields = [("cache-control", &*cache_control), ("age", &*age), ("expires", &*expires)];
            let _ = told(&fields);
        }
    }
}
