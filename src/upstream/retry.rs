//! Whether a failed try is worth another one.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::config::{self, RetryOn};

/// How a try failed, as far as another try is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The connection broke after the request was begun and before the first byte of the response
    Reset,
    /// The endpoint said by h2 (RFC 9113 sections 6.8 and 8.7) that it did not begin with the request
    Refused,
    /// No response in time
    Timeout,
    /// A response that says that something is wrong, with a status that is listed
    Status,
    /// Something came that is not HTTP
    Protocol,
    /// No connection: not one byte of the request was sent. The worst: nothing is to be had there
    Connect,
}

impl Failure {
    /// Every failure, in the order of the counters.
    pub const ALL: [Self; 6] = [Self::Reset, Self::Refused, Self::Timeout, Self::Status, Self::Protocol, Self::Connect];

    /// Its name in metrics: the word the configuration uses, if it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Refused => "refused_stream",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Protocol => "protocol_error",
            Self::Connect => "connect_failure",
        }
    }

    /// Whether the request may go to the same endpoint once more if there is no other: where a pooled connection broke,
    /// a new one may hold.
    pub(super) fn allows_again(self) -> bool {
        match self {
            Self::Reset | Self::Refused => true,
            Self::Timeout | Self::Status | Self::Protocol | Self::Connect => false,
        }
    }
}

/// `[upstreams.NAME.retry]`, ready to decide.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    max_retries: u32,
    on_connect: bool,
    on_reset: bool,
    on_timeout: bool,
    /// From the first to the last
    statuses: Vec<(u16, u16)>,
    methods: Vec<Method>,
    budget: Option<u8>,
    backoff: Duration,
}

/// Doublings of the backoff at most.
const MAX_DOUBLINGS: u32 = 3;

impl RetryPolicy {
    pub(super) fn build(spec: &config::Retry) -> Self {
        Self {
            max_retries: spec.max_retries,
            on_connect: spec.on.contains(&RetryOn::ConnectFailure),
            on_reset: spec.on.contains(&RetryOn::Reset),
            on_timeout: spec.on.contains(&RetryOn::Timeout),
            statuses: spec.on.iter().filter_map(RetryOn::statuses).collect(),
            methods: spec.methods.clone(),
            budget: spec.budget.filter(|_| spec.max_retries > 0),
            backoff: spec.backoff,
        }
    }

    /// Whether to try again after `failure`.
    ///
    /// A connection that failed carried nothing, and a request that was refused had no effect, so any method may go
    /// elsewhere. After all else the endpoint may have acted on the request: only a method that can be repeated without
    /// harm (RFC 9110 section 9.2.2) is sent again. Whether the body can still be replayed is for the caller to know.
    pub fn decides(&self, failure: Failure, method: &Method, retries_so_far: u32) -> bool {
        retries_so_far < self.max_retries
            && match failure {
                Failure::Connect => self.on_connect,
                Failure::Refused => self.on_connect || self.on_reset,
                Failure::Reset | Failure::Protocol => self.on_reset && self.methods.contains(method),
                Failure::Timeout => self.on_timeout && self.methods.contains(method),
                Failure::Status => !self.statuses.is_empty() && self.methods.contains(method),
            }
    }

    /// Whether a response with this status is a failure.
    pub fn lists(&self, status: StatusCode) -> bool {
        self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status.as_u16()))
    }

    /// How long to wait before the retry after `failure`.
    ///
    /// A connection that broke says nothing of how busy an endpoint is, and a timeout was a wait: the first retry after
    /// them goes at once. Half of what the others wait is chance, so that they do not all come back together.
    pub fn wait(&self, failure: Failure, retries_so_far: u32) -> Duration {
        self.wait_by(failure, retries_so_far, super::group::seed())
    }

    fn wait_by(&self, failure: Failure, retries_so_far: u32, random: u64) -> Duration {
        let doublings = match failure {
            Failure::Status => retries_so_far,
            Failure::Connect | Failure::Refused | Failure::Reset | Failure::Protocol | Failure::Timeout => {
                match retries_so_far {
                    0 => return Duration::ZERO,
                    retries => retries - 1,
                }
            }
        };
        let longest = self.backoff * (1 << doublings.min(MAX_DOUBLINGS));
        longest / 2 + longest / 2 * (random % 1001) as u32 / 1000
    }

    /// Percent of the requests that may be retries.
    pub(super) fn budget(&self) -> Option<u8> {
        self.budget
    }

    /// The most retries one request gets.
    pub fn max_retries(&self) -> u32 {
        self.max_retries
    }
}

