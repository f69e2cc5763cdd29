use proptest::prelude::*;

use super::rates::outliers;
use super::*;

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("tests use counts from 1")
}

fn spec() -> config::Outlier {
    config::Outlier {
        consecutive_failures: None,
        consecutive_gateway_errors: None,
        success_rate_below: Some(20),
        slower_than: Some(count(3)),
        min_requests: count(100),
        interval: Duration::from_secs(10),
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejected: 50,
    }
}

fn tally(tries: u32, succeeded: u32, millis: u64) -> Tally {
    Tally { tries, succeeded, micros: u64::from(tries) * millis * 1000 }
}

/// A try from its head to its end.
fn whole(record: &Record, spec: &config::Outlier, sign: Sign) -> Option<Why> {
    let told = record.observe(spec, sign, None);
    if sign == Sign::Good {
        record.ended_well(spec);
    }
    told
}

#[test]
fn answers_that_break_off_are_a_row_although_each_has_a_good_head() {
    let spec = config::Outlier { consecutive_failures: Some(count(3)), ..spec() };
    let record = Record::default();
    let told = [(); 3].map(|()| {
        assert_eq!(record.observe(&spec, Sign::Good, None), None);
        record.broke(&spec)
    });
    assert_eq!(told, [None, None, Some(Why::Failures)]);
    assert_eq!(record.take(), Tally { tries: 3, succeeded: 0, micros: 0 });
}

#[test]
fn a_row_of_failures_tells_and_one_good_answer_ends_it() {
    let spec = config::Outlier { consecutive_failures: Some(count(3)), ..spec() };
    let record = Record::default();
    let told = |signs: &[Sign]| -> Vec<_> { signs.iter().map(|sign| whole(&record, &spec, *sign)).collect() };
    use Sign::{GatewayError, Good, ServerError};
    assert_eq!(told(&[ServerError, GatewayError, Good, ServerError, ServerError]), [None; 5]);
    assert_eq!(told(&[GatewayError, ServerError]), [Some(Why::Failures), None]);
    record.begin_anew();
    assert_eq!(told(&[ServerError, ServerError]), [None; 2]);
    assert_eq!(record.broke(&spec), Some(Why::Failures));
}

#[test]
fn an_error_of_the_application_ends_a_row_of_gateway_errors() {
    let spec = config::Outlier { consecutive_gateway_errors: Some(count(2)), ..spec() };
    let record = Record::default();
    let signs = [Sign::GatewayError, Sign::ServerError, Sign::GatewayError, Sign::GatewayError];
    let told = signs.map(|sign| record.observe(&spec, sign, None));
    assert_eq!(told, [None, None, None, Some(Why::GatewayErrors)]);
}

#[test]
fn an_endpoint_is_compared_with_the_others() {
    let found = |tallies: &[Tally]| outliers(&spec(), tallies);
    let (good, bad, slow) = (tally(200, 199, 5), tally(200, 150, 5), tally(200, 200, 50));
    assert_eq!(found(&[good, bad, good]), [(1, Why::SuccessRate)]);
    assert_eq!(found(&[good, good, slow]), [(2, Why::Slow)]);
    assert_eq!(found(&[bad, bad, bad]), [], "all alike");
    assert_eq!(found(&[bad]), [], "nobody to compare with");
    assert_eq!(found(&[good, good, tally(99, 0, 5)]), [], "too few to tell");
    assert_eq!(found(&[tally(200, 200, 0), tally(200, 200, 9)]), [], "nine milliseconds are not slow");
}

#[test]
fn half_of_them_may_be_out_and_never_the_last_that_could_serve() {
    assert!(may_eject(0, 2, 1, 50));
    assert!(!may_eject(1, 2, 1, 50));
    assert!(!may_eject(0, 2, 0, 50), "the other one is unhealthy");
    assert!(!may_eject(0, 1, 0, 100));
    assert!(!may_eject(0, 3, 2, 10));
    assert!(may_eject(1, 3, 1, 100));
}

proptest! {
    #[test]
    fn never_are_more_than_the_share_out(all in 1_usize..50, max_ejected in 1_u8..=100) {
        let mut out = 0;
        while may_eject(out, all, all - out - 1, max_ejected) {
            out += 1;
        }
        prop_assert!(out * 100 <= all * usize::from(max_ejected) && out < all);
    }

    #[test]
    fn a_row_is_told_exactly_when_it_is_full(results in prop::collection::vec(any::<bool>(), 0..200), most in 1_u32..6) {
        let spec = config::Outlier { consecutive_failures: Some(count(most)), ..spec() };
        let record = Record::default();
        let mut row = 0;
        for good in results {
            row = if good { 0 } else { row + 1 };
            let sign = if good { Sign::Good } else { Sign::ServerError };
            let told = whole(&record, &spec, sign).is_some();
            prop_assert_eq!(told, row > 0 && row % most == 0);
        }
    }

    #[test]
    fn the_best_is_never_an_outlier(tallies in prop::collection::vec((100_u32..1000, 0_u32..=100, 0_u64..500), 2..10)) {
        let tallies: Vec<_> =
            tallies.into_iter().map(|(tries, percent, millis)| tally(tries, tries * percent / 100, millis)).collect();
        let best = |key: fn(&Tally) -> u64| (0..tallies.len()).min_by_key(|place| key(&tallies[*place]));
        let found = outliers(&spec(), &tallies);
        let best_rate = best(|tally| u64::MAX - u64::from(tally.succeeded) * 1_000_000 / u64::from(tally.tries));
        prop_assert!(!found.iter().any(|(place, why)| *why == Why::SuccessRate && Some(*place) == best_rate));
        let fastest = best(|tally| tally.micros / u64::from(tally.tries));
        prop_assert!(!found.iter().any(|(place, why)| *why == Why::Slow && Some(*place) == fastest));
    }
}
