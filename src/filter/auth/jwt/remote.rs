//! An issuer whose keys are fetched, and when it is asked: on time and on demand, but never often.
//!
//! A request that meets an unknown key asks for newer ones and waits a moment for an answer under way. However many ask,
//! a fetch begins at most once a cool-down: whoever can send tokens cannot make us hammer the issuer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use super::keyring::Keyring;
use super::published::{Known, Place};
use crate::config::Name;

/// Requests that wait for newer keys at the same time; more are refused at once.
const MAX_WAITING: usize = 512;

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(in crate::filter::auth) struct Pace {
    /// Between fetches, if the issuer says nothing
    pub(in crate::filter::auth) interval: Duration,
    /// Least and most of what the issuer may say
    pub(in crate::filter::auth) allowed: (Duration, Duration),
    /// After a failure: first and longest pause
    pub(in crate::filter::auth) retry: (Duration, Duration),
    /// Between the beginnings of a fetch and of one that a request asks for
    pub(in crate::filter::auth) cooldown: Duration,
    /// How long a request waits for newer keys
    pub(in crate::filter::auth) patience: Duration,
    /// Of one fetch
    pub(in crate::filter::auth) timeout: Duration,
    /// How long the first keys are waited for before requests are called in
    pub(in crate::filter::auth) settle: Duration,
}

impl Pace {
    pub(in crate::filter::auth) const USUAL: Self = Self {
        interval: Duration::from_secs(5 * 60),
        allowed: (Duration::from_secs(60), Duration::from_secs(60 * 60)),
        retry: (Duration::from_secs(1), Duration::from_secs(60)),
        cooldown: Duration::from_secs(10),
        patience: Duration::from_secs(2),
        timeout: Duration::from_secs(10),
        settle: Duration::from_secs(5),
    };
}

/// An issuer's key set and when to ask for it.
#[derive(Debug)]
pub(super) struct Remote {
    name: Name,
    place: Place,
    /// What the keys in use came with
    known: Mutex<Known>,
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
    pub(super) fn new(name: &Name, place: Place, pace: Pace) -> Self {
        let schedule = Schedule { due: Instant::now(), underway: false, began: None, succeeded: None, failures: 0 };
        Self {
            name: Arc::clone(name),
            place,
            known: Mutex::default(),
            pace,
            schedule: Mutex::new(schedule),
            wake: Arc::default(),
            ended: watch::Sender::new(0),
            waiting: Semaphore::new(MAX_WAITING),
            at_work: AtomicU64::new(0),
        }
    }

    /// Whose keys they are.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Since keys were last fetched.
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

    /// What a fetch needs.
    pub(super) fn target(&self) -> (Place, Known, Duration) {
        (self.place.clone(), self.known.lock().clone(), self.pace.timeout)
    }

    /// How long there is nothing to do, and what ends that early.
    pub(super) fn rest(&self, now: Instant) -> (Duration, Arc<Notify>) {
        (self.pause(now), Arc::clone(&self.wake))
    }

    fn pause(&self, now: Instant) -> Duration {
        self.schedule.lock().due.saturating_duration_since(now)
    }

    /// Whether it is time; if so, a fetch has begun.
    pub(super) fn begin(&self, now: Instant) -> bool {
        let mut schedule = self.schedule.lock();
        if schedule.due > now {
            return false;
        }
        schedule.underway = true;
        schedule.began = Some(now);
        true
    }

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.schedule.lock().failures > 0
    }

    /// A fetch has ended with keys, and they may be fresh for so long.
    pub(super) fn succeeded(&self, known: Known, fresh_for: Option<Duration>, now: Instant) {
        *self.known.lock() = known;
        let (least, most) = self.pace.allowed;
        let pause = fresh_for.map_or(self.pace.interval, |fresh_for| fresh_for.clamp(least, most));
        self.ended(now, |schedule| {
            schedule.failures = 0;
            schedule.succeeded = Some(now);
            pause
        });
    }

    /// A fetch has ended without keys.
    pub(super) fn failed(&self, now: Instant) {
        let (first, longest) = self.pace.retry;
        self.ended(now, |schedule| {
            let doublings = schedule.failures.min(16);
            schedule.failures = schedule.failures.saturating_add(1);
            first.saturating_mul(1 << doublings).min(longest)
        });
    }

    fn ended(&self, now: Instant, pause: impl FnOnce(&mut Schedule) -> Duration) {
        let mut schedule = self.schedule.lock();
        schedule.underway = false;
        schedule.due = now + jittered(pause(&mut schedule));
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
    pub(super) fn with<T>(&self, work: impl FnOnce(&Keyring, &Remote) -> T) -> Option<T> {
        let keyring = self.keyring.upgrade()?;
        let remote = keyring.source()?;
        (remote.at_work.load(Ordering::Relaxed) == self.version).then(|| work(&keyring, remote))
    }
}

/// A tenth more or less, so that gateways that started together do not ask together.
fn jittered(pause: Duration) -> Duration {
    let per_mille = 900 + u32::try_from(RandomState::new().hash_one(0) % 201).unwrap_or(100);
    pause * per_mille / 1000
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::filter::auth::jwt::published::Entry;
    use crate::http::fetch::Trust;

    fn remote() -> Remote {
        let entry = Entry::Keys(Uri::from_static("https://id.example.com/jwks"));
        Remote::new(&"corporate".into(), Place { entry, trust: Trust::System }, Pace::USUAL)
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
            remote.failed(now);
            assert!(about(remote.pause(now), seconds), "{:?} is not about {seconds} s", remote.pause(now));
        }
        for _ in 0..100_000 {
            remote.failed(now);
        }
        assert!(about(remote.pause(now), 60), "nor does it ever overflow");
        remote.succeeded(Known::default(), None, now);
        assert!(about(remote.pause(now), 300));
        remote.failed(now);
        assert!(about(remote.pause(now), 1), "a success begins the count anew");
    }

    #[test]
    fn the_issuer_sets_the_pace_between_a_minute_and_an_hour() {
        let remote = remote();
        let now = Instant::now();
        for (max_age, seconds) in [(0, 60), (59, 60), (600, 600), (3600, 3600), (u64::MAX, 3600)] {
            remote.succeeded(Known::default(), Some(Duration::from_secs(max_age)), now);
            assert!(about(remote.pause(now), seconds), "{:?}", remote.pause(now));
        }
    }

    #[test]
    fn a_fetch_that_is_asked_for_begins_once_a_cooldown() {
        let remote = remote();
        let start = Instant::now();
        assert!(remote.begin(start));
        assert!(remote.ask(start), "one is under way");
        remote.succeeded(Known::default(), None, start);
        let later = |millis: u64| start + Duration::from_millis(millis);
        assert!(!remote.ask(later(0)) && !remote.ask(later(9_999)));
        assert!(!remote.begin(later(9_999)), "nobody has asked");
        assert!(remote.ask(later(10_000)) && remote.ask(later(10_001)));
        assert!(remote.begin(later(10_001)));
        remote.failed(later(10_500));
        assert!(!remote.ask(later(20_000)), "it counts from the beginning of the last, failed or not");
        assert!(remote.ask(later(20_001)));
    }

    #[test]
    fn the_age_counts_from_the_last_success() {
        let remote = remote();
        let start = Instant::now();
        assert_eq!(remote.age(start), None);
        remote.succeeded(Known::default(), None, start);
        remote.failed(start + Duration::from_secs(5));
        assert_eq!(remote.age(start + Duration::from_secs(7)), Some(Duration::from_secs(7)));
    }
}
