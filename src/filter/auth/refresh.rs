//! Keys are fetched in the background, on time and on demand, but never often.
//!
//! A request that meets an unknown key asks for newer ones and waits a moment for an answer under way. However many ask,
//! a fetch begins at most once a cool-down: whoever can send tokens cannot make us hammer the issuer. A failure changes
//! nothing but the age of the keys.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use super::counters::Counters;
use super::jwk;
use super::key::KeySet;
use super::keyring::Keyring;
use crate::config::Name;
use crate::http::fetch::{FetchError, Fetched, Limits, fetch};

/// Of a whole key set.
const MAX_SET_BYTES: usize = 256 * 1024;
/// Requests that wait for newer keys at the same time; more are refused at once.
const MAX_WAITING: usize = 512;

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between fetches, if the issuer says nothing
    pub(super) interval: Duration,
    /// Least and most of what the issuer may say
    pub(super) allowed: (Duration, Duration),
    /// After a failure: first and longest pause
    pub(super) retry: (Duration, Duration),
    /// Between the beginnings of a fetch and of one that a request asks for
    pub(super) cooldown: Duration,
    /// How long a request waits for newer keys
    pub(super) patience: Duration,
    /// Of one fetch
    pub(super) timeout: Duration,
    /// How long the first keys are waited for before requests are called in
    pub(super) settle: Duration,
}

impl Pace {
    pub(super) const USUAL: Self = Self {
        interval: Duration::from_secs(5 * 60),
        allowed: (Duration::from_secs(60), Duration::from_secs(60 * 60)),
        retry: (Duration::from_secs(1), Duration::from_secs(60)),
        cooldown: Duration::from_secs(10),
        patience: Duration::from_secs(2),
        timeout: Duration::from_secs(10),
        settle: Duration::from_secs(5),
    };
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
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
    pub(super) const ALL: [Self; 6] =
        [Self::Success, Self::Unreachable, Self::Timeout, Self::Status, Self::TooLarge, Self::Invalid];

    pub(super) fn name(self) -> &'static str {
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

/// An issuer's key set and when to ask for it.
#[derive(Debug)]
pub(super) struct Remote {
    name: Name,
    uri: Uri,
    pace: Pace,
    schedule: Mutex<Schedule>,
    wake: Arc<Notify>,
    /// Counts fetches that have ended
    ended: watch::Sender<u64>,
    waiting: Semaphore,
    /// Which task is at work; an older one ends
    at_work: AtomicU64,
}

#[derive(Debug)]
struct Schedule {
    due: Instant,
    /// A fetch runs or is about to
    underway: bool,
    began: Option<Instant>,
    succeeded: Option<Instant>,
    failures: u32,
}

impl Remote {
    pub(super) fn new(name: &Name, uri: &Uri, pace: Pace) -> Self {
        let schedule = Schedule { due: Instant::now(), underway: false, began: None, succeeded: None, failures: 0 };
        Self {
            name: Arc::clone(name),
            uri: uri.clone(),
            pace,
            schedule: Mutex::new(schedule),
            wake: Arc::default(),
            ended: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
            at_work: AtomicU64::new(0),
        }
    }

    /// Since the keys in use were fetched.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.schedule.lock().succeeded.map(|then| now.saturating_duration_since(then))
    }

    /// Waits until a fetch has succeeded, but not for long.
    pub(super) async fn first(&self) {
        let mut ended = self.ended.subscribe();
        let known = ended.wait_for(|_| self.schedule.lock().succeeded.is_some());
        // Too late, or nobody left to fetch: then requests find out.
        let _ = tokio::time::timeout(self.pace.settle, known).await;
    }

    /// Asks for newer keys and waits for them a moment; whether they came, the caller sees for itself.
    pub(super) async fn newer(&self) {
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut ended = self.ended.subscribe();
        if self.ask(Instant::now()) {
            // Too late is a refusal, and the next request may find the keys there.
            let _ = tokio::time::timeout(self.pace.patience, ended.changed()).await;
        }
    }

