//! Whether a failed try is worth another one.

use http::Method;

use crate::config::{self, RetryOn};

/// How a try failed, as far as another try is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The connection broke after the request was begun and before the first byte of the response
    Reset,
    /// The endpoint said by h2 (RFC 9113 sections 6.8 and 8.7) that it did not begin with the request
    Refused,
    /// No connection: not one byte of the request was sent. The worst, since the endpoint is not asked again
    Connect,
}

impl Failure {
    /// Every failure, in the order of the counters.
    pub const ALL: [Self; 3] = [Self::Reset, Self::Refused, Self::Connect];

    /// Its name in metrics: the word the configuration uses, if it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Refused => "refused_stream",
            Self::Connect => "connect_failure",
        }
    }
}

/// `[upstreams.NAME.retry]`, ready to decide.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    max_retries: u32,
    on_connect: bool,
    on_reset: bool,
    methods: Vec<Method>,
}

impl RetryPolicy {
    pub(super) fn build(spec: &config::Retry) -> Self {
        Self {
            max_retries: spec.max_retries,
            on_connect: spec.on.contains(&RetryOn::ConnectFailure),
            on_reset: spec.on.contains(&RetryOn::Reset),
            methods: spec.methods.clone(),
        }
    }

    /// Whether to try again after `failure`.
    ///
    /// A connection that failed carried nothing, and a request that was refused had no effect, so any method may go
    /// elsewhere. After a reset the endpoint may have
    /// acted on the request: only a method that can be repeated without harm (RFC 9110 section 9.2.2) is sent again.
    /// Whether the body can still be replayed is for the caller to know.
    pub fn decides(&self, failure: Failure, method: &Method, retries_so_far: u32) -> bool {
        retries_so_far < self.max_retries
            && match failure {
                Failure::Connect => self.on_connect,
                Failure::Refused => self.on_connect || self.on_reset,
                Failure::Reset => self.on_reset && self.methods.contains(method),
            }
    }

    /// The most retries one request gets.
    pub fn max_retries(&self) -> u32 {
        self.max_retries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_retries: u32, on: &[RetryOn]) -> RetryPolicy {
        let methods = vec![Method::GET, Method::PUT];
        RetryPolicy::build(&config::Retry { max_retries, on: on.to_vec(), methods })
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
