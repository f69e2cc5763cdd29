//! `queue`: requests wait for a place at any endpoint while all are at their cap.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::balance::Wish;
use super::group::Upstream;
use super::lease::{Lease, Tried, Unavailable};
use crate::config;
use crate::http::{Line, Missed};

/// The line of an upstream, which its successive versions share.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: Line,
    /// Whether some version had one: those that never had do not look for somebody to call
    is_used: AtomicBool,
    micros: AtomicU64,
}

impl Queue {
    pub(super) fn open(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// A place is free, or the endpoints are others.
    pub(super) fn call(&self) {
        if self.is_used.load(Ordering::Relaxed) {
            self.line.call();
        }
    }

    /// Whether nobody has to be let in first.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// How many wait, and how long all have waited.
    pub(super) fn stats(&self) -> (usize, Duration) {
        (self.line.length(), Duration::from_micros(self.micros.load(Ordering::Relaxed)))
    }
}

impl Upstream {
    /// Waits until not all are busy, and has whatever it is then.
    pub(super) async fn wait(
        &self,
        spec: config::Queue,
        (tried, wish): (&Tried, Wish),
        patience: Option<Duration>,
        waited: &mut Duration,
    ) -> Result<Lease, Unavailable> {
        let lineage = self.lineage();
        let waiting = Waiting { queue: &lineage.queue, begin: Instant::now() };
        let take = || match self.current().choose(tried, wish, Instant::now) {
            Err(Unavailable::EndpointsBusy) => ControlFlow::Continue(()),
            picked => ControlFlow::Break(picked),
        };
        let patience = patience.map_or(spec.timeout, |patience| patience.min(spec.timeout));
        let picked = lineage.queue.line.wait(spec.length.get() as usize, patience, take).await;
        *waited += waiting.begin.elapsed();
        match picked {
            Ok(picked) => picked,
            Err(Missed::Full) => Err(Unavailable::QueueFull),
            Err(Missed::TimedOut) => Err(Unavailable::QueueTimeout),
        }
    }
}

/// Somebody waits, until he is dropped.
struct Waiting<'a> {
    queue: &'a Queue,
    begin: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let micros = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.queue.micros.fetch_add(micros, Ordering::Relaxed);
    }
}
