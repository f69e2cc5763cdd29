//! What is counted about one `auth`. Telemetry reads it; nothing here knows how it is exported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::jwt::Outcome;
use super::service::Asked;
use crate::config::Mode;
use crate::http::Reason;

/// Reasons a request is refused for.
const REASONS: [Reason; 9] = [
    Reason::NoCredentials,
    Reason::MultipleCredentials,
    Reason::InvalidToken,
    Reason::TokenExpired,
    Reason::InvalidCredentials,
    Reason::CredentialsExpired,
    Reason::InsufficientScope,
    Reason::AuthUnavailable,
    Reason::AuthDenied,
];
/// What came of a request, in the order it is counted: accepted, let in without a name, each refusal, and each that
/// shadow mode let through.
const RESULTS: [&str; 2 + 2 * REASONS.len()] = [
    "accepted",
    "anonymous",
    "no_credentials",
    "multiple_credentials",
    "invalid_token",
    "token_expired",
    "invalid_credentials",
    "credentials_expired",
    "insufficient_scope",
    "auth_unavailable",
    "auth_denied",
    "shadow_no_credentials",
    "shadow_multiple_credentials",
    "shadow_invalid_token",
    "shadow_token_expired",
    "shadow_invalid_credentials",
    "shadow_credentials_expired",
    "shadow_insufficient_scope",
    "shadow_auth_unavailable",
    "shadow_auth_denied",
];

/// Running counts, shared by the successive versions of one `auth`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    decisions: [AtomicU64; RESULTS.len()],
    refreshes: [AtomicU64; Outcome::ALL.len()],
    asked: [AtomicU64; Asked::ALL.len()],
}

/// A moment's counts. They only grow, over reloads too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests by result, for `tollgate_auth_decisions_total{auth,result}`
    pub decisions: Vec<(&'static str, u64)>,
    /// Attempts to fetch keys by result, for `tollgate_jwks_refresh_total{auth,result}`; empty where none are fetched
    pub refreshes: Vec<(&'static str, u64)>,
    /// Questions to the service that decides, for `tollgate_auth_requests_total{auth,result}`; empty where none does
    pub asked: Vec<(&'static str, u64)>,
    /// Since keys were last fetched, for `tollgate_jwks_age_seconds{auth}`; `None` before the first, and where none are
    pub jwks_age: Option<Duration>,
    /// Keys in use; `None` where there are none to have
    pub keys: Option<usize>,
    /// Credentials remembered; `None` where none are
    pub remembered: Option<usize>,
}

impl Counters {
    pub(super) fn accepted(&self) {
        self.decisions[0].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn anonymous(&self) {
        self.decisions[1].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, reason: Reason, mode: Mode) {
        let Some(index) = REASONS.iter().position(|known| *known == reason) else { return };
        let first = match mode {
            Mode::Enforce => 2,
            Mode::Shadow => 2 + REASONS.len(),
        };
        self.decisions[first + index].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refreshed(&self, outcome: Outcome) {
        self.refreshes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn asked(&self, outcome: Asked) {
        self.asked[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn decisions(&self) -> Vec<(&'static str, u64)> {
        RESULTS.into_iter().zip(self.decisions.iter().map(read)).collect()
    }

    pub(super) fn refreshes(&self) -> Vec<(&'static str, u64)> {
        Outcome::ALL.into_iter().map(Outcome::name).zip(self.refreshes.iter().map(read)).collect()
    }

    pub(super) fn questions(&self) -> Vec<(&'static str, u64)> {
        Asked::ALL.into_iter().map(Asked::name).zip(self.asked.iter().map(read)).collect()
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_under_its_name_enforced_or_not() {
        for reason in REASONS {
            for (mode, prefix) in [(Mode::Enforce, ""), (Mode::Shadow, "shadow_")] {
                let counters = Counters::default();
                counters.refused(reason, mode);
                let counted: Vec<_> = counters.decisions().into_iter().filter(|(_, count)| *count > 0).collect();
                let [(name, 1)] = counted[..] else { panic!("{counted:?}") };
                assert_eq!(name, format!("{prefix}{}", reason.name()));
            }
        }
    }
}
