//! The table beside one that never forgets.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

fn table(count: u32, burst: u32, max_keys: usize) -> Rate {
    let rate = config::Rate { count: number(count), per: SECOND };
    Rate::new(rate, number(burst), NonZeroUsize::new(max_keys).expect("not zero"))
}

/// Spread as hashes are.
fn key(which: u64) -> Key {
    Key::of(
        which.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xd1b5_4a32_d192_ed03),
    )
}

fn is_allowed(decision: Decision) -> bool {
    matches!(decision, Decision::Allow { .. })
}

/// The bucket that the algorithm is equivalent to: whole nanoseconds of credit, capped at the burst.
#[derive(Clone, Copy)]
struct Bucket {
    credit: u64,
    at: u64,
}

impl Bucket {
    fn take(&mut self, now: u64, price: u64, burst: u64) -> bool {
        self.credit = (self.credit + (now - self.at)).min(burst);
        self.at = now;
        let enough = self.credit >= price;
        if enough {
            self.credit -= price;
        }
        enough
    }
}

#[derive(Clone, Debug)]
struct Step {
    key: u64,
    cost: u32,
    /// Nanoseconds, forwards or back
    jump: i64,
    is_refunded: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let jump = prop_oneof![
        8 => 0i64..50_000_000,
        2 => -2_000_000_000i64..0,
        1 => 0i64..3_000_000_000,
    ];
    let step = (0u64..9, 1u32..4, jump, prop::bool::weighted(0.2));
    let step = step.prop_map(|(key, cost, jump, is_refunded)| Step { key, cost, jump, is_refunded });
    proptest::collection::vec(step, 1..300)
}

proptest! {
    /// Nine keys in a table for three: most of them are forgotten again and again, and nobody notices.
    #[test]
    fn a_table_that_forgets_decides_as_one_that_does_not(count in 1u32..200, burst in 4u32..20, steps in steps()) {
        let table = table(count, burst, 3);
        let (interval, full) = table.terms();
        let mut buckets: HashMap<u64, Bucket> = HashMap::new();
        // What the clock says, and the latest that it said: time goes on from there alone.
        let (mut clock, mut latest) = (5_000_000_000u64, 0);
        for step in steps {
            clock = clock.saturating_add_signed(step.jump);
            latest = latest.max(clock);
            let now = table.epoch + Duration::from_nanos(clock);
            let price = interval * u64::from(step.cost);
            let before = *buckets.entry(step.key).or_insert(Bucket { credit: full, at: latest });
            let bucket = buckets.get_mut(&step.key).expect("it is there");
            match table.take(key(step.key), number(step.cost), now) {
                Decision::Allow { remaining, mark, .. } => {
                    prop_assert!(bucket.take(latest, price, full), "{:?}", step);
                    prop_assert_eq!(u64::from(remaining), bucket.credit / interval);
                    if step.is_refunded {
                        table.give_back(key(step.key), number(step.cost), mark, now);
                        *bucket = before;
                    }
                }
                Decision::Refuse { .. } => prop_assert!(!bucket.take(latest, price, full), "{:?}", step),
                Decision::Full => {
                    let owes = |bucket: &Bucket| bucket.credit + (latest - bucket.at) < full;
                    prop_assert!(buckets.values().filter(|bucket| owes(bucket)).count() >= 3, "there was room");
                }
            }
            prop_assert!(table.stats().0 <= 3);
        }
    }

    #[test]
    fn after_the_wait_that_is_told_a_request_passes_and_a_second_before_it_does_not(
        count in 1u32..5, burst in 1u32..20, spent in 1u32..20, cost in 1u32..20,
    ) {
        prop_assume!(spent <= burst && cost <= burst);
        let table = table(count, burst, 10);
        let now = table.epoch;
        table.take(key(1), number(spent), now);
        if let Decision::Refuse { seconds } = table.take(key(1), number(cost), now) {
            let early = now + SECOND * u32::try_from(seconds - 1).expect("small");
            prop_assert!(!is_allowed(table.take(key(1), number(cost), early)));
            prop_assert!(is_allowed(table.take(key(1), number(cost), early + SECOND)));
        }
    }
}

#[test]
fn what_was_earned_back_meanwhile_is_not_given_back_as_well() {
    let table = table(1, 2, 10);
    let at = |seconds| table.epoch + SECOND * seconds;
    let Decision::Allow { mark, .. } = table.take(key(1), number(1), at(0)) else { panic!("it is the first") };
    // The budget is full again, and is used up.
    assert!(is_allowed(table.take(key(1), number(2), at(10))));
    table.give_back(key(1), number(1), mark, at(10));
    assert!(!is_allowed(table.take(key(1), number(1), at(10))));
}

#[test]
fn threads_that_fill_a_table_over_and_over_grant_each_key_its_budget_and_no_more() {
    const THREADS: u64 = 8;
    const KEYS: u64 = 3000;
    const BURST: u32 = 5;
    // An hour earns nothing here: all that passes is the burst.
    let rate = config::Rate { count: number(1), per: SECOND * 3600 };
    let table = Rate::new(rate, number(BURST), NonZeroUsize::new(4096).expect("not zero"));
    let passed: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let (barrier, now) = (Barrier::new(8), table.epoch);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, passed, barrier) = (&table, &passed, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..KEYS * 3 {
                    // Each in an order of its own, some of it given back.
                    let which = (round * (2 * thread + 1) + thread) % KEYS;
                    let cost = number(1 + u32::from(round % 7 == 0));
                    if let Decision::Allow { mark, .. } = table.take(key(which), cost, now) {
                        match round % 5 {
                            0 => table.give_back(key(which), cost, mark, now),
                            _ => drop(passed[which as usize].fetch_add(cost.get().into(), Ordering::Relaxed)),
                        }
                    }
                }
            });
        }
    });
    for (which, passed) in (0..KEYS).zip(&passed) {
        while is_allowed(table.take(key(which), number(1), now)) {
            passed.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(passed.load(Ordering::Relaxed), u64::from(BURST), "key {which}");
    }
    let (keys, _, full) = table.stats();
    assert_eq!((keys, full), (KEYS, 0), "those that were given back whole are forgotten, and come again");
}

#[test]
fn a_million_keys_and_those_that_follow_them_keep_within_the_bound() {
    const MOST: u64 = 1_000_000;
    let table = table(1, 1, MOST as usize);
    let now = table.epoch;
    assert!((0..MOST).all(|which| is_allowed(table.take(key(which), number(1), now))));
    assert_eq!(table.stats(), (MOST, 0, 0));
    assert_eq!(table.take(key(MOST), number(1), now), Decision::Full);
    // All are earned back: each new one takes the place of an old one.
    let later = now + SECOND;
    assert!((0..MOST / 4).all(|which| is_allowed(table.take(key(MOST + which), number(1), later))));
    let (keys, evicted, full) = table.stats();
    assert!(keys <= MOST && evicted >= MOST / 4 && full == 1, "{keys} {evicted} {full}");
    assert!(!is_allowed(table.take(key(MOST), number(1), later)), "who is active is not forgotten");
}

#[test]
fn those_who_owe_most_are_found() {
    let table = table(1, 1000, 100_000);
    for which in 1..=500u32 {
        table.take(key(which.into()), number(which), table.epoch);
    }
    let busiest = table.busiest(3, table.epoch);
    assert_eq!(busiest, vec![(key(500), 500), (key(499), 499), (key(498), 498)]);
    assert_eq!(table.busiest(3, table.epoch + SECOND * 499), vec![(key(500), 1)]);
}
