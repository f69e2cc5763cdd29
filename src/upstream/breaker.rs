//! A fuse for the whole upstream: where most tries fail, the next ones are not made.
//!
//! Closed, it counts; open, it refuses for a while; then a few requests find out whether it may close again. While it
//! is closed nobody takes its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::window::Window;
use crate::config::{self, Name};

/// Shared by all workers, and kept over reloads that leave its configuration alone.
#[derive(Debug)]
pub(super) struct Breaker {
    upstream: Name,
    spec: config::Breaker,
    tries: Window,
    failures: Window,
    /// What nearly every request sees
    closed: AtomicBool,
    phase: Mutex<Phase>,
    openings: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    /// Half open
    Trial {
        /// Of those under way
        round: u32,
        /// When the round began, or the last of its trials was judged
        since: Instant,
        under_way: u32,
        passed: u32,
    },
}

/// The right to try, which has to come back as [`Breaker::settle`] or [`Breaker::give_back`] if it is a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    Usual,
    /// One of those that find out
    Trial {
        /// The number of the opening
        opening: u64,
        round: u32,
    },
}

/// What a breaker is doing, for whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything goes through
    Closed,
    /// Everything is refused
    Open,
    /// A few requests find out
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name in metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    pub(super) fn new(upstream: &Name, spec: &config::Breaker, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            upstream: Arc::clone(upstream),
            tries: Window::new(now, spec.window),
            failures: Window::new(now, spec.window),
            closed: AtomicBool::new(true),
            phase: Mutex::new(Phase::Closed),
            openings: AtomicU64::new(0),
            spec: spec.clone(),
        })
    }

    /// Asks to try; nothing while it is open.
    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> Option<Permit> {
        if self.closed.load(Ordering::Acquire) {
            return Some(Permit::Usual);
        }
        let mut phase = self.phase.lock();
        let now = now();
        let round = match &mut *phase {
            Phase::Closed => return Some(Permit::Usual),
            Phase::Open { until } if now < *until => return None,
            Phase::Open { .. } => {
                log::info!("upstream {}: its breaker lets {} requests try", self.upstream, self.spec.trials);
                *phase = Phase::Trial { round: 0, since: now, under_way: 1, passed: 0 };
                0
            }
            // Who sends a body as slowly as may be holds a place for as long: the others are not to wait for that.
            Phase::Trial { round, since, under_way, .. } if now >= *since + self.spec.open_for => {
                (*round, *since, *under_way) = (round.wrapping_add(1), now, 1);
                *round
            }
            Phase::Trial { round, under_way, passed, .. } if *under_way + *passed < self.spec.trials.get() => {
                *under_way += 1;
                *round
            }
            Phase::Trial { .. } => return None,
        };
        Some(Permit::Trial { opening: self.openings.load(Ordering::Relaxed), round })
    }

    /// A try went well, or it failed.
    pub(super) fn settle(&self, permit: Permit, succeeded: bool, now: Instant) {
        match permit {
            Permit::Usual => {
                self.tries.add(now);
                if !succeeded {
                    self.failed(now);
                }
            }
            Permit::Trial { opening, round } => self.judge(opening, round, succeeded, now),
        }
    }

    /// The response to a try that `began` then has broken off, after its head had counted as a success.
    ///
    /// A failure counts beside its own try. Where that has left the window, so has the failure: else clients that let
    /// many downloads stand until the upstream cuts them would outweigh all tries of the moment.
    pub(super) fn broke_off(&self, permit: Permit, began: Instant, now: Instant) {
        // To a tenth, as the window itself.
        if now.saturating_duration_since(began) >= self.spec.window * 9 / 10 {
            return;
        }
        if permit != Permit::Usual {
            self.tries.add(now);
        }
        self.failed(now);
    }

    fn failed(&self, now: Instant) {
        self.failures.add(now);
        let (tries, failures) = (self.tries.sum(now), self.failures.sum(now));
        let enough = tries >= u64::from(self.spec.min_requests.get());
        if !enough || failures * 100 < tries * u64::from(self.spec.failures) {
            return;
        }
        let mut phase = self.phase.lock();
        // Tries that were under way when it opened say nothing new.
        if *phase == Phase::Closed {
            log::warn!(
                "upstream {}: its breaker opens for {:?}: {failures} of {tries} tries failed",
                self.upstream,
                self.spec.open_for
            );
            self.open(&mut phase, now);
        }
    }

    /// A permit was not used to the end.
    pub(super) fn give_back(&self, permit: Permit) {
        if let Permit::Trial { opening, round } = permit {
            let mut phase = self.phase.lock();
            if let Phase::Trial { round: current, under_way, .. } = &mut *phase
                && (opening, round) == (self.openings.load(Ordering::Relaxed), *current)
            {
                *under_way -= 1;
            }
        }
    }

    /// A trial of an earlier round has its say: an upstream that takes longer than a round would never be judged.
    fn judge(&self, opening: u64, round: u32, succeeded: bool, now: Instant) {
        let mut phase = self.phase.lock();
        let Phase::Trial { round: current, under_way, passed, .. } = *phase else { return };
        if opening != self.openings.load(Ordering::Relaxed) {
            return;
        }
        if !succeeded {
            log::warn!("upstream {}: its breaker stays open: a trial failed", self.upstream);
            self.open(&mut phase, now);
        } else if passed + 1 < self.spec.trials.get() {
            let under_way = under_way - u32::from(round == current);
            *phase = Phase::Trial { round: current, since: now, under_way, passed: passed + 1 };
        } else {
            log::info!("upstream {}: its breaker closes", self.upstream);
            self.tries.clear();
            self.failures.clear();
            *phase = Phase::Closed;
            self.closed.store(true, Ordering::Release);
        }
    }

    fn open(&self, phase: &mut Phase, now: Instant) {
        *phase = Phase::Open { until: now + self.spec.open_for };
        self.openings.fetch_add(1, Ordering::Relaxed);
        self.closed.store(false, Ordering::Release);
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match *self.phase.lock() {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::Trial { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// When it is worth coming back.
    pub(super) fn opens_in(&self, now: Instant) -> Duration {
        match *self.phase.lock() {
            Phase::Open { until } => until.saturating_duration_since(now),
            Phase::Closed | Phase::Trial { .. } => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TRIAL: Permit = Permit::Trial { opening: 1, round: 0 };

    fn breaker(now: Instant, trials: u32) -> Arc<Breaker> {
        let spec = config::Breaker {
            failures: 50,
            min_requests: NonZeroU32::new(10).expect("not 0"),
            window: 10 * SECOND,
            open_for: 5 * SECOND,
            trials: NonZeroU32::new(trials).expect("not 0"),
        };
        Breaker::new(&"app".into(), &spec, now)
    }

    fn fail(breaker: &Breaker, count: u32, now: Instant) {
        (0..count).for_each(|_| breaker.settle(Permit::Usual, false, now));
    }

    #[test]
    fn it_opens_at_its_share_of_failures_and_not_before_enough_requests() {
        let now = Instant::now();
        let breaker = breaker(now, 1);
        fail(&breaker, 9, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        (0..10).for_each(|_| breaker.settle(Permit::Usual, true, now));
        assert_eq!(breaker.state(now), BreakerState::Closed, "9 of 19");
        fail(&breaker, 1, now);
        assert_eq!(breaker.state(now), BreakerState::Open, "10 of 20");
        assert_eq!(breaker.admit(|| now), None);
        assert_eq!(breaker.opens_in(now + SECOND), 4 * SECOND);
    }

    #[test]
    fn failures_of_long_ago_open_nothing() {
        let now = Instant::now();
        let breaker = breaker(now, 1);
        fail(&breaker, 9, now);
        fail(&breaker, 9, now + 11 * SECOND);
        assert_eq!(breaker.state(now + 11 * SECOND), BreakerState::Closed);
    }

    #[test]
    fn a_few_trials_find_out_and_all_of_them_have_to_succeed() {
        let start = Instant::now();
        let breaker = breaker(start, 2);
        fail(&breaker, 10, start);
        let now = start + 5 * SECOND;
        let trials = [breaker.admit(|| now), breaker.admit(|| now)];
        assert_eq!(trials, [Some(TRIAL); 2]);
        assert_eq!(breaker.admit(|| now), None, "no third");
        breaker.settle(TRIAL, true, now);
        assert_eq!(breaker.admit(|| now), None, "the second is still under way");
        breaker.settle(TRIAL, false, now);
        assert_eq!(breaker.state(now), BreakerState::Open);
        let now = now + 5 * SECOND;
        for _ in 0..2 {
            let permit = breaker.admit(|| now).expect("a trial");
            breaker.settle(permit, true, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(breaker.admit(|| now), Some(Permit::Usual));
        fail(&breaker, 9, now);
        assert_eq!(breaker.state(now), BreakerState::Closed, "it has begun anew");
    }

    #[test]
    fn a_trial_that_nobody_finished_is_given_to_another() {
        let start = Instant::now();
        let breaker = breaker(start, 1);
        fail(&breaker, 10, start);
        let now = start + 5 * SECOND;
        let permit = breaker.admit(|| now).expect("a trial");
        assert_eq!(breaker.admit(|| now), None);
        breaker.give_back(permit);
        let permit = breaker.admit(|| now).expect("the same trial");
        breaker.settle(permit, false, now);
        // One of an earlier opening has no say in a later one.
        let now = now + 5 * SECOND;
        let current = breaker.admit(|| now).expect("a trial");
        breaker.settle(permit, true, now);
        breaker.give_back(permit);
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(|| now), None);
        breaker.settle(current, true, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn trials_that_are_held_keep_nobody_else_out() {
        let start = Instant::now();
        let breaker = breaker(start, 2);
        fail(&breaker, 10, start);
        let now = start + 5 * SECOND;
        let held = [breaker.admit(|| now), breaker.admit(|| now)].map(|permit| permit.expect("a trial"));
        assert_eq!(breaker.admit(|| now + 4 * SECOND), None);
        let now = now + 5 * SECOND;
        let honest =
            [breaker.admit(|| now), breaker.admit(|| now)].map(|permit| permit.expect("a trial of the next round"));
        assert_eq!(breaker.admit(|| now), None, "no more than allowed in a round");
        breaker.give_back(held[0]);
        assert_eq!(breaker.admit(|| now), None, "its place is another's");
        breaker.settle(honest[0], true, now);
        breaker.settle(honest[1], true, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(breaker.openings(), 1);
    }

    #[test]
    fn an_upstream_slower_than_a_round_is_judged_all_the_same() {
        for (succeeded, state) in [(true, BreakerState::Closed), (false, BreakerState::Open)] {
            let start = Instant::now();
            let breaker = breaker(start, 1);
            fail(&breaker, 10, start);
            let slow = breaker.admit(|| start + 5 * SECOND).expect("a trial");
            let now = start + 11 * SECOND;
            breaker.admit(|| now).expect("a trial of the next round");
            breaker.settle(slow, succeeded, now);
            assert_eq!(breaker.state(now), state);
        }
    }

    #[test]
    fn a_failure_counts_beside_its_own_try_and_is_forgotten_with_it() {
        let start = Instant::now();
        let breaker = breaker(start, 1);
        (0..500).for_each(|_| breaker.settle(Permit::Usual, true, start));
        let now = start + 30 * SECOND;
        (0..20).for_each(|_| breaker.settle(Permit::Usual, true, now));
        (0..500).for_each(|_| breaker.broke_off(Permit::Usual, start, now));
        assert_eq!(breaker.state(now), BreakerState::Closed, "downloads that nobody read");
        (0..10).for_each(|_| breaker.broke_off(Permit::Usual, now - SECOND, now));
        assert_eq!(breaker.state(now), BreakerState::Open, "10 of 20");
    }

    proptest! {
        /// Whatever happens: no more trials than allowed, none before their time, and it never stays shut for ever.
        #[test]
        fn it_lets_nobody_through_while_open_and_always_finds_back(
            trials in 1_u32..5,
            steps in prop::collection::vec((0_u64..3000, 0_u8..4), 1..300),
        ) {
            let epoch = Instant::now();
            let breaker = breaker(epoch, trials);
            let mut held: Vec<Permit> = Vec::new();
            let mut now = epoch;
            for (millis, step) in steps {
                now += Duration::from_millis(millis);
                let before = breaker.state(now);
                if let Some(permit) = (step < 2).then(|| breaker.admit(|| now)).flatten() {
                    prop_assert_ne!(before, BreakerState::Open);
                    held.push(permit);
                } else if let Some(permit) = held.pop() {
                    match step {
                        0 | 1 => breaker.give_back(permit),
                        _ => breaker.settle(permit, step == 2, now),
                    }
                }
                let Phase::Trial { round, .. } = *breaker.phase.lock() else { continue };
                let current = Permit::Trial { opening: breaker.openings(), round };
                let under_way = held.iter().filter(|permit| **permit == current).count();
                prop_assert!(under_way <= trials as usize);
            }
            held.drain(..).for_each(|permit| breaker.give_back(permit));
            now += 11 * SECOND;
            for _ in 0..=trials {
                let permit = breaker.admit(|| now).expect("its time has come");
                breaker.settle(permit, true, now);
            }
            prop_assert_eq!(breaker.state(now), BreakerState::Closed);
        }
    }
}
