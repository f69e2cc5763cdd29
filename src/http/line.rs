//! A line in which requests wait for their turn: first come, first served, bounded in length and in time.
//!
//! A line hands nothing over. Whoever frees something calls the first, who tries to take it and, once it leaves for
//! whatever reason, calls the next. So one request wakes for each place that is freed, and one that leaves early (its
//! client is gone, its time is over) takes nobody's turn with it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

/// Requests that wait. Any thread may wait in it and call.
#[derive(Default)]
pub struct Line {
    length: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By ascending number; a waker is there once its owner was polled
    places: VecDeque<(u64, Option<Waker>)>,
}

/// Why a request got nothing by waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// As many wait as may: it did not wait
    Full,
    /// It waited as long as it may
    TimedOut,
}

/// A place in the line, until it is dropped.
struct Place<'a> {
    line: &'a Line,
    number: u64,
}

impl Line {
    /// How many wait.
    pub fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Whether nobody has to be let in first.
    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// Waits for a turn, behind everybody who waits already, and takes what it is for: `take` is asked whenever there
    /// might be something, and says `Continue` while there is not.
    ///
    /// # Errors
    /// More than `most` would wait, or nothing came within `patience`.
    pub async fn wait<T>(
        &self,
        most: usize,
        patience: Duration,
        mut take: impl FnMut() -> ControlFlow<T>,
    ) -> Result<T, Missed> {
        let place = self.join(most).ok_or(Missed::Full)?;
        let turn = poll_fn(|ctx| place.poll(ctx, &mut take));
        tokio::time::timeout(patience, turn).await.map_err(|_| Missed::TimedOut)
    }

    /// Something was freed, or may be had for another reason: the first in the line should look. Costs next to nothing
    /// where nobody waits.
    pub fn call(&self) {
        // Either we see who joined before, or he sees what was freed before: he looks after he has joined.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            self.waiting.lock().call_first();
        }
    }

    fn join(&self, most: usize) -> Option<Place<'_>> {
        let mut waiting = self.waiting.lock();
        if waiting.places.len() >= most {
            return None;
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.push_back((number, None));
        self.length.store(waiting.places.len(), Ordering::Relaxed);
        drop(waiting);
        fence(Ordering::SeqCst);
        Some(Place { line: self, number })
    }
}

impl Waiting {
    fn call_first(&self) {
        if let Some((_, Some(waker))) = self.places.front() {
            waker.wake_by_ref();
        }
    }
}

impl Place<'_> {
    fn poll<T>(&self, ctx: &Context<'_>, take: &mut impl FnMut() -> ControlFlow<T>) -> Poll<T> {
        let mut waiting = self.line.waiting.lock();
        let is_first = waiting.places.front().is_some_and(|(number, _)| *number == self.number);
        if let Ok(at) = waiting.places.binary_search_by_key(&self.number, |(number, _)| *number)
            && let Some((_, waker)) = waiting.places.get_mut(at)
        {
            match waker {
                Some(waker) => waker.clone_from(ctx.waker()),
                None => *waker = Some(ctx.waker().clone()),
            }
        }
        drop(waiting);
        // After the waker is in its place: what is freed from here on wakes us.
        match is_first.then(take) {
            Some(ControlFlow::Break(taken)) => Poll::Ready(taken),
            Some(ControlFlow::Continue(())) | None => Poll::Pending,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting.lock();
        if let Ok(at) = waiting.places.binary_search_by_key(&self.number, |(number, _)| *number) {
            waiting.places.remove(at);
            self.line.length.store(waiting.places.len(), Ordering::Relaxed);
            if at == 0 {
                // There may be more than this one took, or it was called and did not come.
                waiting.call_first();
            }
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({} waiting)", self.length())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Places of which one may be taken by whoever comes first.
    #[derive(Default)]
    struct Places {
        free: AtomicU32,
        line: Line,
    }

    impl Places {
        fn take(&self) -> ControlFlow<()> {
            let less = |free: u32| free.checked_sub(1);
            match self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
                Ok(_) => ControlFlow::Break(()),
                Err(_) => ControlFlow::Continue(()),
            }
        }

        fn free(&self) {
            self.free.fetch_add(1, Ordering::Relaxed);
            self.line.call();
        }

        async fn wait(&self) -> Result<(), Missed> {
            self.line.wait(100, LONG, || self.take()).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_come_is_the_first_to_be_served() {
        let places = Places::default();
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(places.wait())).collect();
        for waiting in &mut waiting {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        assert_eq!(places.line.length(), 5);
        for turn in 0..5 {
            places.free();
            for (at, waiting) in waiting.iter_mut().enumerate().skip(turn).rev() {
                assert_eq!(waiting.as_mut().now_or_never().is_some(), at == turn);
            }
        }
        assert!(places.line.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_bounded_in_length_and_in_time() {
        let line = Line::default();
        let nothing = || ControlFlow::<()>::Continue(());
        let mut first = Box::pin(line.wait(1, Duration::from_secs(1), nothing));
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(line.wait(1, LONG, nothing).await, Err(Missed::Full));
        assert_eq!(first.await, Err(Missed::TimedOut));
        assert!(line.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_after_it_was_called_takes_nobodys_turn_with_it() {
        let places = Places::default();
        let mut first = Box::pin(places.wait());
        assert!(first.as_mut().now_or_never().is_none());
        let other = async {
            // It waits by now: it is called, and leaves.
            tokio::task::yield_now().await;
            places.free();
            drop(first);
        };
        let (second, ()) = tokio::join!(places.wait(), other);
        assert_eq!(second, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn several_places_at_once_are_all_taken() {
        let places = Places::default();
        let other = async {
            tokio::task::yield_now().await;
            places.free.fetch_add(3, Ordering::Relaxed);
            places.line.call();
        };
        let (taken, ()) = tokio::join!(join_all((0..3).map(|_| places.wait())), other);
        assert_eq!(taken, [Ok(()); 3]);
    }

    /// No call is lost: with as many releases as there are takers everybody gets on, whatever thread they are on.
    #[test]
    fn nobody_is_forgotten_among_threads() {
        const THREADS: u32 = 4;
        const EACH: u32 = 2_000;
        let places = Arc::new(Places::default());
        places.free.store(2, Ordering::Relaxed);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("built");
                    let task = || async {
                        for turn in 0..EACH / 8 {
                            if !places.line.is_empty() || places.take().is_continue() {
                                places.wait().await.expect("a turn");
                            }
                            if turn % 3 == 0 {
                                tokio::task::yield_now().await;
                            }
                            places.free();
                        }
                    };
                    runtime.block_on(join_all((0..8).map(|_| task())));
                });
            }
        });
        assert_eq!((places.free.load(Ordering::Relaxed), places.line.length()), (2, 0));
    }
}
