//! Whole upstreams: who is picked, and how often.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::config::{Endpoint as Written, EndpointAddress};
use crate::upstream::{Lease, Outcome, Tried, Upstream};

const DECAY: Duration = Duration::from_secs(10);

fn written(index: usize, weight: u32) -> Written {
    let address = format!("10.0.{}.{}:80", index / 256, index % 256).parse().expect("an address");
    Written { address: EndpointAddress::Socket(address), weight, priority: 0, zone: None }
}

fn spec(balance: Balance, weights: &[u32]) -> config::Upstream {
    let endpoints = weights.iter().enumerate().map(|(index, weight)| written(index, *weight)).collect();
    config::Upstream::plain(endpoints, balance)
}

fn built(spec: &config::Upstream) -> Arc<Upstream> {
    Arc::new(Upstream::build(&"orders".into(), spec).expect("it is sound"))
}

fn upstream(balance: Balance, weights: &[u32]) -> Arc<Upstream> {
    built(&spec(balance, weights))
}

fn hash(factor: Option<u32>) -> Balance {
    Balance::ConsistentHash { key: Vec::new(), factor }
}

fn ewma() -> Balance {
    Balance::PeakEwma { decay: DECAY }
}

#[track_caller]
fn pick(upstream: &Upstream) -> Lease {
    upstream.pick(&Tried::default(), Wish::default()).expect("somebody is there")
}

fn keyed(upstream: &Upstream, key: u64) -> Lease {
    upstream.pick(&Tried::default(), Wish { key: Some(key), bond: None }).expect("somebody is there")
}

/// Which of the endpoints of `spec` it is.
fn place(lease: &Lease) -> usize {
    let text = lease.endpoint().text();
    let mut numbers = text.trim_end_matches(":80").rsplit('.').map(|number| number.parse::<usize>().expect("a number"));
    let low = numbers.next().expect("four");
    low + 256 * numbers.next().expect("four")
}

/// How often each is picked of `count` times, one after the other.
fn counts(upstream: &Upstream, places: usize, count: usize) -> Vec<usize> {
    let mut counts = vec![0; places];
    (0..count).for_each(|_| counts[place(&pick(upstream))] += 1);
    counts
}

fn in_flight(upstream: &Upstream) -> Vec<u32> {
    upstream.endpoints().iter().map(|endpoint| endpoint.in_flight).collect()
}

#[test]
fn what_is_idle_is_used_by_its_weight_whatever_the_method() {
    for balance in [Balance::LeastRequest, ewma(), Balance::Random] {
        let counts = counts(&upstream(balance.clone(), &[1, 2, 7]), 3, 50_000);
        for (count, due) in counts.iter().zip([5_000_usize, 10_000, 35_000]) {
            assert!(count.abs_diff(due) < 600, "{balance:?}: {counts:?}");
        }
    }
    assert_eq!(counts(&upstream(Balance::RoundRobin, &[1, 2, 7]), 3, 50_000), [5_000, 10_000, 35_000]);
    // A ring of 64 points for each unit of weight is not as even.
    let counts = counts(&upstream(hash(None), &[1, 2, 7]), 3, 50_000);
    for (count, due) in counts.iter().zip([5_000_usize, 10_000, 35_000]) {
        assert!(count.abs_diff(due) < due / 4, "{counts:?}");
    }
}

#[test]
fn what_is_busy_is_used_by_how_busy_it_is() {
    for balance in [Balance::LeastRequest, ewma()] {
        let upstream = upstream(balance.clone(), &[1, 2, 7]);
        let leases: Vec<_> = (0..1000).map(|_| pick(&upstream)).collect();
        for (count, due) in in_flight(&upstream).iter().zip([100_u32, 200, 700]) {
            assert!(count.abs_diff(due) <= due / 10, "{balance:?}: {:?}", in_flight(&upstream));
        }
        drop(leases);
        assert_eq!(in_flight(&upstream), [0, 0, 0]);
    }
}

