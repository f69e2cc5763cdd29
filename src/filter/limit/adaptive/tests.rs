//! The limit before a simulated upstream: so many requests at once, each of which takes so long, and a line for more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// An upstream, and clients that ask it as often as `rate` says, whatever becomes of their requests.
struct Simulation {
    adaptive: Adaptive,
    epoch: Instant,
    /// Microseconds since the epoch
    now: u64,
    next_arrival: f64,
    /// When each of what it can do at once is free again
    servers: BinaryHeap<Reverse<u64>>,
    capacity: usize,
    service: u64,
    /// By when they are answered: when they began
    in_flight: BinaryHeap<Reverse<(u64, u64)>>,
    random: u64,
}

#[derive(Debug, Default)]
struct Result {
    answered: u64,
    refused: u64,
    slowest: u64,
    /// The longest time in which nobody was let in
    drought: u64,
    largest: u32,
    smallest: u32,
}

impl Simulation {
    fn new(capacity: usize, service: u64) -> Self {
        let epoch = Instant::now();
        Self {
            adaptive: Adaptive::new(3, 1000, 0.5, epoch),
            epoch,
            now: 0,
            next_arrival: 0.0,
            servers: BinaryHeap::new(),
            capacity,
            service,
            in_flight: BinaryHeap::new(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// From 0 to 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn at(&self, micros: u64) -> Instant {
        self.epoch + Duration::from_micros(micros)
    }

    /// Runs for so many seconds with so many requests a second.
    fn run(&mut self, seconds: u64, rate: f64) -> Result {
        let end = self.now + seconds * 1_000_000;
        let mut result = Result { smallest: u32::MAX, ..Result::default() };
        let mut admitted = self.now;
        self.next_arrival = self.next_arrival.max(self.now as f64);
        while self.now < end {
            let done = self.in_flight.peek().map_or(u64::MAX, |Reverse((done, _))| *done);
            self.now = done.min(self.next_arrival as u64);
            if done <= self.next_arrival as u64 {
                self.answer(&mut result);
                continue;
            }
            // Poisson: as many clients that know nothing of one another.
            self.next_arrival += -(1.0 - self.random()).ln() * 1e6 / rate;
            let limit = self.adaptive.limit();
            result.largest = result.largest.max(limit);
            result.smallest = result.smallest.min(limit);
            if self.in_flight.len() >= limit as usize {
                result.refused += 1;
                continue;
            }
            result.drought = result.drought.max(self.now - admitted);
            admitted = self.now;
            self.begin();
        }
        result.drought = result.drought.max(self.now - admitted);
        result
    }

    fn begin(&mut self) {
        while self.servers.len() >= self.capacity {
            let Some(Reverse(free)) = self.servers.pop() else { break };
            if self.servers.len() < self.capacity {
                let took = self.service as f64 * (0.8 + 0.4 * self.random());
                let done = free.max(self.now) + took as u64;
                self.servers.push(Reverse(done));
                self.in_flight.push(Reverse((done, self.now)));
                return;
            }
        }
        let took = self.service as f64 * (0.8 + 0.4 * self.random());
        let done = self.now + took as u64;
        self.servers.push(Reverse(done));
        self.in_flight.push(Reverse((done, self.now)));
    }

    fn answer(&mut self, result: &mut Result) {
        let in_flight = self.in_flight.len() as u32;
        let Some(Reverse((done, began))) = self.in_flight.pop() else { return };
        let took = Duration::from_micros(done - began);
        self.adaptive.observe(Sample::Took(took), self.at(began), in_flight, self.at(done));
        result.answered += 1;
        result.slowest = result.slowest.max(done - began);
    }
}

const MILLI: u64 = 1000;

#[test]
fn before_an_upstream_that_is_asked_too_much_it_finds_what_that_can_do() {
    for (capacity, service) in [(10, 20 * MILLI), (100, 10 * MILLI), (50, 200 * MILLI), (400, 50 * MILLI)] {
        let mut simulation = Simulation::new(capacity, service);
        let most = capacity as f64 * 1e6 / service as f64;
        simulation.run(30, most * 2.0);
        let result = simulation.run(30, most * 2.0);
        // All it can do is done, and nobody waits for long.
        let answered = result.answered as f64 / 30.0;
        assert!(answered > most * 0.93, "{answered} of {most} a second: {result:?}");
        assert!(result.slowest < service * 3, "{service}: {result:?}");
        assert!(result.largest < capacity as u32 * 2 + 10, "{capacity}: {result:?}");
    }
}

/// The figures of `docs/limits.md`.
#[test]
fn before_an_upstream_that_does_100_at_once_it_is_there_within_two_seconds_and_settles_a_little_above() {
    let mut simulation = Simulation::new(100, 10 * MILLI);
    let result = simulation.run(2, 20_000.0);
    assert!(result.largest >= 100, "{result:?}");
    for _ in 0..20 {
        simulation.run(5, 20_000.0);
        let limit = simulation.adaptive.limit();
        assert!((130..=165).contains(&limit), "{limit}");
    }
}

#[test]
fn it_follows_an_upstream_that_becomes_slower_smaller_and_whole_again() {
    let mut simulation = Simulation::new(100, 10 * MILLI);
    simulation.run(30, 20_000.0);
    // Half as much at once.
    simulation.capacity = 50;
    simulation.run(40, 20_000.0);
    let result = simulation.run(20, 20_000.0);
    assert!(result.largest < 110 && result.answered > 20 * 4500, "{result:?}");
    // Each takes three times as long: that is not because there are too many.
    (simulation.capacity, simulation.service) = (100, 30 * MILLI);
    simulation.run(40, 20_000.0);
    let result = simulation.run(20, 20_000.0);
    assert!(result.answered > 20 * 3000, "{result:?}");
    assert!(result.slowest < 90 * MILLI, "{result:?}");
    // As it was.
    simulation.service = 10 * MILLI;
    simulation.run(40, 20_000.0);
    let result = simulation.run(20, 20_000.0);
    assert!(result.answered > 20 * 9000 && result.slowest < 30 * MILLI, "{result:?}");
}

#[test]
fn nobody_is_refused_by_an_upstream_that_has_no_trouble() {
    let mut simulation = Simulation::new(100, 10 * MILLI);
    // 30 in flight of the 100 that it can do; the limit begins below.
    simulation.run(10, 3000.0);
    let result = simulation.run(600, 3000.0);
    assert_eq!(result.refused, 0, "{result:?}");
    assert!(result.largest < 150, "{result:?}");
}

#[test]
fn an_hour_of_little_to_do_does_not_inflate_it() {
    let mut simulation = Simulation::new(100, 10 * MILLI);
    let result = simulation.run(3600, 200.0);
    assert!(result.refused == 0 && result.largest < 40, "{result:?}");
    // What comes then does not find an open door.
    let result = simulation.run(3, 30_000.0);
    assert!(result.slowest < 40 * MILLI, "{result:?}");
}

#[test]
fn an_upstream_that_stalls_keeps_nobody_out_for_longer_than_it_stalls() {
    let mut simulation = Simulation::new(100, 10 * MILLI);
    simulation.run(30, 20_000.0);
    simulation.service = 2_000 * MILLI;
    simulation.run(3, 20_000.0);
    simulation.service = 10 * MILLI;
    simulation.run(40, 20_000.0);
    let result = simulation.run(10, 20_000.0);
    assert!(result.answered > 10 * 9000, "{result:?}");
}

#[test]
fn answers_that_tell_nothing_change_nothing() {
    let now = Instant::now();
    let adaptive = Adaptive::new(3, 1000, 0.5, now);
    for tick in 0..10_000 {
        assert!(!adaptive.observe(Sample::Nothing, now, 20, now + Duration::from_millis(tick)));
    }
    assert_eq!(adaptive.found(), Found { limit: 20, baseline: Duration::ZERO, sampled: Duration::ZERO });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn somebody_is_always_let_in_whatever_the_upstream_does(
        phases in prop::collection::vec((1_usize..200, 1_u64..300, 10.0_f64..5_000.0), 1..6),
        random in 1_u64..,
    ) {
        let mut simulation = Simulation::new(10, 10 * MILLI);
        simulation.random = random;
        let mut slowest = 10;
        for (capacity, millis, rate) in phases {
            (simulation.capacity, simulation.service) = (capacity, millis * MILLI);
            slowest = slowest.max(millis);
            let result = simulation.run(20, rate);
            prop_assert!(result.smallest >= 3 && result.largest <= 1000, "{result:?}");
            // At most what three of them take one after the other, or nobody came.
            let most = (slowest * MILLI * 3 * 200).max((20e6 / rate) as u64);
            prop_assert!(result.drought <= most, "{result:?}, {most}");
        }
    }
}
