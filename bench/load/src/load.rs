//! All lanes at once, from begin to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::lane::{self, Lane, Shared};
use crate::tally::{Report, Tally};

/// Load that is being sent. It has threads of its own, so that whoever started it can do something else.
pub struct Load {
    runtime: Runtime,
    shared: Arc<Shared>,
    begin: Instant,
    lanes: Vec<(String, Arc<Tally>)>,
    running: JoinSet<()>,
}

impl Load {
    /// Begins, on so many threads.
    ///
    /// # Errors
    /// No threads.
    pub fn start(lanes: Vec<Lane>, threads: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        let begin = Instant::now();
        // Ids of two runs against the same services do not meet.
        let first = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
        let shared = Shared { ids: AtomicU64::new(first.as_secs() << 32), stopping: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let mut running = JoinSet::new();
        let start = |lane: Lane| {
            let (name, tally) = (lane.name.clone(), Arc::new(Tally::new(begin)));
            running.spawn_on(lane::run(lane, Arc::clone(&shared), Arc::clone(&tally)), runtime.handle());
            (name, tally)
        };
        let lanes = lanes.into_iter().map(start).collect();
        Ok(Self { runtime, shared, begin, lanes, running })
    }

    /// Requests that have their answer so far.
    pub fn answered(&self) -> u64 {
        self.lanes.iter().map(|(_, tally)| tally.count()).sum()
    }

    /// Sends nothing more, waits for what was sent, and says what became of it.
    pub fn stop(mut self) -> Report {
        let end = Instant::now();
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.runtime.block_on(async { while self.running.join_next().await.is_some() {} });
        self.report(end)
    }

    fn report(&self, end: Instant) -> Report {
        Report {
            seconds: (end - self.begin).as_secs_f64(),
            lanes: self.lanes.iter().map(|(name, tally)| tally.report(name)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, Pace, duplicates};

    #[test]
    fn every_request_is_answered_and_every_post_remembered_once() {
        let origin = Origin::start().expect("started");
        let rated = Lane { pace: Pace::Rate(400.0), fresh: true, ..Lane::new("rated", origin.addr()) };
        let load = Load::start(vec![Lane::new("closed", origin.addr()), rated], 1).expect("started");
        while load.answered() < 500 {
            std::thread::yield_now();
        }
        let report = load.stop();
        assert_eq!(report.failed(), 0, "{report}");
        let (mut seen, mut posted) = (origin.posts(), report.posted().collect::<Vec<_>>());
        assert_eq!(duplicates(seen.iter().copied()), Vec::<u64>::new());
        seen.sort_unstable();
        posted.sort_unstable();
        assert_eq!(seen, posted);
        assert!(report.lanes.iter().all(|lane| lane.answered > 0), "{report}");
    }

    #[test]
    fn a_service_that_dies_is_a_failure_with_a_story() {
        let mut origin = Origin::start().expect("started");
        let load = Load::start(vec![Lane::new("closed", origin.addr())], 1).expect("started");
        while load.answered() < 10 {
            std::thread::yield_now();
        }
        origin.kill();
        // Requests that were on their way fail first, by a reset; then nobody is there to connect to.
        let refused = || {
            let failures = load.lanes[0].1.report("").failures;
            failures.iter().any(|failure| failure.what.contains("connecting: Connection refused"))
        };
        while !refused() {
            std::thread::yield_now();
        }
        let report = load.stop();
        assert!(report.failed() > 0);
        assert!(report.to_string().contains("connecting: Connection refused"), "{report}");
    }
}
