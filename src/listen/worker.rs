//! The workers: one thread each, with a runtime and a proxy of its own. A request is served where its connection is, and
//! touches nothing that another worker writes.
//!
//! Each worker accepts from sockets of its own, so that a new connection wakes one thread. The kernel spreads them by a
//! hash of addresses, which is fair to many connections and not to few: whoever accepts one while another worker has
//! fewer open hands it over before its first byte is read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as threads;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::server::ShutdownWatch;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use super::Share;
use super::accept::{self, Accepted, Door};
use super::turn::Turns;

/// How long the last tasks may take to be dropped when the process ends.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// What workers know of each other.
#[derive(Debug)]
pub(super) struct Workers(Box<[Seat]>);

#[derive(Debug)]
struct Seat {
    open: AtomicUsize,
    /// Each that waits here has a place under `max_connections`, which bounds them
    arrivals: mpsc::UnboundedSender<Accepted>,
}

/// Counts as a connection of a worker until dropped.
#[derive(Debug)]
pub(super) struct Served {
    workers: Arc<Workers>,
    at: usize,
}

impl Workers {
    /// So many workers, and what each receives.
    pub(super) fn new(count: usize) -> (Arc<Self>, Vec<mpsc::UnboundedReceiver<Accepted>>) {
        let (seats, arrivals): (Vec<_>, _) = (0..count)
            .map(|_| {
                let (arrivals, received) = mpsc::unbounded_channel();
                (Seat { open: AtomicUsize::new(0), arrivals }, received)
            })
            .unzip();
        (Arc::new(Self(seats.into())), arrivals)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Where a connection that worker `here` has accepted is served: there, unless another has fewer.
    pub(super) fn assign(self: &Arc<Self>, here: usize) -> Served {
        let open = |at: usize| self.0[at].open.load(Ordering::Relaxed);
        let least = (0..self.0.len()).min_by_key(|&at| open(at)).unwrap_or(here);
        let at = if open(least) < open(here) { least } else { here };
        self.0[at].open.fetch_add(1, Ordering::Relaxed);
        Served { workers: Arc::clone(self), at }
    }

    /// Gives a connection to the worker it was assigned to. One whose worker is gone is closed.
    pub(super) fn hand_over(&self, accepted: Accepted) {
        drop(self.0[accepted.served_at()].arrivals.send(accepted));
    }
}

impl Served {
    /// The worker.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.workers.0[self.at].open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The threads, to be ended before the process does: what they drop leaves its last lines in the log.
#[derive(Debug)]
pub struct Threads {
    stop: watch::Sender<bool>,
    running: threads::Receiver<()>,
}

/// What each thread holds of [`Threads`].
#[derive(Clone, Debug)]
pub(super) struct Tether {
    stop: watch::Receiver<bool>,
    _running: threads::Sender<()>,
}

impl Threads {
    pub(super) fn new() -> (Self, Tether) {
        let (stop, stopped) = watch::channel(false);
        let (held, running) = threads::channel();
        (Self { stop, running }, Tether { stop: stopped, _running: held })
    }

    /// Drops every connection that is left and waits for that, within a bound of time.
    pub fn end(self) {
        self.stop.send_replace(true);
        // Nothing is ever sent: this waits until the last thread has let go.
        let _ = self.running.recv_timeout(LAST_TASKS);
    }
}

/// What one worker is started with.
pub(super) struct Worker<A> {
    pub(super) index: usize,
    pub(super) app: Arc<A>,
    pub(super) workers: Arc<Workers>,
    pub(super) arrivals: mpsc::UnboundedReceiver<Accepted>,
    pub(super) sockets: Vec<Share>,
    pub(super) shutdown: ShutdownWatch,
    pub(super) tether: Tether,
}

impl<A: HttpServerApp + Send + Sync + 'static> Worker<A> {
    /// Starts the thread. Resolves when it accepts.
    pub(super) async fn start(self) -> io::Result<()> {
        let (started, ready) = oneshot::channel();
        std::thread::Builder::new().name(format!("worker-{}", self.index)).spawn(move || self.run(started))?;
        // A thread that panics has been reported by the panic hook.
        ready.await.unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))
    }

    fn run(self, started: oneshot::Sender<io::Result<()>>) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let tether = self.tether.clone();
        runtime.block_on(self.work(started));
        end(runtime);
        drop(tether);
    }

    async fn work(self, started: oneshot::Sender<io::Result<()>>) {
        let Self { index, app, workers, mut arrivals, sockets, shutdown, mut tether } = self;
        let serve = Arc::new(accept::Serve { app, shutdown, turns: Turns::of_one(workers.count()) });
        let doors: io::Result<Vec<_>> = sockets
            .into_iter()
            .map(|(socket, listening)| Door::open(socket, listening, Arc::clone(&workers), index))
            .collect();
        match doors {
            Ok(doors) => doors.into_iter().for_each(|door| door.watch(Arc::clone(&serve))),
            Err(error) => return drop(started.send(Err(error))),
        }
        // Whoever started this has given up waiting: the process is about to end.
        let _ = started.send(Ok(()));
        loop {
            tokio::select! {
                Some(accepted) = arrivals.recv() => serve.begin(accepted),
                _ = tether.stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// Drops what still runs. Blocking work is not waited for.
fn end(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::ZERO);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(workers: &Arc<Workers>, accepted_at: &[usize]) -> Vec<Served> {
        accepted_at.iter().map(|&at| workers.assign(at)).collect()
    }

    #[test]
    fn connections_stay_where_they_arrive_while_nobody_has_fewer() {
        let (workers, _arrivals) = Workers::new(3);
        let served = spread(&workers, &[2, 1, 0, 0, 1, 2]);
        assert_eq!(served.iter().map(Served::at).collect::<Vec<_>>(), [2, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn wherever_they_arrive_no_worker_has_two_more_than_another() {
        let (workers, _arrivals) = Workers::new(3);
        let mut served = spread(&workers, &[0; 10]);
        let count = |served: &[Served], at| served.iter().filter(|served| served.at() == at).count();
        assert_eq!([0, 1, 2].map(|at| count(&served, at)), [4, 3, 3]);
        served.retain(|served| served.at() != 1);
        served.extend(spread(&workers, &[0; 3]));
        assert_eq!([0, 1, 2].map(|at| count(&served, at)), [4, 3, 3]);
    }
}