#[test]
fn of_two_endpoints_the_less_busy_is_asked() {
    let upstream = upstream(Balance::LeastRequest, &[1, 1]);
    let held = pick(&upstream);
    for _ in 0..100 {
        assert_ne!(place(&pick(&upstream)), place(&held));
    }
}

#[test]
fn workers_share_the_turns_and_lose_none() {
    let upstream = upstream(Balance::RoundRobin, &[1, 2, 7]);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let upstream = Arc::clone(&upstream);
            thread::spawn(move || counts(&upstream, 3, 10_000))
        })
        .collect();
    let all = workers.into_iter().map(|worker| worker.join().expect("a worker counts"));
    let sums = all.fold([0; 3], |sums, counts| [0, 1, 2].map(|place| sums[place] + counts[place]));
    assert_eq!(sums, [4_000, 8_000, 28_000]);
}

/// Serves `count` requests, one after the other: each takes as long as `took` says, or fails. How often each endpoint
/// was asked.
fn serve(upstream: &Upstream, places: usize, count: usize, outcome: impl Fn(usize) -> Option<Duration>) -> Vec<usize> {
    // All are known: until one has answered, chance alone decides whether it is asked.
    for endpoint in upstream.current().all() {
        endpoint.ewma().observe(Duration::from_millis(5), Instant::now(), DECAY);
    }
    let mut counts = vec![0; places];
    for _ in 0..count {
        let lease = pick(upstream);
        let place = place(&lease);
        counts[place] += 1;
        match outcome(place) {
            Some(took) => lease.endpoint().ewma().observe(took, Instant::now(), DECAY),
            None => lease.endpoint().ewma().failed(Duration::from_micros(200), Instant::now()),
        }
        drop(lease);
    }
    counts
}

#[test]
fn a_slow_endpoint_is_left_alone_after_its_first_answer() {
    let upstream = upstream(ewma(), &[1, 1, 1]);
    let counts = serve(&upstream, 3, 3000, |place| Some(Duration::from_millis(if place == 1 { 300 } else { 10 })));
    assert!((1..=3).contains(&counts[1]), "{counts:?}");
    assert!(counts[0] > 1200 && counts[2] > 1200, "{counts:?}");
}

#[test]
fn an_endpoint_that_fails_fast_does_not_look_attractive() {
    let upstream = upstream(ewma(), &[1, 1]);
    let counts = serve(&upstream, 2, 1000, |place| (place == 0).then_some(Duration::from_millis(5)));
    assert!((1..=3).contains(&counts[1]), "{counts:?}");
}

#[test]
fn what_a_lease_sees_is_what_the_average_is_told() {
    let upstream = upstream(ewma(), &[1]);
    let known = || upstream.endpoints()[0].latency;
    let answered = |status| Outcome::Answered(StatusCode::from_u16(status).expect("a status"));
    drop(pick(&upstream));
    assert_eq!(known(), None, "nobody waited: nothing is known");
    let lease = pick(&upstream);
    lease.observe(answered(200));
    drop(lease);
    assert!(known().expect("an answer") < Duration::from_millis(50));
    for outcome in [answered(503), Outcome::Reset, Outcome::ConnectFailed, Outcome::Incomplete] {
        let before = known().expect("known");
        pick(&upstream).observe(outcome);
        let after = known().expect("known");
        assert!(
            after >= before.mul_f32(9.0).clamp(Duration::from_millis(90), Duration::from_secs(9)),
            "{outcome:?}: {after:?}"
        );
    }
    // Nobody measures where latency does not decide.
    let other = self::upstream(Balance::LeastRequest, &[1]);
    pick(&other).observe(answered(200));
    assert_eq!(other.endpoints()[0].latency, None);
}

