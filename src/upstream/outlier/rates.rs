//! Rates of the endpoints, compared with one another once an interval.

use std::sync::Arc;

use super::Why;
use crate::config;
use crate::upstream::group::{Owner, jittered};

/// Differences below this are none, however many times they are: a millisecond is not slow because others take less.
const LEAST_DIFFERENCE_MICROS: u64 = 10_000;

/// What an interval has seen of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::upstream) struct Tally {
    pub(in crate::upstream) tries: u32,
    pub(in crate::upstream) succeeded: u32,
    pub(in crate::upstream) micros: u64,
}

/// Who of them is out of line, each against the mean of the others. Those with too few requests neither are nor count.
pub(in crate::upstream) fn outliers(spec: &config::Outlier, tallies: &[Tally]) -> Vec<(usize, Why)> {
    let busy = |tally: &&Tally| tally.tries >= spec.min_requests.get();
    let count = tallies.iter().filter(busy).count() as u64;
    if count < 2 {
        return Vec::new();
    }
    let sum = |of: fn(&Tally) -> u64| tallies.iter().filter(busy).map(of).sum::<u64>();
    let (rates, times) = (sum(per_myriad), sum(micros));
    let others = count - 1;
    let judge = |tally: &Tally| {
        let rate = (rates - per_myriad(tally)) / others;
        let time = (times - micros(tally)) / others;
        let below = spec.success_rate_below.map(|points| u64::from(points) * 100);
        if below.is_some_and(|below| per_myriad(tally) + below < rate) {
            return Some(Why::SuccessRate);
        }
        let slower = spec.slower_than.is_some_and(|factor| micros(tally) > time * u64::from(factor.get()));
        (slower && micros(tally) > time + LEAST_DIFFERENCE_MICROS).then_some(Why::Slow)
    };
    let busy = tallies.iter().enumerate().filter(|(_, tally)| tally.tries >= spec.min_requests.get());
    busy.filter_map(|(place, tally)| Some((place, judge(tally)?))).collect()
}

/// Successes in ten thousand tries.
fn per_myriad(tally: &Tally) -> u64 {
    u64::from(tally.succeeded) * 10_000 / u64::from(tally.tries.max(1))
}

/// The mean time to a response's head.
fn micros(tally: &Tally) -> u64 {
    tally.micros / u64::from(tally.tries.max(1))
}

/// Compares until the owner is gone.
pub(in crate::upstream) async fn watch(owner: Owner, spec: Arc<config::Outlier>) {
    loop {
        tokio::time::sleep(jittered(spec.interval)).await;
        let Some(upstream) = owner.upstream() else { return };
        let endpoints = upstream.current();
        let tallies: Vec<_> = endpoints.all().iter().map(|endpoint| endpoint.state().record.take()).collect();
        for (place, why) in outliers(&spec, &tallies) {
            endpoints.all()[place].eject(&spec, why, std::time::Instant::now());
        }
    }
}
