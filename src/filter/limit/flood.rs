//! `server.max_connection_rate_per_address`: who connects too fast, in memory that does not grow with the number of
//! addresses.
//!
//! A count-min sketch (of `pingora-limits`): an address is counted in one cell of each of four rows, and its count is
//! the least of the four. Others may have been counted there too, so it can be too high and never too low;
//! `docs/limits.md` says by how much. Refused connections are not counted, so a flood cannot fill the cells of others by
//! being refused.
//!
//! Two windows: what came in this one, and as much of the last as a window that slides would still cover. Its own
//! `Rate` is not used: it takes the time before it reads when the window began, and a turn in between makes it wrap.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use pingora_limits::estimator::Estimator;

use crate::config::Rate;
use crate::http::network;

const ROWS: usize = 4;
const CELLS: usize = 1 << 16;

/// Connections of all addresses, of two windows.
pub struct Flood {
    rate: Rate,
    /// Nanoseconds
    window: u64,
    epoch: Instant,
    windows: [Estimator; 2],
    /// Which window is now, counted from the epoch
    now: AtomicU64,
    turning: Mutex<()>,
    refused: AtomicU64,
}

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flood").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl Flood {
    /// What it takes in memory, whoever comes.
    pub const BYTES: usize = 2 * ROWS * CELLS * size_of::<isize>();

    /// Nobody has come.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            window: u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX),
            epoch: Instant::now(),
            windows: [Estimator::new(ROWS, CELLS), Estimator::new(ROWS, CELLS)],
            now: AtomicU64::new(0),
            turning: Mutex::new(()),
            refused: AtomicU64::new(0),
        }
    }

    /// What it was built from.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Connections that came too fast.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// One more connection of `address`, IPv6 by /64, unless it comes too fast.
    pub fn enter(&self, address: IpAddr, now: Instant) -> bool {
        let network = network(address);
        let nanos = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let window = self.turn(nanos / self.window);
        let (this, last) = (self.half(window), self.half(window + 1));
        let passed = nanos.saturating_sub(window.saturating_mul(self.window)).min(self.window);
        let before = u128::from(count(last.get(network))) * u128::from(self.window - passed) / u128::from(self.window);
        let may_enter = before + u128::from(count(this.incr(network, 1))) <= u128::from(self.rate.count.get());
        if !may_enter {
            this.decr(network, 1);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        may_enter
    }

    /// Begins a window, if it is time, and says which it is. The half that is cleared belongs to the window before the
    /// last; who comes meanwhile does not wait, and is counted in the window that ends.
    fn turn(&self, window: u64) -> u64 {
        let now = self.now.load(Ordering::Acquire);
        if window <= now {
            return now;
        }
        let Some(_turning) = self.turning.try_lock() else { return now };
        // Somebody may have turned it since.
        let now = self.now.load(Ordering::Acquire);
        if window <= now {
            return now;
        }
        self.half(window).reset();
        if window > now + 1 {
            // There was a window in which nobody came.
            self.half(window + 1).reset();
        }
        self.now.store(window, Ordering::Release);
        window
    }

    fn half(&self, window: u64) -> &Estimator {
        &self.windows[usize::from(window % 2 == 1)]
    }
}

/// Who came in while a half was cleared may be given back below zero.
fn count(estimate: isize) -> u64 {
    u64::try_from(estimate).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flood(count: u32) -> Flood {
        Flood::new(Rate { count: NonZeroU32::new(count).expect("not zero"), per: SECOND })
    }

    fn address(which: u32) -> IpAddr {
        Ipv4Addr::from_bits(which).into()
    }

    #[test]
    fn an_address_may_come_as_often_as_it_may_and_others_do_not_mind() {
        let flood = flood(5);
        let enter = |which, millis| flood.enter(address(which), flood.epoch + Duration::from_millis(millis));
        assert_eq!((0..20).filter(|_| enter(1, 0)).count(), 5);
        assert!(enter(2, 0));
        assert_eq!(flood.refused(), 15);
        // A second later all five still count, half a second after that every other, then none.
        assert!(!enter(1, 1000));
        assert_eq!((0..20).filter(|_| enter(1, 1500)).count(), 3);
        assert_eq!((0..20).filter(|_| enter(1, 4000)).count(), 5);
    }

    #[test]
    fn ipv6_is_counted_by_network() {
        let flood = flood(1);
        let enter = |text: &str| flood.enter(text.parse().expect("an address"), flood.epoch);
        assert!(enter("2001:db8::1") && !enter("2001:db8::2") && enter("2001:db8:0:1::1"));
    }

    /// The figures of `docs/limits.md`: `cargo nextest run --lib --no-capture over_counted`.
    #[test]
    fn honest_addresses_are_over_counted_by_no_more_than_the_docs_say() {
        for (crowd, mean, worst) in [(1_000, 0.001, 0), (100_000, 0.5, 2), (1_000_000, 12.0, 18)] {
            let flood = flood(1_000_000);
            for which in 0..crowd {
                assert!(flood.enter(address(which), flood.epoch));
            }
            let mut over: Vec<_> =
                (0..10_000).map(|which| count(flood.windows[0].get(address(u32::MAX - which)))).collect();
            over.sort_unstable();
            let found = over.iter().sum::<u64>() as f64 / over.len() as f64;
            println!(
                "{crowd} addresses: {found:.3} too many on average, {} for one in a hundred, {} at worst",
                over[over.len() * 99 / 100],
                over[over.len() - 1]
            );
            assert!(found <= mean && over[over.len() * 99 / 100] <= worst, "{crowd}: {found}");
        }
    }

    #[test]
    fn threads_that_turn_windows_lose_no_more_than_they_race_for() {
        let flood = flood(100);
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let at = |step| flood.epoch + Duration::from_millis(step);
                        (0..20_000u64).filter(|step| flood.enter(address(1), at(*step))).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        // Twenty windows of a hundred. Threads that lag behind ask in the window that is.
        assert!((1000..=2500).contains(&passed), "{passed}");
    }

    proptest! {
        #[test]
        fn an_address_alone_never_gets_more_than_twice_its_rate_in_any_window(
            count in 1u32..50, steps in proptest::collection::vec(0u64..200, 1..400),
        ) {
            let flood = flood(count);
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                if flood.enter(address(1), flood.epoch + Duration::from_millis(now)) {
                    passed.push(now);
                }
                let recent = passed.iter().filter(|at| **at + 1000 > now).count();
                prop_assert!(recent <= 2 * count as usize, "{} in a second", recent);
            }
        }
    }
}
