//! A service that is asked about requests: what `introspection` and `forward` have in common.
//!
//! It may be down, slow, or lie: then nobody is known. Only so many ask at once, nobody waits longer than `timeout`, and
//! nobody at all for a service that has just failed everybody.

use std::time::{Duration, Instant, SystemTime};

use http::Uri;
use tokio::sync::Semaphore;

use super::circuit::Circuit;
use super::counters::Counters;
use super::seldom::Seldom;
use crate::config::{FileContent, Name, Problem};
use crate::http::fetch::{FetchError, Fetched, Limits};
use crate::http::{Pool, Question};

/// Questions at the same time; more are refused at once.
const MAX_ASKING: usize = 512;
/// Of an answer.
const MAX_BYTES: usize = 64 * 1024;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Answered,
    Unreachable,
    Timeout,
    TooLarge,
    /// It does not know us
    Unauthorized,
    /// A status that is no answer
    Status,
    /// What came cannot be understood, or not be believed
    Invalid,
    /// Not asked: too many are
    Busy,
    /// Not asked: it has just failed
    Resting,
}

impl Asked {
    pub(super) const ALL: [Self; 9] = [
        Self::Answered,
        Self::Unreachable,
        Self::Timeout,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Status,
        Self::Invalid,
        Self::Busy,
        Self::Resting,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Status => "status",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Resting => "resting",
        }
    }
}

/// Why an answer tells nothing: how it is counted, and what the operator is told.
pub(super) type Trouble = (Asked, String);

/// The service of one `auth`.
#[derive(Debug)]
pub(super) struct Service {
    name: Name,
    pool: Pool,
    places: Semaphore,
    circuit: Circuit,
    warned: Seldom,
    /// Apart, since it is us who are wrong
    accused: Seldom,
}

impl Service {
    /// # Errors
    /// Authorities that cannot be used.
    pub(super) fn build(name: &Name, url: &Uri, ca: Option<&FileContent>, timeout: Duration) -> Result<Self, Problem> {
        let limits = Limits { timeout, max_bytes: MAX_BYTES };
        Ok(Self {
            name: name.clone(),
            pool: Pool::build(url, ca, limits).map_err(|message| Problem::new("ca_file", message))?,
            places: Semaphore::new(MAX_ASKING),
            circuit: Circuit::default(),
            warned: Seldom::default(),
            accused: Seldom::default(),
        })
    }

    /// What `read` makes of the answer; `None` where there is none that could be believed.
    pub(super) async fn ask<T>(
        &self,
        question: Question,
        counters: &Counters,
        read: impl FnOnce(Fetched) -> Result<T, Trouble>,
    ) -> Option<T> {
        let answer = self.answer(question).await.and_then(read);
        let (outcome, answer) = match answer {
            Ok(answer) => (Asked::Answered, Some(answer)),
            Err((outcome, why)) => {
                self.complain(outcome, &why);
                (outcome, None)
            }
        };
        counters.asked(outcome);
        answer
    }

    async fn answer(&self, question: Question) -> Result<Fetched, Trouble> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err((Asked::Busy, format!("{MAX_ASKING} requests wait for it already")));
        };
        let Some(attempt) = self.circuit.begin(Instant::now()) else {
            return Err((Asked::Resting, "it has just failed several requests in a row".into()));
        };
        match self.pool.ask(question).await {
            Ok(fetched) => {
                attempt.answered();
                Ok(fetched)
            }
            Err(error) => {
                let outcome = match &error {
                    FetchError::TimedOut => Asked::Timeout,
                    FetchError::TooLarge => Asked::TooLarge,
                    FetchError::Forbidden | FetchError::Unreachable(_) | FetchError::Broken(_) => Asked::Unreachable,
                };
                // Only what would be waited for again is a reason to leave it alone: what a single request may have
                // brought about, by what it asks, must not cost others their answer.
                match outcome {
                    Asked::Timeout | Asked::Unreachable => attempt.failed(Instant::now()),
                    _ => attempt.answered(),
                }
                Err((outcome, error.to_string()))
            }
        }
    }

    fn complain(&self, outcome: Asked, why: &str) {
        let (name, wall) = (&self.name, SystemTime::now());
        if outcome == Asked::Unauthorized {
            if self.accused.is_due(wall) {
                log::error!("auth {name}: nobody is known, since the service does not know this gateway: {why}");
            }
        } else if self.warned.is_due(wall) {
            log::warn!("auth {name}: nobody is known, since the service does not tell: {why}");
        }
    }
}
