//! What watches over the tries at an upstream, and what a finished try tells it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Permit};
use super::endpoint::Endpoint;
use super::lease::Outcome;
use super::outlier::Sign;
use crate::config::{self, Name};

/// One for all endpoints of an upstream.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Whether health checks decide; without them nothing an earlier version learnt may keep an endpoint out
    pub(super) checked: bool,
    /// The same for ejections
    pub(super) outlier: Option<Arc<config::Outlier>>,
    pub(super) breaker: Option<Arc<Breaker>>,
}

impl Guard {
    pub(super) fn build(name: &Name, spec: &config::Upstream, now: Instant) -> Self {
        Self {
            checked: spec.health.is_some(),
            outlier: spec.outlier.clone().map(Arc::new),
            breaker: spec.breaker.as_ref().map(|breaker| Breaker::new(name, breaker, now)),
        }
    }

    /// Whether the time to a response's head is of interest.
    pub(super) fn times(&self) -> bool {
        self.outlier.as_ref().is_some_and(|outlier| outlier.slower_than.is_some())
    }

    /// The first outcome of a try, which is what counts: a response's head, or why there was none.
    /// How long it `took` is not known where that is of no interest or was the client's doing.
    pub(super) fn first(&self, endpoint: &Endpoint, permit: Permit, outcome: Outcome, took: Option<Duration>) {
        if self.outlier.is_none() && self.breaker.is_none() {
            return;
        }
        let Some(sign) = sign(outcome) else { return };
        let now = Instant::now();
        if let Some(breaker) = &self.breaker {
            // An endpoint that answers with an error of its own serves: one request that always fails, whoever sends it
            // and however often, must not close the upstream to everybody.
            breaker.settle(permit, sign != Sign::GatewayError, now);
        }
        if let Some(outlier) = &self.outlier
            && let Some(why) = endpoint.state().record.observe(outlier, sign, took)
        {
            endpoint.eject(outlier, why, now);
        }
    }

    /// The try is over, and its answer was good to the end.
    pub(super) fn ended_well(&self, endpoint: &Endpoint) {
        if let Some(outlier) = &self.outlier {
            endpoint.state().record.ended_well(outlier);
        }
    }

    /// A later one: all that it can add is that the response broke off.
    pub(super) fn later(&self, endpoint: &Endpoint, permit: Permit, outcome: Outcome, began: Option<Instant>) {
        if outcome != Outcome::Incomplete || (self.outlier.is_none() && self.breaker.is_none()) {
            return;
        }
        let now = Instant::now();
        if let (Some(breaker), Some(began)) = (&self.breaker, began) {
            breaker.broke_off(permit, began, now);
        }
        if let Some(outlier) = &self.outlier
            && let Some(why) = endpoint.state().record.broke(outlier)
        {
            endpoint.eject(outlier, why, now);
        }
    }
}

/// What an outcome says of the endpoint; nothing if it was not the endpoint's.
fn sign(outcome: Outcome) -> Option<Sign> {
    match outcome {
        Outcome::Answered(status) => Some(match status.as_u16() {
            502..=504 => Sign::GatewayError,
            // What no endpoint would do for this request says nothing of this one, and clients can ask for it.
            501 | 505 => Sign::Good,
            500.. => Sign::ServerError,
            _ => Sign::Good,
        }),
        Outcome::ConnectFailed
        | Outcome::ConnectTimeout
        | Outcome::TlsFailed
        | Outcome::Reset
        | Outcome::Timeout
        | Outcome::ProtocolError
        | Outcome::Incomplete => Some(Sign::GatewayError),
        Outcome::Abandoned => None,
    }
}
