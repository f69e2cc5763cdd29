//! One question for all who have it at the same time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::cache::Fingerprint;
use super::{Claims, Refused};

type Verdict = Result<Claims, Refused>;

/// Questions under way, by the token they are about.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Fingerprint, Arc<OnceCell<Verdict>>>>);

/// A place in a flight.
struct Seat<'a> {
    flights: &'a Flights,
    token: Fingerprint,
    /// There until dropped
    flight: Option<Arc<OnceCell<Verdict>>>,
}

impl Flights {
    /// Asks, or waits for whoever asks already. When they go away without an answer, the next in line asks.
    pub(super) async fn join(&self, token: Fingerprint, ask: impl Future<Output = Verdict>) -> Verdict {
        let flight = Some(Arc::clone(self.0.lock().entry(token).or_default()));
        let seat = Seat { flights: self, token, flight };
        match &seat.flight {
            Some(flight) => flight.get_or_init(|| ask).await.clone(),
            None => ask.await,
        }
    }
}

impl Drop for Seat<'_> {
    /// Whoever comes after an answer asks anew, and the last to leave leaves nothing behind.
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        let Some(flight) = self.flight.take() else { return };
        let is_listed = flights.get(&self.token).is_some_and(|listed| Arc::ptr_eq(listed, &flight));
        // The list's and ours: seats are taken and left under the lock alone.
        if is_listed && (flight.initialized() || Arc::strong_count(&flight) <= 2) {
            flights.remove(&self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    fn token() -> Fingerprint {
        Fingerprint::of("token")
    }

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_answer_and_the_next_asks_anew() {
        let (flights, asked, gate) = (Flights::default(), AtomicUsize::new(0), Notify::new());
        let ask = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            gate.notified().await;
            Err(Refused::Invalid("asked"))
        };
        let (one, two, ()) =
            tokio::join!(flights.join(token(), ask()), flights.join(token(), ask()), async { gate.notify_one() });
        assert_eq!((one, two), (Err(Refused::Invalid("asked")), Err(Refused::Invalid("asked"))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(flights.0.lock().is_empty());
        gate.notify_one();
        flights.join(token(), ask()).await.expect_err("refused");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn when_the_one_who_asks_goes_away_another_does() {
        let flights = Flights::default();
        let answer = || async { Err(Refused::Missing) };
        let mut first = Box::pin(flights.join(token(), std::future::pending()));
        let mut second = Box::pin(flights.join(token(), answer()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(second.await, Err(Refused::Missing));
        assert!(flights.0.lock().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_who_all_went_away() {
        let flights = Flights::default();
        let mut both = [0, 1].map(|_| Box::pin(flights.join(token(), std::future::pending())));
        for one in &mut both {
            assert!(one.now_or_never().is_none());
        }
        drop(both);
        assert!(flights.0.lock().is_empty());
    }
}
