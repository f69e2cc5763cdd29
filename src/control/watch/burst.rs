//! Many changes in a row are one: an editor, a package manager or a certificate's renewal touches several files, and each
//! several times.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A burst is over when nothing has happened for this long: longer than a tool takes between two files that belong
/// together, too short for a person to notice.
pub(super) const QUIET: Duration = Duration::from_millis(250);
/// One that does not end is cut off after this: what is changed without pause must still be taken.
pub(super) const LONGEST: Duration = Duration::from_secs(2);

/// Changes that have not been looked at.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The first and the last
    span: Option<(Instant, Instant)>,
}

impl Burst {
    /// Something has changed.
    pub(super) fn note(&mut self) {
        let now = Instant::now();
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// Resolves when a burst is over, which is forgotten then; never while there is none. Cancelling loses nothing.
    pub(super) async fn over(&mut self) {
        let Some((first, last)) = self.span else {
            return std::future::pending().await;
        };
        sleep_until((last + QUIET).min(first + LONGEST)).await;
        self.span = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::{advance, timeout};

    use super::*;

    /// Notes a change every `pause`, `times` times, and says how long after the first the burst was over.
    async fn length(pause: Duration, times: u32) -> Duration {
        let (mut burst, begin) = (Burst::default(), Instant::now());
        burst.note();
        for _ in 1..times {
            if timeout(pause, burst.over()).await.is_ok() {
                return begin.elapsed();
            }
            burst.note();
        }
        burst.over().await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_over_when_it_is_quiet() {
        assert_eq!(length(QUIET, 1).await, QUIET);
        assert_eq!(length(QUIET / 2, 4).await, QUIET / 2 * 3 + QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_is_cut_off() {
        assert_eq!(length(QUIET / 10, 1000).await, LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_is_another_one() {
        let mut burst = Burst::default();
        burst.note();
        burst.over().await;
        assert_eq!(burst.over().now_or_never(), None);
        advance(LONGEST).await;
        assert_eq!(burst.over().now_or_never(), None, "there is none");
        burst.note();
        let begin = Instant::now();
        burst.over().await;
        assert_eq!(begin.elapsed(), QUIET);
    }
}