impl RetryOn {
    fn statuses(&self) -> Option<(u16, u16)> {
        match self {
            Self::Status(first, last) => Some((*first, *last)),
            Self::ConnectFailure | Self::Reset | Self::Timeout => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_retries: u32, on: &[RetryOn]) -> RetryPolicy {
        let methods = vec![Method::GET, Method::PUT];
        let backoff = Duration::from_millis(20);
        RetryPolicy::build(&config::Retry { max_retries, on: on.to_vec(), methods, budget: Some(20), backoff })
    }

    #[test]
    fn a_listed_status_is_a_failure_for_methods_that_can_be_repeated() {
        let policy = policy(1, &[RetryOn::Status(503, 503), RetryOn::Status(520, 529)]);
        let listed: Vec<u16> =
            (100..600).filter(|status| policy.lists(StatusCode::from_u16(*status).expect("a status"))).collect();
        assert_eq!(listed, [503, 520, 521, 522, 523, 524, 525, 526, 527, 528, 529]);
        assert!(policy.decides(Failure::Status, &Method::GET, 0));
        assert!(!policy.decides(Failure::Status, &Method::POST, 0));
        assert!(!policy.decides(Failure::Timeout, &Method::GET, 0), "not listed");
    }

    #[test]
    fn waits_double_and_half_of_them_is_chance() {
        let policy = policy(5, &[]);
        let wait = |failure, retries, random| policy.wait_by(failure, retries, random).as_millis();
        assert_eq!([0, 1, 2, 3, 9].map(|retries| wait(Failure::Status, retries, 1000)), [20, 40, 80, 160, 160]);
        assert_eq!([0, 500].map(|random| wait(Failure::Status, 0, random)), [10, 15]);
        assert_eq!([0, 1, 2].map(|retries| wait(Failure::Reset, retries, 1000)), [0, 20, 40]);
    }

    #[test]
    fn a_failed_connection_is_retried_for_every_method() {
        let policy = policy(1, &[RetryOn::ConnectFailure, RetryOn::Reset]);
        assert!(policy.decides(Failure::Connect, &Method::POST, 0));
        assert!(policy.decides(Failure::Connect, &Method::GET, 0));
    }

    #[test]
    fn a_refused_request_is_retried_for_every_method() {
        let policy = policy(1, &[RetryOn::Reset]);
        assert!(policy.decides(Failure::Refused, &Method::POST, 0));
        assert!(!policy.decides(Failure::Refused, &Method::POST, 1));
    }

    #[test]
    fn a_reset_post_is_never_sent_again() {
        let policy = policy(5, &[RetryOn::ConnectFailure, RetryOn::Reset]);
        assert!(!policy.decides(Failure::Reset, &Method::POST, 0));
        assert!(policy.decides(Failure::Reset, &Method::PUT, 0));
    }

    #[test]
    fn retries_end_at_their_maximum() {
        let policy = policy(2, &[RetryOn::ConnectFailure]);
        assert!(policy.decides(Failure::Connect, &Method::GET, 1));
        assert!(!policy.decides(Failure::Connect, &Method::GET, 2));
    }

    #[test]
    fn what_is_not_listed_is_not_retried() {
        let connect = policy(1, &[RetryOn::ConnectFailure]);
        assert!(!connect.decides(Failure::Reset, &Method::GET, 0));
        assert!(!policy(1, &[RetryOn::Reset]).decides(Failure::Connect, &Method::GET, 0));
        assert!(!policy(0, &[RetryOn::ConnectFailure]).decides(Failure::Connect, &Method::GET, 0));
    }
}