    /// Whether a fetch runs or will at once; within the cool-down none is begun.
    fn ask(&self, now: Instant) -> bool {
        let mut schedule = self.schedule.lock();
        if schedule.underway {
            return true;
        }
        if schedule.began.is_some_and(|began| now.saturating_duration_since(began) < self.pace.cooldown) {
            return false;
        }
        schedule.underway = true;
        schedule.due = now;
        drop(schedule);
        self.wake.notify_one();
        true
    }

    fn pause(&self, now: Instant) -> Duration {
        self.schedule.lock().due.saturating_duration_since(now)
    }

    /// Whether it is time; if so, a fetch has begun.
    fn begin(&self, now: Instant) -> bool {
        let mut schedule = self.schedule.lock();
        if schedule.due > now {
            return false;
        }
        schedule.underway = true;
        schedule.began = Some(now);
        true
    }

    /// A fetch has ended: with keys and for how long they are fresh, or without.
    fn end(&self, fresh_for: Option<Option<Duration>>, now: Instant) {
        let mut schedule = self.schedule.lock();
        schedule.underway = false;
        let pause = match fresh_for {
            Some(fresh_for) => {
                schedule.failures = 0;
                schedule.succeeded = Some(now);
                let (least, most) = self.pace.allowed;
                fresh_for.map_or(self.pace.interval, |fresh_for| fresh_for.clamp(least, most))
            }
            None => {
                let (first, longest) = self.pace.retry;
                let doublings = schedule.failures.min(16);
                schedule.failures += 1;
                first.saturating_mul(1 << doublings).min(longest)
            }
        };
        schedule.due = now + jittered(pause);
        drop(schedule);
        self.ended.send_modify(|ended| *ended += 1);
    }
}

impl Drop for Remote {
    /// The task need not sleep on.
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// How the task holds the keys it fetches.
#[derive(Debug)]
pub(super) struct Owner {
    keyring: Weak<Keyring>,
    version: u64,
}

impl Owner {
    /// Whoever owns from now on: tasks of earlier owners end.
    pub(super) fn new(keyring: &Arc<Keyring>) -> Option<Self> {
        let remote = keyring.source()?;
        let version = remote.at_work.fetch_add(1, Ordering::Relaxed) + 1;
        remote.wake.notify_waiters();
        Some(Self { keyring: Arc::downgrade(keyring), version })
    }

    /// Runs `work` on the keys and where they come from, unless they are gone or another task is at work.
    fn with<T>(&self, work: impl FnOnce(&Keyring, &Remote) -> T) -> Option<T> {
        let keyring = self.keyring.upgrade()?;
        let remote = keyring.source()?;
        (remote.at_work.load(Ordering::Relaxed) == self.version).then(|| work(&keyring, remote))
    }
}

/// Fetches until the owner is gone: at once, then whenever it is time or somebody asks.
pub(super) async fn follow(owner: Owner, counters: Arc<Counters>) {
    loop {
        let plan = owner.with(|_, remote| (Arc::clone(&remote.wake), remote.pause(Instant::now())));
        let Some((wake, pause)) = plan else { return };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
        }
        let begun =
            owner.with(|_, remote| remote.begin(Instant::now()).then(|| (remote.uri.clone(), remote.pace.timeout)));
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
    let name = &remote.name;
    let was_failing = remote.schedule.lock().failures > 0;
    match read(answer) {
        Ok((set, fresh_for)) => {
            let keys = set.len();
            if keyring.replace(set) {
                log::info!("auth {name}: verifying with {keys} fetched keys");
            } else if was_failing {
                log::info!("auth {name}: keys can be fetched again");
            }
            counters.refreshed(Outcome::Success);
            remote.end(Some(fresh_for), Instant::now());
        }
        Err((outcome, why)) => {
            if !was_failing {
                let kept =
                    if keyring.current().is_some() { "keeping those there are" } else { "and there are none yet" };
                log::warn!("auth {name}: keys cannot be fetched, {kept}: {why}");
            }
            counters.refreshed(outcome);
            remote.end(None, Instant::now());
        }
    }
}

/// The keys of a response, and for how long they are fresh if it says so.
fn read(answer: Result<Fetched, FetchError>) -> Result<(KeySet, Option<Duration>), (Outcome, String)> {
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
    for skipped in read.skipped {
        log::debug!("a fetched key is not used: {}: {}", skipped.id, skipped.why);
    }
    Ok((read.set, max_age(&fetched.headers)))
}

/// `application/json`, `application/jwk-set+json` and relatives; a server that says nothing is believed.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
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

/// A tenth more or less, so that gateways that started together do not ask together.
fn jittered(pause: Duration) -> Duration {
    let per_mille = 900 + u32::try_from(RandomState::new().hash_one(0) % 201).unwrap_or(100);
    pause * per_mille / 1000
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn remote() -> Remote {
        Remote::new(&"corporate".into(), &Uri::from_static("https://id.example.com/jwks"), Pace::USUAL)
    }

    fn about(pause: Duration, seconds: u64) -> bool {
        let expected = Duration::from_secs(seconds);
        (expected * 9 / 10..=expected * 11 / 10).contains(&pause)
    }

    #[test]
    fn failures_are_followed_by_longer_pauses_up_to_a_minute() {
        let remote = remote();
        let now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            remote.end(None, now);
            assert!(about(remote.pause(now), seconds), "{:?} is not about {seconds} s", remote.pause(now));
        }
        for _ in 0..100_000 {
            remote.end(None, now);
        }
        assert!(about(remote.pause(now), 60), "nor does it ever overflow");
        remote.end(Some(None), now);
        assert!(about(remote.pause(now), 300));
        remote.end(None, now);
        assert!(about(remote.pause(now), 1), "a success begins the count anew");
    }

