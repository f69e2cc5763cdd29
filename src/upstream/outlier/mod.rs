//! Outliers: endpoints that take requests and do not answer them as the others do.
//!
//! Health checks see what they ask for, the passive sign sees connections that fail; this sees the answers themselves.
//! Failures in a row tell at once, rates when they are compared, once an interval.

mod ejection;
mod rates;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub(super) use self::ejection::Ejection;
pub(super) use self::rates::{Tally, watch};
use crate::config;

/// What a try says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Good,
    /// An answer from 500 on that is not of a gateway
    ServerError,
    /// No answer, or 502, 503 or 504: nobody was there to answer
    GatewayError,
}

/// Why an endpoint is put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Failures,
    GatewayErrors,
    SuccessRate,
    Slow,
}

impl Why {
    pub(super) const ALL: [Self; 4] = [Self::Failures, Self::GatewayErrors, Self::SuccessRate, Self::Slow];

    /// The key that asked for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Failures => "consecutive_failures",
            Self::GatewayErrors => "consecutive_gateway_errors",
            Self::SuccessRate => "success_rate_below",
            Self::Slow => "slower_than",
        }
    }
}

/// What has been seen of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Record {
    failures: AtomicU32,
    gateway_errors: AtomicU32,
    tries: AtomicU32,
    succeeded: AtomicU32,
    /// Microseconds to the response's head, summed over those that had one
    micros: AtomicU64,
}

impl Record {
    /// Takes the sign of a try, and how long its head took if that is asked for. The answer is why the endpoint should
    /// be out, once a row of failures. A good head does not end a row yet: its body may break off as those before did.
    pub(super) fn observe(&self, spec: &config::Outlier, sign: Sign, took: Option<Duration>) -> Option<Why> {
        if spec.compares_rates() {
            self.tries.fetch_add(1, Ordering::Relaxed);
            if sign == Sign::Good {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(took) = took {
                self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
            }
        }
        if sign == Sign::Good { None } else { self.row(spec, sign) }
    }

    /// A try that was good at first has broken off.
    pub(super) fn broke(&self, spec: &config::Outlier) -> Option<Why> {
        if spec.compares_rates() {
            // It may have been counted in an interval that is over.
            let less = |count: u32| count.checked_sub(1);
            let _ = self.succeeded.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        self.row(spec, Sign::GatewayError)
    }

    /// A try was good to its end.
    pub(super) fn ended_well(&self, spec: &config::Outlier) {
        let told = self.row(spec, Sign::Good);
        debug_assert_eq!(told, None, "a good answer tells nothing");
    }

    fn row(&self, spec: &config::Outlier, sign: Sign) -> Option<Why> {
        let failures = step(&self.failures, spec.consecutive_failures, sign != Sign::Good);
        let gateway_errors = step(&self.gateway_errors, spec.consecutive_gateway_errors, sign == Sign::GatewayError);
        if failures { Some(Why::Failures) } else { gateway_errors.then_some(Why::GatewayErrors) }
    }

    /// What was counted since the last time.
    pub(super) fn take(&self) -> Tally {
        Tally {
            tries: self.tries.swap(0, Ordering::Relaxed),
            succeeded: self.succeeded.swap(0, Ordering::Relaxed),
            micros: self.micros.swap(0, Ordering::Relaxed),
        }
    }

    /// It is out, or has come back: rows begin anew.
    pub(super) fn begin_anew(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.gateway_errors.store(0, Ordering::Relaxed);
    }
}

/// Counts a row; true each time that it is full.
fn step(row: &AtomicU32, most: Option<NonZeroU32>, failed: bool) -> bool {
    let Some(most) = most else { return false };
    if failed {
        let length = row.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        return length.is_multiple_of(most.get());
    }
    // Written only if there is something to forget: good answers must not make workers wait for one another.
    if row.load(Ordering::Relaxed) != 0 {
        row.store(0, Ordering::Relaxed);
    }
    false
}

/// Whether one more may be out: `out` of `all` are, and `others` besides this one could take its requests.
pub(super) fn may_eject(out: usize, all: usize, others: usize, max_ejected: u8) -> bool {
    others > 0 && (out + 1) * 100 <= all * usize::from(max_ejected)
}

impl config::Outlier {
    /// Whether anything is compared once an interval.
    pub(super) fn compares_rates(&self) -> bool {
        self.success_rate_below.is_some() || self.slower_than.is_some()
    }
}

#[cfg(test)]
mod tests;
