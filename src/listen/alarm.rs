//! A timer that follows a deadline which others move.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::Deadline;

/// Kept for many deadlines in turn: it is moved only when it would fire too late, or has fired too early.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `deadline` passed `grace` ago. Wakes the task when that may be so.
    pub(super) fn poll(&mut self, deadline: &Deadline, grace: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = deadline.at() else {
            return Poll::Pending;
        };
        let at = Instant::from_std(at + grace);
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_alarm_follows_its_deadline_in_both_directions() {
        let (deadline, mut alarm) = (Deadline::default(), Alarm::default());
        let start = Instant::now();
        deadline.allow(start.into_std(), 10 * SECOND, None);
        let ring = poll_fn(|cx| alarm.poll(&deadline, Duration::ZERO, cx));
        assert!(tokio::time::timeout(5 * SECOND, ring).await.is_err());
        deadline.allow(Instant::now().into_std(), SECOND, None);
        poll_fn(|cx| alarm.poll(&deadline, SECOND, cx)).await;
        assert_eq!(start.elapsed().as_secs(), 7);
        deadline.allow(Instant::now().into_std(), 3 * SECOND, None);
        poll_fn(|cx| alarm.poll(&deadline, Duration::ZERO, cx)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lifted_deadline_never_rings() {
        let (deadline, mut alarm) = (Deadline::default(), Alarm::default());
        deadline.allow(Instant::now().into_std(), SECOND, None);
        poll_fn(|cx| Poll::Ready(alarm.poll(&deadline, Duration::ZERO, cx).is_ready())).await;
        deadline.lift();
        let ring = poll_fn(|cx| alarm.poll(&deadline, Duration::ZERO, cx));
        assert!(tokio::time::timeout(100 * SECOND, ring).await.is_err());
    }
}
