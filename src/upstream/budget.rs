//! How many retries an upstream can take: a share of its requests, so that retries cannot multiply an outage.

use std::time::{Duration, Instant};

use super::window::Window;

/// What the share is of.
const SPAN: Duration = Duration::from_secs(10);
/// Retries within the span that need no requests to be a share of: a few failures of a quiet upstream are no storm.
pub(super) const FLOOR: u64 = 30;

/// What was asked of an upstream lately, by all workers and over reloads.
#[derive(Debug)]
pub(super) struct Budget {
    requests: Window,
    retries: Window,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { requests: Window::new(now, SPAN), retries: Window::new(now, SPAN) }
    }

    /// A request came, which is not a retry.
    pub(super) fn requested(&self, now: Instant) {
        self.requests.add(now);
    }

    /// Takes one retry, if `percent` of the requests and the floor leave one. Counted before it is looked at, so that
    /// workers that ask at the same moment never get more between them than there is.
    pub(super) fn take(&self, percent: u8, now: Instant) -> bool {
        self.retries.add(now);
        let most = FLOOR + self.requests.sum(now) * u64::from(percent) / 100;
        let has_one = self.retries.sum(now) <= most;
        if !has_one {
            self.retries.take_back(now);
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_upstream_has_the_floor_and_a_busy_one_its_share() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let taken = |now| (0..1000).filter(|_| budget.take(20, now)).count();
        assert_eq!(taken(now), 30);
        (0..200).for_each(|_| budget.requested(now));
        assert_eq!(taken(now), 40);
        assert_eq!(taken(now + SPAN), 30, "what is past is past");
    }

    #[test]
    fn workers_that_ask_at_once_get_no_more_between_them() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..1000).filter(|_| budget.take(20, now)).count())).collect();
            workers.into_iter().map(|worker| worker.join().expect("it only counts")).sum()
        });
        assert!(taken as u64 <= FLOOR, "{taken}");
    }

    proptest! {
        #[test]
        fn retries_of_a_span_are_never_more_than_share_and_floor(
            percent in 0_u8..=100,
            steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..400),
        ) {
            let epoch = Instant::now();
            let budget = Budget::new(epoch);
            let (mut requests, mut retries, mut now) = (Vec::new(), Vec::new(), 0);
            for (step, is_request) in steps {
                now += step;
                let instant = epoch + Duration::from_millis(now);
                if is_request {
                    budget.requested(instant);
                    requests.push(now);
                } else if budget.take(percent, instant) {
                    retries.push(now);
                    // Both windows forget by the tenth: the shortest span there can be against the longest.
                    let recent = |times: &[u64], span| times.iter().filter(|time| **time + span > now).count() as u64;
                    prop_assert!(recent(&retries, 9000) <= FLOOR + recent(&requests, 10_000) * u64::from(percent) / 100);
                }
            }
        }
    }
}
