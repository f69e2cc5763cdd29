//! What the control room says about itself, for the admin side to show.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Written by those who change the truth, read by the admin side. Shared in an `Arc`.
#[derive(Debug)]
pub struct Status {
    started: SystemTime,
    ready: AtomicBool,
    last_reload: Mutex<Option<Reload>>,
    handed_over: watch::Sender<bool>,
}

/// How the last reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// When
    pub at: SystemTime,
    /// Why nothing changed, as the operator is told; `None` if the new configuration serves
    pub error: Option<String>,
}

impl Status {
    /// A process that has just started and does not serve yet.
    #[expect(clippy::new_without_default, reason = "it holds the moment the process started: not a value to conjure")]
    pub fn new() -> Self {
        Self {
            started: SystemTime::now(),
            ready: AtomicBool::new(false),
            last_reload: Mutex::new(None),
            handed_over: watch::Sender::new(false),
        }
    }

    /// When the process started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Every listener accepts.
    pub fn become_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether every listener accepts, or has accepted: what comes after that is the drain's to say.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// A reload came to its end.
    pub fn reloaded(&self, result: Result<(), String>) {
        *self.last_reload.lock() = Some(Reload { at: SystemTime::now(), error: result.err() });
    }

    /// How the last reload ended, if there was one.
    pub fn last_reload(&self) -> Option<Reload> {
        self.last_reload.lock().clone()
    }

    /// A successor serves: the admin side leaves its sockets to it, so that a probe never reaches the one that leaves.
    pub fn hand_over(&self) {
        self.handed_over.send_replace(true);
    }

    /// Resolves when a successor serves.
    pub async fn handed_over(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.handed_over.subscribe().wait_for(|handed_over| *handed_over).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reload_is_the_one_that_is_told() {
        let status = Status::new();
        assert_eq!(status.last_reload(), None);
        status.reloaded(Err("1 problem in tollgate.toml".into()));
        assert_eq!(status.last_reload().and_then(|reload| reload.error).as_deref(), Some("1 problem in tollgate.toml"));
        status.reloaded(Ok(()));
        assert_eq!(status.last_reload().map(|reload| reload.error), Some(None));
    }

    #[tokio::test]
    async fn whoever_waits_late_still_learns_of_the_hand_over() {
        let status = Status::new();
        assert!(!status.is_ready());
        status.become_ready();
        status.hand_over();
        status.handed_over().await;
        assert!(status.is_ready());
    }
}