#[test]
fn a_slow_upload_is_not_the_endpoints_latency() {
    let upstream = upstream(ewma(), &[1]);
    let known = || upstream.endpoints()[0].latency;
    let answered = Outcome::Answered(StatusCode::OK);
    pick(&upstream).observe(answered);
    let before = known();
    for outcome in [answered, Outcome::Abandoned] {
        let lease = pick(&upstream);
        lease.awaits_body();
        spend(Duration::from_millis(20));
        lease.observe(outcome);
        drop(lease);
        assert_eq!(known(), before, "{outcome:?} while the body was being sent");
    }
}

#[test]
fn ejections_for_slowness_count_from_when_all_was_sent() {
    let mut spec = spec(Balance::RoundRobin, &[1]);
    spec.outlier = Some(config::Outlier {
        consecutive_failures: None,
        consecutive_gateway_errors: None,
        success_rate_below: None,
        slower_than: NonZeroU32::new(3),
        min_requests: NonZeroU32::MIN,
        interval: Duration::from_secs(10),
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejected: 50,
    });
    let lease = pick(&built(&spec));
    lease.awaits_body();
    spend(Duration::from_millis(20));
    assert_eq!(lease.took(), None);
    let sent = Instant::now();
    lease.asked();
    let took = lease.took().expect("all was sent");
    assert!(took <= sent.elapsed(), "{took:?}");
}

/// The client takes its time.
fn spend(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn a_new_endpoint_is_neither_flooded_nor_left_out() {
    let upstream = upstream(ewma(), &[1, 1, 1, 1]);
    for place in 0..3 {
        upstream.current().all()[place].ewma().observe(Duration::from_millis(5), Instant::now(), DECAY);
    }
    // A burst, before anything has been answered.
    let leases: Vec<_> = (0..80).map(|_| pick(&upstream)).collect();
    let counts = in_flight(&upstream);
    assert!((10..=30).contains(&counts[3]), "{counts:?}");
    drop(leases);
}

#[test]
fn an_endpoint_that_was_slow_long_ago_is_asked_by_one_request_first() {
    let slow = Ewma::new(Instant::now());
    let now = Instant::now();
    slow.observe(Duration::from_millis(500), now, DECAY);
    let later = now + Duration::from_secs(100);
    let idle = Pace { latency: slow.faded(later, DECAY), in_flight: 0, weight: 100 };
    let asked = Pace { latency: slow.last(), in_flight: 1, weight: 100 };
    let usual = Pace { latency: Some(5_000.0), in_flight: 1, weight: 100 };
    assert!(usual.yields_to(idle), "forgiven");
    assert!(!usual.yields_to(asked), "while it is asked, what was last known counts");
}

#[test]
fn a_key_has_one_endpoint_and_the_next_when_that_fails() {
    let upstream = upstream(hash(None), &[1; 8]);
    for key in (0..200).map(mix) {
        let lease = keyed(&upstream, key);
        let first = place(&lease);
        assert!((0..5).all(|_| place(&keyed(&upstream, key)) == first));
        let mut tried = Tried::default();
        tried.add(&lease, crate::upstream::Failure::Connect);
        let next = |tried: &Tried| {
            let wish = Wish { key: Some(key), bond: None };
            place(&upstream.pick(tried, wish).expect("others are there"))
        };
        let second = next(&tried);
        assert_ne!(second, first);
        assert!((0..5).all(|_| next(&tried) == second));
    }
}

#[test]
fn a_hot_key_spills_over_to_the_next_endpoints_and_no_further() {
    let upstream = upstream(hash(Some(125)), &[1, 1, 2]);
    let mut leases = Vec::new();
    for all in 0..400_u32 {
        leases.push(keyed(&upstream, 42));
        for (count, weight) in in_flight(&upstream).iter().zip([1, 1, 2]) {
            // Its share of all, a quarter more, rounded up.
            assert!(*count <= (125 * (all + 1) * weight).div_ceil(400), "{:?}", in_flight(&upstream));
        }
    }
    let counts = in_flight(&upstream);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    drop(leases);
    assert_eq!(upstream.current().load(), 0);
    // Without a bound one endpoint has it all.
    let unbounded = self::upstream(hash(None), &[1, 1, 2]);
    let leases: Vec<_> = (0..100).map(|_| keyed(&unbounded, 42)).collect();
    assert_eq!(in_flight(&unbounded).iter().max(), Some(&100));
    drop(leases);
}

#[test]
fn at_its_cap_an_endpoint_is_passed_over_whatever_the_method() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest, ewma(), Balance::Random, hash(Some(125)), hash(None)] {
        let mut spec = spec(balance, &[1, 2, 7]);
        spec.max_requests_per_endpoint = NonZeroU32::new(5);
        let upstream = built(&spec);
        let leases: Vec<_> = (0..15).map(|_| keyed(&upstream, 3)).collect();
        assert_eq!(in_flight(&upstream), [5, 5, 5], "{:?}", spec.balance);
        assert!(upstream.pick(&Tried::default(), Wish::default()).is_err());
        drop(leases);
    }
}

