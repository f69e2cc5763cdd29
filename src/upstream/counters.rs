//! What is counted about an upstream. Telemetry reads it; nothing here knows how it is exported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lease::{Outcome, Unavailable};
use super::outlier::Why;
use super::retry::Failure;
use crate::config::Name;

/// Running counts, shared by the successive versions of one upstream.
#[derive(Debug, Default)]
pub(super) struct Counters {
    results: [AtomicU64; Outcome::RESULTS.len()],
    refused: [AtomicU64; Unavailable::ALL.len()],
    retries: [AtomicU64; Failure::ALL.len()],
    over_budget: AtomicU64,
    ejections: [AtomicU64; Why::ALL.len()],
    sticky: [AtomicU64; Stuck::ALL.len()],
}

/// Whether a client came to the endpoint that it was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// It did
    Kept,
    /// It had not been anywhere, as far as its cookie said
    New,
    /// That endpoint is gone, or not fit
    Moved,
    /// That endpoint is at its cap: this request went elsewhere, the client stays
    Away,
}

impl Stuck {
    /// Every one, in the order of the counters.
    const ALL: [Self; 4] = [Self::Kept, Self::New, Self::Moved, Self::Away];

    fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::New => "new",
            Self::Moved => "moved",
            Self::Away => "away",
        }
    }
}

/// A moment's counts. They only grow, over reloads too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Tries by result, for `tollgate_upstream_requests_total{upstream,result}`
    pub results: Vec<(&'static str, u64)>,
    /// Requests that found no endpoint; results of the same metric
    pub refused: Vec<(&'static str, u64)>,
    /// For `tollgate_retries_total{upstream,reason}`
    pub retries: Vec<(&'static str, u64)>,
    /// For `tollgate_retries_over_budget_total{upstream}`
    pub over_budget: u64,
    /// For `tollgate_ejections_total{upstream,reason}`
    pub ejections: Vec<(&'static str, u64)>,
    /// For `tollgate_sticky_requests_total{upstream,result}`
    pub sticky: Vec<(&'static str, u64)>,
}

/// A moment's view of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// `10.0.0.11:8080`, `unix:/run/orders.sock`
    pub address: Arc<str>,
    /// What health checks say; true where nothing is checked
    pub healthy: bool,
    /// An operator wants nothing new to go there
    pub drained: bool,
    /// Avoided for a moment, since a connection failed
    pub suspect: bool,
    /// Leases held
    pub in_flight: u32,
    /// Share of the traffic, relative to the others
    pub weight: u32,
    /// Why it is unhealthy
    pub illness: Option<String>,
    /// How much longer it is out because of what its answers were
    pub ejected_for: Option<Duration>,
    /// How often it was
    pub ejections: u64,
    /// What it has of that now, in hundredths of a unit
    pub weight_now: u32,
    /// Lower ones are used first
    pub priority: u8,
    /// Where it is, if that is written
    pub zone: Option<Name>,
    /// How long it takes to answer, where that decides
    pub latency: Option<Duration>,
}

impl Counters {
    pub(super) fn finished(&self, result: usize) {
        self.results[result].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: Unavailable) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn retried(&self, failure: Failure) {
        self.retries[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ejected(&self, why: Why) {
        self.ejections[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn over_budget(&self) {
        self.over_budget.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stuck(&self, stuck: Stuck) {
        self.sticky[stuck as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            results: Outcome::RESULTS.into_iter().zip(self.results.iter().map(read)).collect(),
            refused: Unavailable::ALL.into_iter().map(Unavailable::name).zip(self.refused.iter().map(read)).collect(),
            retries: Failure::ALL.into_iter().map(Failure::name).zip(self.retries.iter().map(read)).collect(),
            over_budget: read(&self.over_budget),
            ejections: Why::ALL.into_iter().map(Why::name).zip(self.ejections.iter().map(read)).collect(),
            sticky: Stuck::ALL.into_iter().map(Stuck::name).zip(self.sticky.iter().map(read)).collect(),
        }
    }
}
