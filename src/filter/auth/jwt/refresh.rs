//! The task that fetches keys. A failure changes nothing but their age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::jwk::{self, Read};
use super::keyring::Keyring;
use super::remote::{Owner, Remote};
use crate::filter::auth::counters::Counters;
use crate::http::fetch::{FetchError, Fetched, Limits, fetch};

/// Of a whole key set.
const MAX_SET_BYTES: usize = 256 * 1024;

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::filter::auth) enum Outcome {
    Success,
    /// No connection, or one that broke
    Unreachable,
    Timeout,
    /// Another status than 200
    Status,
    TooLarge,
    /// Not a key set with a key that can be used
    Invalid,
}

impl Outcome {
    pub(in crate::filter::auth) const ALL: [Self; 6] =
        [Self::Success, Self::Unreachable, Self::Timeout, Self::Status, Self::TooLarge, Self::Invalid];

    pub(in crate::filter::auth) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
        }
    }
}

/// Fetches until the owner is gone: at once, then whenever it is time or somebody asks.
pub(super) async fn follow(owner: Owner, counters: Arc<Counters>) {
    loop {
        let Some((pause, wake)) = owner.with(|_, remote| remote.rest(Instant::now())) else { return };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
        }
        let begun = owner.with(|_, remote| remote.begin(Instant::now()).then(|| remote.target()));
        let Some(begun) = begun else {
            // What woke this task may have been meant for the one that follows it.
            wake.notify_one();
            return;
        };
        let Some((uri, timeout)) = begun else { continue };
        let answer = fetch(&uri, Limits { timeout, max_bytes: MAX_SET_BYTES }).await;
        if owner.with(|keyring, remote| settle(keyring, remote, answer, &counters)).is_none() {
            return;
        }
    }
}

/// Takes the keys over, or keeps those there are; either is logged when it changes.
fn settle(keyring: &Keyring, remote: &Remote, answer: Result<Fetched, FetchError>, counters: &Counters) {
    let name = remote.name();
    let was_failing = remote.is_failing();
    match read(answer) {
        Ok((Read { set, skipped }, fresh_for)) => {
            let keys = set.len();
            if keyring.replace(set) {
                log::info!("auth {name}: verifying with {keys} fetched keys");
                for skipped in skipped {
                    log::info!("auth {name}: fetched key {} is not used: {}", skipped.id, skipped.why);
                }
            } else if was_failing {
                log::info!("auth {name}: keys can be fetched again");
            }
            counters.refreshed(Outcome::Success);
            remote.succeeded(fresh_for, Instant::now());
        }
        Err((outcome, why)) => {
            if !was_failing {
                let kept =
                    if keyring.current().is_some() { "keeping those there are" } else { "and there are none yet" };
                log::warn!("auth {name}: keys cannot be fetched, {kept}: {why}");
            }
            counters.refreshed(outcome);
            remote.failed(Instant::now());
        }
    }
}

/// The keys of a response, and for how long they are fresh if it says so.
fn read(answer: Result<Fetched, FetchError>) -> Result<(Read, Option<Duration>), (Outcome, String)> {
    let fetched = answer.map_err(|error| {
        let outcome = match &error {
            FetchError::TimedOut => Outcome::Timeout,
            FetchError::TooLarge => Outcome::TooLarge,
            FetchError::Forbidden | FetchError::Unreachable(_) | FetchError::Broken(_) => Outcome::Unreachable,
        };
        (outcome, error.to_string())
    })?;
    if fetched.status != StatusCode::OK {
        return Err((Outcome::Status, format!("the answer was {}", fetched.status)));
    }
    if !is_json(&fetched.headers) {
        return Err((Outcome::Invalid, "the answer's Content-Type is not JSON".into()));
    }
    let read =
        jwk::read(&fetched.body).map_err(|why| (Outcome::Invalid, format!("the answer is no key set: {why}")))?;
    Ok((read, max_age(&fetched.headers)))
}

/// `application/json`, `application/jwk-set+json` and relatives; a server that says nothing is believed.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// `max-age` of Cache-Control (RFC 9111 section 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives =
        values.flat_map(|value| value.split(',')).filter_map(|directive| directive.trim().split_once('='));
    let (_, seconds) = directives.find(|(name, _)| name.eq_ignore_ascii_case("max-age"))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn max_age_is_found_among_other_directives() {
        let read = |values: &[&'static str]| max_age(&headers(&CACHE_CONTROL, values)).map(|age| age.as_secs());
        assert_eq!(read(&["max-age=60"]), Some(60));
        assert_eq!(read(&["public, s-maxage=5, Max-Age=\"60\""]), Some(60));
        assert_eq!(read(&["no-transform", "max-age=60"]), Some(60));
        for values in [&[][..], &["no-store"], &["max-age"], &["max-age=-1"], &["max-age=x"], &["x-max-age=1"]] {
            assert_eq!(read(values), None, "{values:?}");
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        let read = |values: &[&'static str]| is_json(&headers(&CONTENT_TYPE, values));
        for value in ["application/json", "application/jwk-set+json", "Application/JSON; charset=utf-8"] {
            assert!(read(&[value]), "{value}");
        }
        assert!(read(&[]));
        for value in ["text/html", "", "application/jsonp", "text/plain"] {
            assert!(!read(&[value]), "{value}");
        }
    }
}