#[test]
fn the_next_tier_is_for_when_the_first_has_nobody_left() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest, ewma(), Balance::Random, hash(Some(125))] {
        let mut spec = spec(balance, &[1, 1, 1, 1]);
        spec.endpoints[2].priority = 1;
        spec.endpoints[3].priority = 2;
        let upstream = built(&spec);
        let counts = counts(&upstream, 4, 1000);
        assert_eq!(counts[2..], [0, 0], "{:?}", spec.balance);
        for gone in 0..3 {
            // The first failure makes suspect; the suspicion of the others stays, too.
            upstream.current().all()[gone].unreachable("refused", Instant::now());
        }
        assert!((0..100).all(|_| place(&pick(&upstream)) == 3), "{:?}", spec.balance);
    }
}

#[test]
fn endpoints_of_the_own_zone_come_first() {
    let mut spec = spec(Balance::RoundRobin, &[1, 1, 1, 1]);
    for (endpoint, zone) in spec.endpoints.iter_mut().zip(["a", "b", "a", "b"]) {
        endpoint.zone = Some(zone.into());
    }
    assert_eq!(counts(&built(&spec), 4, 400), [100; 4], "no zone of our own: no difference");
    spec.zone = Some("b".into());
    let upstream = built(&spec);
    assert_eq!(counts(&upstream, 4, 400), [0, 200, 0, 200]);
    // A failed try goes to the other one of the zone, and only then elsewhere.
    let mut tried = Tried::default();
    let first = pick(&upstream);
    tried.add(&first, crate::upstream::Failure::Connect);
    let second = upstream.pick(&tried, Wish::default()).expect("another");
    assert_eq!((place(&first) + place(&second), place(&second) % 2), (4, 1));
    tried.add(&second, crate::upstream::Failure::Connect);
    assert_eq!(place(&upstream.pick(&tried, Wish::default()).expect("another")) % 2, 0);
}

#[test]
fn a_cold_endpoint_has_a_tenth_of_its_share() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest, hash(None)] {
        let mut spec = spec(balance, &[3, 3]);
        spec.slow_start = Some(Duration::from_secs(3600));
        let upstream = built(&spec);
        assert!(counts(&upstream, 2, 1000)[1] > 300, "who was there from the beginning is warm: {:?}", spec.balance);
        // A reload brings a new one.
        spec.endpoints.push(written(2, 3));
        let next = built(&spec);
        next.inherit(&upstream);
        let counts = counts(&next, 3, 21_000);
        assert!((500..2_000).contains(&counts[2]), "{:?}: {counts:?}", spec.balance);
        assert_eq!(next.endpoints().iter().map(|endpoint| endpoint.weight_now).collect::<Vec<_>>(), [300, 300, 30]);
        // Another reload leaves its age.
        spec.retry.max_retries += 1;
        let last = built(&spec);
        last.inherit(&next);
        assert_eq!(last.endpoints()[2].weight_now, 30);
    }
}

