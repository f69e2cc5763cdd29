//! What is counted about an upstream. Telemetry reads it; nothing here knows how it is exported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lease::{Outcome, Unavailable};
use super::retry::Failure;

/// Running counts, shared by the successive versions of one upstream.
#[derive(Debug, Default)]
pub(super) struct Counters {
    results: [AtomicU64; Outcome::RESULTS.len()],
    refused: [AtomicU64; Unavailable::ALL.len()],
    retries: [AtomicU64; Failure::ALL.len()],
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

    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            results: Outcome::RESULTS.into_iter().zip(self.results.iter().map(read)).collect(),
            refused: Unavailable::ALL.into_iter().map(Unavailable::name).zip(self.refused.iter().map(read)).collect(),
            retries: Failure::ALL.into_iter().map(Failure::name).zip(self.retries.iter().map(read)).collect(),
        }
    }
}
