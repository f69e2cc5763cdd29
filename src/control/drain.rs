//! Leaving without losing anybody: who is told when, and who is still being served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// Where the process is in its life. Phases only advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Getting ready: sockets are bound, but what serving needs (addresses of names, keys) is still on its way
    Starting,
    /// Accepts and serves
    Serving,
    /// Still accepts, but `/readyz` fails, so that load balancers look elsewhere (`drain_delay`)
    Leaving,
    /// Accepts nothing any more; what clients have begun is finished
    Draining,
}

/// The handle that listeners, requests and the admin side watch. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<Phase>,
    /// The last phase once more: requests read this one, without the lock of a channel
    stopping: AtomicBool,
    connections: AtomicUsize,
    acceptors: AtomicUsize,
    emptied: Notify,
}

/// Somebody who may still begin connections, or owes an answer, until dropped; the process waits for that too.
#[derive(Debug)]
pub struct AcceptorGuard(Arc<Inner>);

/// Counts as an open connection until dropped; the process waits for it.
#[derive(Debug)]
pub struct ConnectionGuard(Arc<Inner>);

impl Drain {
    /// A process that gets ready to serve.
    #[expect(clippy::new_without_default, reason = "a second drain beside the first would be watched by nobody")]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            phase: watch::Sender::new(Phase::Starting),
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            acceptors: AtomicUsize::new(0),
            emptied: Notify::new(),
        }))
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Whether nothing new may begin: answers from here on say that the connection ends with them.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// Resolves when the process may accept. Until then connections wait in the kernel's queue, or go to the process that
    /// is being succeeded: either is better than an answer that says "not yet".
    pub async fn serving(&self) {
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = self.0.phase.subscribe().wait_for(|phase| *phase >= Phase::Serving).await;
    }

    /// Resolves when the process stops accepting.
    pub async fn stopping(&self) {
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = self.0.phase.subscribe().wait_for(|phase| *phase == Phase::Draining).await;
    }

    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.phase.send_if_modified(|current| {
            let later = *current < phase;
            if later {
                *current = phase;
                self.0.stopping.store(phase == Phase::Draining, Ordering::Relaxed);
            }
            later
        });
    }

    /// A connection begins.
    pub fn connection(&self) -> ConnectionGuard {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(&self.0))
    }

    /// Somebody begins to accept connections.
    pub fn acceptor(&self) -> AcceptorGuard {
        self.0.acceptors.fetch_add(1, Ordering::Relaxed);
        AcceptorGuard(Arc::clone(&self.0))
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Acquire)
    }

    /// Resolves when no connection is open and nobody accepts any.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            tokio::pin!(emptied);
            // Registered before looking, so that a last connection that ends in between is not missed.
            emptied.as_mut().enable();
            // Acceptors first: the last thing one does is to begin connections.
            if self.0.acceptors.load(Ordering::Acquire) == 0 && self.connections() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

impl Drop for AcceptorGuard {
    fn drop(&mut self) {
        if self.0.acceptors.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own the tasks that they start")]
mod tests {
    use super::*;

    #[test]
    fn phases_only_advance() {
        let drain = Drain::new();
        drain.advance(Phase::Leaving);
        assert!(!drain.is_stopping());
        drain.advance(Phase::Draining);
        drain.advance(Phase::Serving);
        assert_eq!(drain.phase(), Phase::Draining);
        assert!(drain.is_stopping());
    }

    #[tokio::test]
    async fn the_last_connection_ends_the_wait() {
        let drain = Drain::new();
        drain.emptied().await;
        let (first, second) = (drain.connection(), drain.connection());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.emptied().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.expect("ends");
    }

    #[tokio::test]
    async fn a_connection_that_the_last_acceptor_begins_is_waited_for() {
        let drain = Drain::new();
        let acceptor = drain.acceptor();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.emptied().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let connection = drain.connection();
        drop(acceptor);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(connection);
        waiting.await.expect("ends");
    }

    #[tokio::test]
    async fn those_who_watch_learn_that_it_stops() {
        let drain = Drain::new();
        let watching = tokio::spawn({
            let drain = drain.clone();
            async move { drain.stopping().await }
        });
        drain.advance(Phase::Draining);
        watching.await.expect("told");
    }
}