#[test]
fn turns_and_averages_outlive_a_reload() {
    let mut spec = spec(Balance::RoundRobin, &[1, 1, 1]);
    let upstream = built(&spec);
    let first = place(&pick(&upstream));
    spec.retry.max_retries += 1;
    let next = built(&spec);
    next.inherit(&upstream);
    assert_eq!(place(&pick(&next)), (first + 1) % 3);

    spec.balance = ewma();
    let timed = built(&spec);
    timed.inherit(&next);
    timed.current().all()[1].ewma().observe(Duration::from_millis(7), Instant::now(), DECAY);
    spec.balance = Balance::PeakEwma { decay: Duration::from_secs(5) };
    let later = built(&spec);
    later.inherit(&timed);
    let latencies: Vec<_> = later.endpoints().iter().map(|it| it.latency.map(|it| it.as_millis())).collect();
    assert_eq!(latencies, [None, Some(7), None]);
}

#[test]
fn a_bond_is_followed_until_the_endpoint_is_not_fit() {
    let mut spec = spec(Balance::RoundRobin, &[1, 1, 1]);
    spec.sticky = Some(config::Sticky {
        cookie: "route".into(),
        secret: config::Secret::new(*b"0123456789abcdef0123456789abcdef"),
        ttl: None,
        same_site: config::SameSite::Lax,
    });
    spec.max_requests_per_endpoint = NonZeroU32::new(2);
    let upstream = built(&spec);
    let sticky = upstream.sticky().expect("configured");
    let bond = |lease: &Lease| {
        let cookie = upstream.cookie(lease, None, true).expect("a new client");
        let text = cookie.to_str().expect("ASCII").to_owned();
        let value = text.split_once('=').and_then(|(_, rest)| rest.split_once(';')).expect("a value").0;
        sticky.read(value, std::time::SystemTime::now()).expect("ours")
    };
    let bond = bond(&pick(&upstream));
    let bound = || upstream.pick(&Tried::default(), Wish { key: None, bond: Some(bond) }).expect("somebody is there");
    let first = bound();
    let second = bound();
    assert_eq!(place(&first), place(&second));
    assert_eq!(upstream.cookie(&second, Some(bond), true), None, "nothing changes");
    // Full: elsewhere for now, and the client keeps its cookie.
    let away = bound();
    assert_ne!(place(&away), place(&first));
    assert_eq!(upstream.cookie(&away, Some(bond), true), None);
    let home = place(&first);
    drop((first, second, away));
    // Not fit: elsewhere for good.
    upstream.current().all()[home].unreachable("refused", Instant::now());
    let moved = bound();
    assert_ne!(place(&moved), home);
    assert!(upstream.cookie(&moved, Some(bond), true).is_some());
    let sticky: Vec<u64> = upstream.counts().sticky.iter().map(|(_, count)| *count).collect();
    assert_eq!(sticky, [1, 1, 1, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_weights_round_robin_is_exact_and_chance_is_near(
        weights in prop::collection::vec(1_u32..=10, 1..12),
    ) {
        let total: usize = weights.iter().map(|weight| *weight as usize).sum();
        let exact = counts(&upstream(Balance::RoundRobin, &weights), weights.len(), total * 3);
        let due: Vec<usize> = weights.iter().map(|weight| *weight as usize * 3).collect();
        prop_assert_eq!(exact, due);
        for balance in [Balance::Random, Balance::LeastRequest, ewma()] {
            let counts = counts(&upstream(balance, &weights), weights.len(), 4000);
            for (count, weight) in counts.iter().zip(&weights) {
                let due = 4000.0 * f64::from(*weight) / total as f64;
                prop_assert!((*count as f64 - due).abs() < 6.0 * due.sqrt() + 6.0, "{:?}", counts);
            }
        }
    }
}
