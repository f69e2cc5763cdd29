use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::FutureExt;
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::config::{Cost, Rate, Selector};
use crate::http::Request;

fn nonzero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("not zero")
}

fn spec(count: u32, per: u64, burst: u32) -> config::Limit {
    config::Limit {
        kind: LimitKind::Rate {
            rate: Rate { count: nonzero(count), per: Duration::from_secs(per) },
            burst: nonzero(burst),
        },
        queue: None,
        key: vec![Selector::ClientAddress],
        max_keys: NonZeroUsize::new(1000).expect("not zero"),
        on_full: OnFull::Allow,
        mode: Mode::Enforce,
        store: None,
        cost: Cost::One,
        legacy_headers: false,
        partition_key: false,
        show_keys: false,
    }
}

fn limit(spec: &config::Limit) -> Arc<Limit> {
    Arc::new(Limit::build(&"test".into(), spec, &Links::default()).expect("no store"))
}

/// Without a store nobody waits.
fn admit(limits: &[Arc<Limit>], facts: &Facts<'_>, now: Instant) -> Result<Admission, Refusal> {
    let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    super::admit(limits, facts, Clock { steady: now, wall }, &mut Notes::default())
        .now_or_never()
        .expect("a decision at once")
}

fn from<T>(client: IpAddr, then: impl FnOnce(&Facts<'_>) -> T) -> T {
    let headers = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        host: "h",
        path: "/",
        query: None,
        headers: &headers,
        client,
        client_certificate: None,
        route: "r",
        scheme: "http",
        id: "",
    };
    then(&Facts { request: &request, identity: None })
}

