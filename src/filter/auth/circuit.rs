//! A service that does not answer is not asked by everybody: after a few failures in a row nobody waits for it, and one
//! request at a time tries whether it is back.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures in a row after which the service is left alone.
const MAX_FAILURES: u32 = 3;
/// And for how long.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the next may try; `None` while the service answers
    rests_until: Option<Instant>,
    /// Somebody tries
    probed: bool,
}

/// The right to ask once. Dropped without a word it says nothing of the service.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    circuit: &'a Circuit,
    probe: bool,
}

impl Circuit {
    /// `None` while the service is left alone.
    pub(super) fn begin(&self, now: Instant) -> Option<Attempt<'_>> {
        let mut state = self.0.lock();
        let probe = match state.rests_until {
            None => false,
            Some(until) if now < until || state.probed => return None,
            Some(_) => true,
        };
        state.probed |= probe;
        Some(Attempt { circuit: self, probe })
    }
}

impl Attempt<'_> {
    /// The service has answered, whatever it said.
    pub(super) fn answered(self) {
        *self.circuit.0.lock() = State::default();
    }

    pub(super) fn failed(self, now: Instant) {
        let mut state = self.circuit.0.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= MAX_FAILURES {
            state.rests_until = Some(now + REST);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.circuit.0.lock().probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(now: Instant) -> Circuit {
        let circuit = Circuit::default();
        for _ in 0..MAX_FAILURES {
            circuit.begin(now).expect("asked").failed(now);
        }
        circuit
    }

    #[test]
    fn a_failure_between_answers_stops_nobody() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..10 {
            circuit.begin(now).expect("asked").failed(now);
            circuit.begin(now).expect("asked").answered();
        }
    }

    #[test]
    fn a_service_that_failed_in_a_row_is_left_alone_and_then_tried_by_one() {
        let now = Instant::now();
        let circuit = resting(now);
        assert!(circuit.begin(now + REST / 2).is_none());
        let probe = circuit.begin(now + REST).expect("one may try");
        assert!(circuit.begin(now + REST).is_none(), "but one alone");
        probe.failed(now + REST);
        assert!(circuit.begin(now + REST).is_none());
        circuit.begin(now + 2 * REST).expect("tried again").answered();
        let _both = [circuit.begin(now), circuit.begin(now)].map(|attempt| attempt.expect("everybody asks"));
    }

    #[test]
    fn whoever_tries_and_leaves_lets_the_next_one_try() {
        let now = Instant::now();
        let circuit = resting(now);
        drop(circuit.begin(now + REST).expect("one may try"));
        assert!(circuit.begin(now + REST).is_some());
    }
}
