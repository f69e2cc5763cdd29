//! What a client is told of limits: draft-ietf-httpapi-ratelimit-headers-10 and RFC 9110 section 10.2.3.
//!
//! `q` is the burst and `w` the whole seconds in which an empty budget is full again, which is what a client can plan
//! by: it may send `q` at once, and after `w` seconds of silence again. `r` is what would pass right now, and `t` the
//! seconds until all of `q` would; on a refusal `t` and Retry-After are when one request would pass.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::{Limit, Permit, Place, Sample, Taken};
use crate::config::{LimitKind, Name};
use crate::http::{Reason, Reply};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Registered with IANA by the draft.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// The part of an answer that does not change: rendered once.
#[derive(Debug)]
pub(super) struct Policy {
    item: String,
    value: HeaderValue,
}

impl Policy {
    pub(super) fn new(name: &Name, kind: LimitKind) -> Self {
        let item = match kind {
            LimitKind::Rate { rate, burst } => {
                let window = rate.per.as_secs_f64() / f64::from(rate.count.get()) * f64::from(burst.get());
                format!("\"{name}\";q={burst};w={}", window.ceil().max(1.0))
            }
            LimitKind::Concurrent(max) | LimitKind::Adaptive { max, .. } => {
                format!("\"{name}\";q={max};qu=\"concurrent-requests\"")
            }
        };
        let value = HeaderValue::from_str(&item).expect("names and numbers are visible ASCII");
        Self { item, value }
    }
}

/// What a request that may pass has taken, until it ends.
#[derive(Debug, Default)]
pub struct Admission {
    permits: Vec<Permit>,
    places: Vec<Place>,
    standings: Vec<Standing>,
}

/// Where a request stands with one limit.
#[derive(Debug)]
struct Standing {
    limit: Arc<Limit>,
    remaining: u32,
    reset: Option<u64>,
}

impl Admission {
    pub(super) fn add(&mut self, limit: &Arc<Limit>, taken: Taken) {
        let (remaining, reset) = match taken {
            Taken::Rate { remaining, reset, .. } | Taken::Fleet { remaining, reset, .. } => (remaining, Some(reset)),
            Taken::Permit { permit, remaining } => {
                self.permits.push(permit);
                (remaining, None)
            }
            Taken::Place { place, remaining } => {
                self.places.push(place);
                // What is found is another number the next moment: nothing that a client could plan by.
                if matches!(limit.spec.kind, LimitKind::Adaptive { .. }) {
                    return;
                }
                (remaining, None)
            }
            Taken::Uncounted => return,
        };
        let standing = Standing { limit: Arc::clone(limit), remaining, reset };
        // The most restrictive first, for clients that read one item only.
        let at = self.standings.partition_point(|other| other.remaining <= remaining);
        self.standings.insert(at, standing);
    }

    /// Tells the limits that find themselves how the request went, and gives their places back: they count requests
    /// that wait for the upstream, not clients that take their time, nor streams.
    pub fn observe(&mut self, sample: Sample, now: Instant) {
        self.places.retain(|place| !place.observe(sample, now));
    }

    /// Hands over the fields of the response; none where there are no limits.
    pub fn headers(&self, add: &mut impl FnMut(HeaderName, HeaderValue)) {
        let [first, rest @ ..] = &self.standings[..] else {
            return;
        };
        if rest.is_empty() {
            add(RATE_LIMIT_POLICY, first.limit.policy.value.clone());
        } else {
            let items: Vec<_> = self.standings.iter().map(|standing| &*standing.limit.policy.item).collect();
            add(RATE_LIMIT_POLICY, HeaderValue::from_str(&items.join(", ")).expect("a list of such values"));
        }
        let mut text = String::with_capacity(32 * self.standings.len());
        for (index, standing) in self.standings.iter().enumerate() {
            if index > 0 {
                text.push_str(", ");
            }
            item(&mut text, &standing.limit.name, standing.remaining, standing.reset);
        }
        add(RATE_LIMIT, HeaderValue::from_str(&text).expect("names and numbers are visible ASCII"));
    }
}

fn item(text: &mut String, name: &Name, remaining: u32, reset: Option<u64>) {
    // Writing to a string does not fail.
    let _ = write!(text, "\"{name}\";r={remaining}");
    if let Some(reset) = reset {
        let _ = write!(text, ";t={reset}");
    }
}

/// A limit said no.
#[derive(Debug)]
pub struct Refusal {
    limit: Arc<Limit>,
    seconds: u64,
}

impl Refusal {
    pub(super) fn new(limit: Arc<Limit>, seconds: u64) -> Self {
        Self { limit, seconds: seconds.max(1) }
    }

    /// Which limit it was.
    pub fn limit(&self) -> &Name {
        &self.limit.name
    }

    /// 429, or 503 where it is nobody's fault that too much is going on; with when to come back.
    pub fn reply(&self) -> Reply {
        let (reason, detail) = match self.limit.spec.kind {
            LimitKind::Rate { .. } => (Reason::RateLimited, "Too many requests: try again later."),
            LimitKind::Concurrent(_) if !self.limit.spec.is_shared() => {
                (Reason::ConcurrencyLimited, "Too many requests at once: try again later.")
            }
            LimitKind::Concurrent(_) | LimitKind::Adaptive { .. } => return self.overloaded(),
        };
        let mut standing = String::new();
        item(&mut standing, &self.limit.name, 0, Some(self.seconds));
        Reply::problem(reason, detail)
            .member("type", json!(QUOTA_EXCEEDED))
            .member("violated-policies", json!([&*self.limit.name]))
            .header(RETRY_AFTER, HeaderValue::from(self.seconds))
            .header(RATE_LIMIT_POLICY, self.limit.policy.value.clone())
            .header(RATE_LIMIT, HeaderValue::from_str(&standing).expect("names and numbers are visible ASCII"))
    }

    fn overloaded(&self) -> Reply {
        Reply::problem(Reason::Overloaded, "The service behind this route has too much to do: try again later.")
            .member("type", json!(REDUCED_CAPACITY))
            .member("violated-policies", json!([&*self.limit.name]))
            .header(RETRY_AFTER, HeaderValue::from(self.seconds))
    }
}
