//! Turns for requests whose clients have closed their windows before they ask.
//!
//! Nothing of the answer can be sent to them, yet each costs as much as any other, and one connection of HTTP/2 brings a
//! hundred. So few of them are under way at a time, and the others wait where they cost little. Whoever opens the window
//! by and by loses nothing but time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::Window;

/// Turns at a time, over all workers.
const AT_ONCE: usize = 256;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Those of one worker.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

/// A request whose turn did not come.
#[derive(Debug)]
pub(super) struct Missed;

impl Turns {
    /// Those of one of so many workers.
    pub(super) fn of_one(workers: usize) -> Self {
        Self(Arc::new(Semaphore::new((AT_ONCE / workers.max(1)).max(1))))
    }

    /// A turn, or nothing when the window has opened before it came.
    ///
    /// # Errors
    /// Neither happened in time.
    pub(super) async fn take(&self, window: &Window) -> Result<Option<OwnedSemaphorePermit>, Missed> {
        tokio::select! {
            biased;
            () = window.opened() => Ok(None),
            turn = timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()) => match turn {
                Ok(turn) => Ok(turn.ok()),
                Err(_) => Err(Missed),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_turn_or_a_window_and_not_for_ever() {
        let (turns, window) = (Turns::of_one(AT_ONCE), Window::default());
        window.set(0);
        let turn = turns.take(&window).await.expect("there is one").expect("it is needed");
        let begin = tokio::time::Instant::now();
        turns.take(&window).await.expect_err("it is taken");
        assert_eq!(begin.elapsed(), PATIENCE);

        let mut waits = Box::pin(turns.take(&window));
        assert!((&mut waits).now_or_never().is_none());
        drop(turn);
        let turn = waits.await.expect("in time").expect("it is needed");

        let mut waits = Box::pin(turns.take(&window));
        assert!((&mut waits).now_or_never().is_none());
        window.set(65_535);
        assert!(waits.await.expect("in time").is_none(), "no turn is needed any more");
        drop(turn);
    }
}
