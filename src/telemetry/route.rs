//! What is counted of each route's requests, and of each upstream's answers.
//!
//! One request writes two cache lines of its route and two of its upstream. With ten thousand routes that are asked now
//! and then nothing of theirs is in a cache, and each line costs as much as all the arithmetic.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::Scrape;
use crate::config::Name;

/// Nanoseconds; in seconds as OpenTelemetry's conventions for HTTP have them.
const BOUNDS: [u64; 14] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];
const NANOS: f64 = 1e9;
/// Methods that are told apart; any other is `_other`.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "_other"];
/// Status codes from 100 to 599.
const CODES: u32 = 500;
/// Kinds of answers that a route counts without a lock: the first that it gives.
const FEW: usize = 7;

/// The counters of all routes and upstreams there have ever been, by name: a reload does not set them back.
#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: Mutex<BTreeMap<Name, Arc<Counters>>>,
    upstreams: Mutex<BTreeMap<Name, Arc<Durations>>>,
    listeners: Mutex<Listeners>,
}

/// Listeners have numbers, so that an answer's kind is one.
#[derive(Debug, Default)]
struct Listeners {
    names: Vec<Name>,
    /// Those of the last route, which mostly are those of the next too: all share them
    last: Arc<[(Name, u32)]>,
}

/// The counters of one route. The fields stand in the order in which a request comes by them; with what an `Arc` puts
/// in front they are four cache lines, of which it writes the first two unless it is slow.
#[derive(Debug, Default)]
#[repr(C)]
struct Counters {
    in_flight: AtomicI64,
    /// The sum of all durations
    nanos: AtomicU64,
    /// Kinds of answers, each taken by the first of its kind; 0 where there has been none
    kinds: [AtomicU32; FEW],
    /// How many there were of each
    answers: [AtomicU64; FEW],
    buckets: Buckets,
    /// The same for all further kinds
    more: OnceLock<Box<Mutex<BTreeMap<u32, u64>>>>,
}

/// How many took so long: one for each bound, and one for what took longer.
#[derive(Debug, Default)]
struct Buckets([AtomicU64; BOUNDS.len() + 1]);

#[derive(Debug, Default)]
#[repr(C)]
struct Durations {
    nanos: AtomicU64,
    buckets: Buckets,
}

/// An answer's kind as a number, which is never 0.
#[derive(Clone, Copy)]
struct Kind(u32);

impl Kind {
    fn new(listener: u32, method: &Method, status: StatusCode) -> Self {
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let code = u32::from(status.as_u16()).saturating_sub(100).min(CODES - 1);
        Self(1 + (listener * METHODS.len() as u32 + method as u32) * CODES + code)
    }

    fn listener(self) -> usize {
        (self.0 - 1) as usize / METHODS.len() / CODES as usize
    }

    fn method(self) -> &'static str {
        METHODS[((self.0 - 1) / CODES) as usize % METHODS.len()]
    }

    fn code(self) -> u32 {
        (self.0 - 1) % CODES + 100
    }
}

impl Buckets {
    fn count(&self, nanos: u64) {
        let at = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Vec<u64> {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }
}

impl Counters {
    fn answered(&self, kind: Kind) {
        for (known, answers) in self.kinds.iter().zip(&self.answers) {
            let mut found = known.load(Ordering::Relaxed);
            if found == 0 {
                let taken = known.compare_exchange(0, kind.0, Ordering::Relaxed, Ordering::Relaxed);
                found = taken.map_or_else(|found| found, |_| kind.0);
            }
            if found == kind.0 {
                answers.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        *self.more.get_or_init(Box::default).lock().entry(kind.0).or_default() += 1;
    }

    /// Every kind there has been, and how many of it.
    fn answers(&self) -> Vec<(Kind, u64)> {
        let few = self.kinds.iter().zip(&self.answers);
        let few = few.map(|(kind, answers)| (kind.load(Ordering::Relaxed), answers.load(Ordering::Relaxed)));
        let more = self.more.get().map(|more| more.lock().clone()).into_iter().flatten();
        // One that was taken a moment ago may not have been counted yet.
        few.chain(more).filter(|(_, answers)| *answers > 0).map(|(kind, answers)| (Kind(kind), answers)).collect()
    }
}

impl Listeners {
    fn number(&mut self, name: &Name) -> u32 {
        let at = self.names.iter().position(|other| other == name).unwrap_or_else(|| {
            self.names.push(name.clone());
            self.names.len() - 1
        });
        u32::try_from(at).expect("fewer listeners than numbers")
    }

    fn numbers<'a>(&mut self, names: impl Iterator<Item = &'a Name>) -> Arc<[(Name, u32)]> {
        let numbers: Vec<_> = names.map(|name| (name.clone(), self.number(name))).collect();
        if *self.last != *numbers {
            self.last = numbers.into();
        }
        Arc::clone(&self.last)
    }
}

impl Routes {
    pub(super) fn route<'a>(
        &self,
        listeners: impl Iterator<Item = &'a Name>,
        route: &Name,
        upstream: Option<&Name>,
    ) -> RouteMetrics {
        RouteMetrics {
            counters: Arc::clone(self.routes.lock().entry(route.clone()).or_default()),
            upstream: upstream.map(|upstream| Arc::clone(self.upstreams.lock().entry(upstream.clone()).or_default())),
            listeners: self.listeners.lock().numbers(listeners),
        }
    }