    #[test]
    fn the_issuer_sets_the_pace_between_a_minute_and_an_hour() {
        let remote = remote();
        let now = Instant::now();
        for (max_age, seconds) in [(0, 60), (59, 60), (600, 600), (3600, 3600), (u64::MAX, 3600)] {
            remote.end(Some(Some(Duration::from_secs(max_age))), now);
            assert!(about(remote.pause(now), seconds), "{:?}", remote.pause(now));
        }
    }

    #[test]
    fn a_fetch_that_is_asked_for_begins_once_a_cooldown() {
        let remote = remote();
        let start = Instant::now();
        assert!(remote.begin(start));
        assert!(remote.ask(start), "one is under way");
        remote.end(Some(None), start);
        let later = |millis: u64| start + Duration::from_millis(millis);
        assert!(!remote.ask(later(0)) && !remote.ask(later(9_999)));
        assert!(!remote.begin(later(9_999)), "nobody has asked");
        assert!(remote.ask(later(10_000)) && remote.ask(later(10_001)));
        assert!(remote.begin(later(10_001)));
        remote.end(None, later(10_500));
        assert!(!remote.ask(later(20_000)), "it counts from the beginning of the last, failed or not");
        assert!(remote.ask(later(20_001)));
    }

    #[test]
    fn the_age_counts_from_the_last_success() {
        let remote = remote();
        let start = Instant::now();
        assert_eq!(remote.age(start), None);
        remote.end(Some(None), start);
        remote.end(None, start + Duration::from_secs(5));
        assert_eq!(remote.age(start + Duration::from_secs(7)), Some(Duration::from_secs(7)));
    }

    fn headers(name: http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn max_age_is_found_among_other_directives() {
        let read = |values: &[&'static str]| max_age(&headers(CACHE_CONTROL, values)).map(|age| age.as_secs());
        assert_eq!(read(&["max-age=60"]), Some(60));
        assert_eq!(read(&["public, s-maxage=5, Max-Age=\"60\""]), Some(60));
        assert_eq!(read(&["no-transform", "max-age=60"]), Some(60));
        for values in [&[][..], &["no-store"], &["max-age"], &["max-age=-1"], &["max-age=x"], &["x-max-age=1"]] {
            assert_eq!(read(values), None, "{values:?}");
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        let read = |values: &[&'static str]| is_json(&headers(CONTENT_TYPE, values));
        for value in ["application/json", "application/jwk-set+json", "Application/JSON; charset=utf-8"] {
            assert!(read(&[value]), "{value}");
        }
        assert!(read(&[]));
        for value in ["text/html", "", "application/jsonp", "text/plain"] {
            assert!(!read(&[value]), "{value}");
        }
    }
}
