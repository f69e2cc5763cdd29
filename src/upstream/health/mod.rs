//! Whether an endpoint is fit to be used: the state machine, and the checks that feed it.

mod check;
mod grpc;
mod watch;

use std::num::NonZeroU32;

pub(super) use check::Check;
pub(super) use watch::watch;

/// How many results in a row change one's mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    pub(super) healthy_after: NonZeroU32,
    pub(super) unhealthy_after: NonZeroU32,
}

/// Healthy until shown otherwise; pure, fed by results.
#[derive(Debug, Default)]
pub(super) struct Health {
    was_checked: bool,
    is_unhealthy: bool,
    /// Results in a row that contradict the present state
    against: u32,
}

impl Health {
    /// Takes one result. `Some(healthy)` if that changed the state.
    pub(super) fn observe(&mut self, ok: bool, thresholds: Thresholds) -> Option<bool> {
        self.was_checked = true;
        if ok != self.is_unhealthy {
            self.against = 0;
            return None;
        }
        let enough = if ok { thresholds.healthy_after } else { thresholds.unhealthy_after };
        self.against = self.against.saturating_add(1);
        if self.against < enough.get() {
            return None;
        }
        self.against = 0;
        self.is_unhealthy = !ok;
        Some(ok)
    }

    pub(super) fn was_checked(&self) -> bool {
        self.was_checked
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(healthy_after: u32, unhealthy_after: u32) -> Thresholds {
        let nonzero = |count| NonZeroU32::new(count).expect("tests use counts from 1");
        Thresholds { healthy_after: nonzero(healthy_after), unhealthy_after: nonzero(unhealthy_after) }
    }

    #[test]
    fn three_failures_in_a_row_make_it_unhealthy_and_two_successes_healthy() {
        let mut health = Health::default();
        let changes: Vec<_> = [false, false, true, false, false, false, false, true, false, true, true]
            .map(|ok| health.observe(ok, thresholds(2, 3)))
            .into();
        let expected = [None, None, None, None, None, Some(false), None, None, None, None, Some(true)];
        assert_eq!(changes, expected);
    }

    proptest! {
        #[test]
        fn it_changes_exactly_when_enough_results_in_a_row_contradict_it(
            results in prop::collection::vec(any::<bool>(), 0..200),
            healthy_after in 1_u32..6,
            unhealthy_after in 1_u32..6,
        ) {
            let mut health = Health::default();
            let mut healthy = true;
            let mut since_change = 0;
            for (index, ok) in results.iter().enumerate() {
                let needed = if healthy { unhealthy_after } else { healthy_after } as usize;
                let run = results[since_change..=index].iter().rev().take_while(|result| **result != healthy).count();
                let change = health.observe(*ok, thresholds(healthy_after, unhealthy_after));
                if run >= needed {
                    prop_assert_eq!(change, Some(!healthy));
                    healthy = !healthy;
                    since_change = index + 1;
                } else {
                    prop_assert_eq!(change, None);
                }
            }
        }
    }
}