    /// Adds the families of both.
    pub(super) fn add_to(&self, scrape: &mut Scrape) {
        let routes: Vec<_> =
            self.routes.lock().iter().map(|(name, counters)| (name.clone(), Arc::clone(counters))).collect();
        let listeners = self.listeners.lock().names.clone();
        let kinds = routes.iter().flat_map(|(name, counters)| counters.answers().into_iter().map(move |it| (name, it)));
        let answers: Vec<_> = kinds.map(|(name, (kind, count))| (name, kind, kind.code().to_string(), count)).collect();
        scrape.counter(
            "tollgate_http_requests_total",
            "Requests answered, by us or by an upstream.",
            &["listener", "route", "method", "code"],
            answers.iter().map(|(name, kind, code, count)| {
                (vec![&*listeners[kind.listener()], &***name, kind.method(), code], *count)
            }),
        );
        scrape.gauge(
            "tollgate_http_requests_in_flight",
            "Requests not yet answered.",
            &["route"],
            routes.iter().map(|(name, it)| (vec![&**name], it.in_flight.load(Ordering::Relaxed) as f64)),
        );
        scrape.durations(
            "tollgate_http_request_duration_seconds",
            "From the end of a request's head to the end of its response.",
            ("route", &BOUNDS.map(|bound| bound as f64 / NANOS)),
            routes
                .iter()
                .map(|(name, it)| (&**name, it.buckets.read(), it.nanos.load(Ordering::Relaxed) as f64 / NANOS)),
        );
        let upstreams = self.upstreams.lock();
        scrape.durations(
            "tollgate_upstream_request_duration_seconds",
            "From the beginning of an attempt to the head of its response.",
            ("upstream", &BOUNDS.map(|bound| bound as f64 / NANOS)),
            upstreams
                .iter()
                .map(|(name, it)| (&**name, it.buckets.read(), it.nanos.load(Ordering::Relaxed) as f64 / NANOS)),
        );
    }
}

/// What is counted for one route.
#[derive(Debug)]
pub struct RouteMetrics {
    counters: Arc<Counters>,
    upstream: Option<Arc<Durations>>,
    /// Those it may be reached by
    listeners: Arc<[(Name, u32)]>,
}

/// Counts as a request in flight until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Counters>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RouteMetrics {
    /// A request begins.
    pub fn start(&self) -> InFlight {
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.counters))
    }

    /// The upstream's head came, so long after it was asked.
    pub fn answered(&self, after: Duration) {
        if let Some(durations) = &self.upstream {
            let nanos = nanos(after);
            durations.nanos.fetch_add(nanos, Ordering::Relaxed);
            durations.buckets.count(nanos);
        }
    }

    /// A request ended with this status after this time.
    pub fn finish(&self, listener: &Name, method: &Method, status: StatusCode, duration: Duration) {
        let nanos = nanos(duration);
        self.counters.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.counters.buckets.count(nanos);
        if let Some((_, listener)) = self.listeners.iter().find(|(name, _)| name == listener) {
            self.counters.answered(Kind::new(*listener, method, status));
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_writes_two_lines_of_its_route() {
        // In front of it an Arc has two counts.
        let front = 2 * size_of::<usize>();
        assert_eq!(front + size_of::<Counters>(), 4 * 64);
        assert!(front + std::mem::offset_of!(Counters, buckets) + size_of::<AtomicU64>() <= 2 * 64);
    }

    #[test]
    fn kinds_beyond_the_first_few_are_counted_too() {
        let counters = Counters::default();
        for _ in 0..3 {
            for code in 200..220 {
                counters.answered(Kind::new(0, &Method::GET, StatusCode::from_u16(code).expect("three digits")));
            }
        }
        let answers = counters.answers();
        let codes: Vec<_> = answers.iter().map(|(kind, _)| kind.code()).collect();
        assert_eq!(codes, (200..220).collect::<Vec<_>>());
        assert!(answers.iter().all(|(_, count)| *count == 3));
    }

    #[test]
    fn a_duration_at_a_bound_is_below_it() {
        let buckets = Buckets::default();
        for nanos in [0, BOUNDS[0], BOUNDS[0] + 1, BOUNDS[13], BOUNDS[13] + 1, u64::MAX] {
            buckets.count(nanos);
        }
        let read = buckets.read();
        assert_eq!((read[0], read[1], read[13], read[14]), (2, 1, 1, 2));
    }

    #[test]
    fn a_listener_keeps_its_number() {
        let mut listeners = Listeners::default();
        let names = ["a", "b", "c"].map(Name::from);
        let first = listeners.numbers(names[..2].iter());
        assert!(Arc::ptr_eq(&first, &listeners.numbers(names[..2].iter())), "shared");
        let second = listeners.numbers(names[1..].iter());
        assert_eq!(second.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 2]);
    }

    proptest! {
        #[test]
        fn a_kind_is_read_as_it_was_written(listener in 0_u32..1000, method in 0..METHODS.len(), code in 100_u16..600) {
            let written = Method::from_bytes(METHODS[method].as_bytes()).expect("a token");
            let kind = Kind::new(listener, &written, StatusCode::from_u16(code).expect("three digits"));
            let read = (kind.listener(), kind.method(), kind.code());
            prop_assert_eq!(read, (listener as usize, METHODS[method], u32::from(code)));
        }
    }
}