fn client(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn passes(limits: &[Arc<Limit>], who: IpAddr, now: Instant) -> bool {
    from(who, |facts| admit(limits, facts, now).is_ok())
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let limits = [limit(&spec(10, 1, 3))];
    let start = Instant::now();
    let allowed = |ms: u64| passes(&limits, client(1), start + Duration::from_millis(ms));
    assert_eq!([allowed(0), allowed(0), allowed(0), allowed(0)], [true, true, true, false]);
    assert_eq!([allowed(99), allowed(100), allowed(100)], [false, true, false]);
    assert_eq!([allowed(1000), allowed(1000), allowed(1000), allowed(1000)], [true, true, true, false]);
}

#[test]
fn exactly_the_burst_passes_under_64_concurrent_clients() {
    let limits = [limit(&spec(1, 3600, 100))];
    let (passed, barrier, now) = (AtomicUsize::new(0), Barrier::new(64), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..50 {
                    passed.fetch_add(usize::from(passes(&limits, client(1), now)), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.load(Ordering::Relaxed), 100);
}

#[test]
fn a_refusal_by_one_limit_consumes_nothing_of_the_others() {
    let (wide, narrow) = (limit(&spec(1, 3600, 10)), limit(&spec(1, 3600, 2)));
    let both = [Arc::clone(&wide), narrow];
    let now = Instant::now();
    assert_eq!((0..20).filter(|_| passes(&both, client(1), now)).count(), 2);
    assert_eq!((0..20).filter(|_| passes(&[Arc::clone(&wide)], client(1), now)).count(), 8);
}

#[test]
fn a_full_table_forgets_only_refilled_keys() {
    let mut spec = spec(1, 10, 1);
    spec.max_keys = NonZeroUsize::new(2).expect("not zero");
    spec.on_full = OnFull::Deny;
    let limits = [limit(&spec)];
    let start = Instant::now();
    let allowed = |who: u8, seconds: u64| passes(&limits, client(who), start + Duration::from_secs(seconds));
    assert!(allowed(1, 0) && allowed(2, 5));
    assert!(!allowed(3, 6), "both are active");
    assert!(allowed(3, 10), "the first is refilled");
    assert!(!allowed(2, 11), "the second was not forgotten");
    let stats = limits[0].stats();
    assert_eq!((stats.keys, stats.evicted, stats.full), (2, 1, 1));
}

#[test]
fn a_full_table_may_let_through_instead() {
    let mut spec = spec(1, 10, 1);
    spec.max_keys = NonZeroUsize::MIN;
    let limits = [limit(&spec)];
    let now = Instant::now();
    assert!(passes(&limits, client(1), now) && passes(&limits, client(2), now) && passes(&limits, client(2), now));
    assert!(!passes(&limits, client(1), now));
}

#[test]
fn shadow_counts_and_lets_through() {
    let mut spec = spec(1, 3600, 1);
    spec.mode = Mode::Shadow;
    let limits = [limit(&spec)];
    let now = Instant::now();
    assert!((0..5).all(|_| passes(&limits, client(1), now)));
    let stats = limits[0].stats();
    assert_eq!((stats.allowed, stats.refused, stats.shadowed), (1, 0, 4));
}

#[test]
fn requests_in_flight_are_counted_exactly() {
    let mut spec = spec(1, 1, 1);
    spec.kind = LimitKind::Concurrent(nonzero(2));
    let limits = [limit(&spec)];
    let enter = || from(client(1), |facts| admit(&limits, facts, Instant::now()).ok());
    let (first, second) = (enter(), enter());
    assert!(first.is_some() && second.is_some() && enter().is_none());
    drop(first);
    let third = enter();
    assert!(third.is_some() && enter().is_none());
    drop((second, third));
    assert_eq!(limits[0].stats().keys, 0);
}

#[test]
fn ipv6_is_counted_by_network() {
    let limits = [limit(&spec(1, 3600, 1))];
    let now = Instant::now();
    let address = |text: &str| text.parse::<IpAddr>().expect("address");
    assert!(passes(&limits, address("2001:db8:0:1::1"), now));
    assert!(!passes(&limits, address("2001:db8:0:1:ffff::2"), now));
    assert!(passes(&limits, address("2001:db8:0:2::1"), now));
}

#[test]
fn parts_of_a_key_do_not_run_into_one_another() {
    let mut spec = spec(1, 3600, 1);
    spec.key = vec![Selector::Query("a".into()), Selector::Query("b".into())];
    let limits = [limit(&spec)];
    let passes = |query: &str| {
        let headers = HeaderMap::new();
        let (method, query) = (&Method::GET, Some(query));
        let request = Request {
            method,
            host: "h",
            path: "/",
            query,
            headers: &headers,
            client: client(1),
            client_certificate: None,
            route: "r",
            scheme: "http",
            id: "",
        };
        admit(&limits, &Facts { request: &request, identity: None }, Instant::now()).is_ok()
    };
    assert!(passes("a=xy&b=z"));
    assert!(passes("a=x&b=yz"));
    assert!(passes("a=&b="));
    assert!(!passes("b="), "a missing part is the empty value");
}

#[test]
fn clients_are_told_where_they_stand() {
    let limits = [limit(&spec(100, 1, 200)), limit(&spec(10, 60, 10))];
    let fields = from(client(1), |facts| {
        let mut fields = Vec::new();
        let admission = admit(&limits, facts, Instant::now()).expect("allowed");
        admission.headers(&mut |name, value| fields.push(format!("{name}: {}", value.to_str().expect("ASCII"))));
        fields
    });
    assert_eq!(
        fields,
        ["ratelimit-policy: \"test\";q=10;w=60, \"test\";q=200;w=2", "ratelimit: \"test\";r=9;t=6, \"test\";r=199;t=1"]
    );
}

#[test]
fn a_refusal_says_when_to_come_back() {
    let limits = [limit(&spec(10, 60, 1))];
    let now = Instant::now();
    assert!(passes(&limits, client(1), now));
    let refusal = from(client(1), |facts| admit(&limits, facts, now).expect_err("refused"));
    let (headers, body) = refusal.reply().render("id");
    assert_eq!(headers["retry-after"], "6");
    assert_eq!(headers["ratelimit"], "\"test\";r=0;t=6");
    assert_eq!(headers["ratelimit-policy"], "\"test\";q=1;w=6");
    let document: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(document["violated-policies"], serde_json::json!(["test"]));
}

/// The definition, by the bucket it is equivalent to: whole nanoseconds of credit, capped at the burst.
struct Model {
    interval: u64,
    burst: u64,
    credit: u64,
    at: u64,
}

impl Model {
    fn take(&mut self, now: u64) -> bool {
        let now = now.max(self.at);
        self.credit = (self.credit + (now - self.at)).min(self.burst);
        self.at = now;
        let enough = self.credit >= self.interval;
        if enough {
            self.credit -= self.interval;
        }
        enough
    }
}

proptest! {
    #[test]
    fn decisions_agree_with_the_model(
        count in 1u32..1000, burst in 1u32..20,
        steps in proptest::collection::vec(0u64..300_000_000, 1..200),
    ) {
        let spec = spec(count, 1, burst);
        let limits = [limit(&spec)];
        let start = Instant::now();
        let interval = 1_000_000_000u64.div_ceil(u64::from(count));
        let full = interval * u64::from(burst);
        let mut model = Model { interval, burst: full, credit: full, at: 0 };
        let mut now = 0;
        for step in steps {
            now += step;
            let allowed = passes(&limits, client(1), start + Duration::from_nanos(now));
            prop_assert_eq!(allowed, model.take(now), "at {}", now);
        }
    }

    #[test]
    fn a_clock_that_jumps_back_never_grants_more(
        burst in 1u32..10, steps in proptest::collection::vec(-2_000_000_000i64..500_000_000, 1..200),
    ) {
        let limits = [limit(&spec(10, 1, burst))];
        let start = Instant::now() + Duration::from_secs(1000);
        let (mut now, mut earliest, mut latest, mut passed) = (0i64, i64::MAX, i64::MIN, 0u64);
        for step in steps {
            now = (now + step).max(-900_000_000_000);
            (earliest, latest) = (earliest.min(now), latest.max(now));
            let offset = Duration::from_nanos(now.unsigned_abs());
            let at = if now >= 0 { start + offset } else { start - offset };
            passed += u64::from(passes(&limits, client(1), at));
        }
        let spread = (latest - earliest).unsigned_abs();
        prop_assert!(passed <= u64::from(burst) + spread / 100_000_000, "{} passed", passed);
    }
}
