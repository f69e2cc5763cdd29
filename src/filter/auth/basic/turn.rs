//! One answer for all who ask the same at the same time: a page that a browser loads is dozens of requests with one pair,
//! and before it is known each of them would compute its hash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Claims, Fingerprint, Refused};

type Verdict = Result<Claims, Refused>;

/// The pairs that are judged at the moment.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Fingerprint, watch::Receiver<Option<Verdict>>>>);

/// Whose turn it is to judge a pair.
#[derive(Debug)]
pub(super) enum Turn {
    /// Ours, for all
    Ours(First),
    /// Somebody else's
    Theirs(Answer),
}

/// Who judges for all that come meanwhile. If it is dropped without an answer, the next takes its place.
#[derive(Debug)]
pub(super) struct First {
    turns: Arc<Turns>,
    pair: Fingerprint,
    answer: watch::Sender<Option<Verdict>>,
}

/// What somebody else is about to say.
#[derive(Debug)]
pub(super) struct Answer(watch::Receiver<Option<Verdict>>);

impl Turns {
    pub(super) fn take(self: &Arc<Self>, pair: Fingerprint) -> Turn {
        let mut under_way = self.0.lock();
        if let Some(answer) = under_way.get(&pair) {
            return Turn::Theirs(Answer(answer.clone()));
        }
        let (answer, answered) = watch::channel(None);
        under_way.insert(pair, answered);
        Turn::Ours(First { turns: Arc::clone(self), pair, answer })
    }
}

impl First {
    pub(super) fn answer(self, verdict: &Verdict) {
        self.answer.send_replace(Some(verdict.clone()));
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.turns.0.lock().remove(&self.pair);
    }
}

impl Answer {
    /// Waits for it, but not for long; `None` when whoever was to give it has left.
    pub(super) async fn within(mut self, patience: Duration) -> Option<Verdict> {
        match timeout(patience, self.0.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone(),
            Ok(Err(_)) => None,
            Err(_) => Some(Err(Refused::Unavailable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn ours(turns: &Arc<Turns>, pair: &str) -> First {
        let Turn::Ours(first) = turns.take(Fingerprint::of(pair)) else { panic!("somebody else's") };
        first
    }

    fn theirs(turns: &Arc<Turns>, pair: &str) -> Answer {
        let Turn::Theirs(answer) = turns.take(Fingerprint::of(pair)) else { panic!("ours") };
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answers_for_all_who_ask_the_same() {
        let turns = Arc::default();
        let first = ours(&turns, "a");
        let other = ours(&turns, "b");
        let (early, late) = (theirs(&turns, "a"), theirs(&turns, "a"));
        let verdict = Ok(Claims::default());
        let (early, ()) = tokio::join!(early.within(PATIENCE), async { first.answer(&verdict) });
        assert_eq!((early, late.within(PATIENCE).await), (Some(verdict.clone()), Some(verdict)));
        assert_eq!(theirs(&turns, "b").within(PATIENCE).await, Some(Err(Refused::Unavailable)), "too slow");
        drop((ours(&turns, "a"), other));
        assert!(turns.0.lock().is_empty());
    }

    #[tokio::test]
    async fn when_the_first_leaves_without_an_answer_the_next_is_first() {
        let turns = Arc::default();
        let first = ours(&turns, "a");
        let answer = theirs(&turns, "a");
        drop(first);
        assert_eq!(answer.within(PATIENCE).await, None);
        ours(&turns, "a");
    }
}
