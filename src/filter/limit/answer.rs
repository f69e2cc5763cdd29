//! What a client is told of limits: draft-ietf-httpapi-ratelimit-headers-10 and RFC 9110 section 10.2.3.
//!
//! `q` is the burst and `w` the whole seconds in which an empty budget is full again, which is what a client can plan
//! by: it may send `q` at once, and after `w` seconds of silence again. `r` is what would pass right now, and `t` the
//! seconds until all of `q` would; on a refusal `t` and Retry-After are when one request would pass.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::key::Partition;
use super::{Clock, Facts, Limit, Sample, Taken};
use crate::config::{LimitKind, Name, Period};
use crate::http::{Reason, Reply};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Of no standard: how much there is, how much is left, and the seconds until all of it is there again.
const LEGACY: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];
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
            // The longest that it can be: who waits for `t` comes to its end.
            LimitKind::Quota { count, period } => format!("\"{name}\";q={count};w={}", longest(period)),
            LimitKind::Concurrent(max) | LimitKind::Adaptive { max, .. } => {
                format!("\"{name}\";q={max};qu=\"concurrent-requests\"")
            }
        };
        let value = HeaderValue::from_str(&item).expect("names and numbers are visible ASCII");
        Self { item, value }
    }

    fn of(&self, key: Option<Partition>) -> HeaderValue {
        if key.is_none() {
            return self.value.clone();
        }
        let mut item = self.item.clone();
        partition(&mut item, key);
        HeaderValue::from_str(&item).expect("base64 is visible ASCII")
    }
}

/// Seconds of a period, or of the longest of its kind.
fn longest(period: Period) -> u64 {
    const DAY: u64 = 24 * 60 * 60;
    match period {
        Period::Minute => 60,
        Period::Hour => 60 * 60,
        Period::Day => DAY,
        Period::Week => 7 * DAY,
        Period::Month => 31 * DAY,
    }
}

/// What a request that may pass has taken, until it ends.
#[derive(Debug, Default)]
pub struct Admission {
    standings: Vec<Standing>,
}

/// Where a request stands with one limit.
#[derive(Debug)]
struct Standing {
    limit: Arc<Limit>,
    taken: Taken,
    partition: Option<Partition>,
}

impl Admission {
    /// Nothing yet, of so many limits.
    pub(super) fn of(limits: usize) -> Self {
        Self { standings: Vec::with_capacity(limits) }
    }

    pub(super) fn add(&mut self, limit: &Arc<Limit>, taken: Taken) {
        self.standings.push(Standing { limit: Arc::clone(limit), taken, partition: None });
    }

    /// All of it goes back: another limit has refused.
    pub(super) async fn refund(self, clock: Clock) {
        for standing in &self.standings {
            standing.limit.refund(&standing.taken, clock).await;
        }
    }

    /// None has refused: the request may pass.
    pub(super) fn pass(&mut self, facts: &Facts<'_>) {
        for standing in &mut self.standings {
            standing.limit.count_allowed(standing.taken.remaining());
            standing.partition = standing.limit.partition(facts);
        }
        // The most restrictive first, for clients that read one item only; last those of which there is nothing to tell.
        self.standings.sort_by_key(|standing| standing.taken.remaining().map_or(u64::MAX, u64::from));
    }

    /// Tells the limits that find themselves how the request went, and gives their places back: they count requests
    /// that wait for the upstream, not clients that take their time, nor streams.
    pub fn observe(&mut self, sample: Sample, now: Instant) {
        for standing in &mut self.standings {
            if let Taken::Place { place, .. } = &mut standing.taken {
                *place = place.take().filter(|place| !place.observe(sample, now));
            }
        }
    }

    /// Hands over the fields of the response; none where there are no limits.
    pub fn headers(&self, add: &mut impl FnMut(HeaderName, HeaderValue)) {
        let told = || self.standings.iter().filter_map(|standing| Some((standing, standing.taken.remaining()?)));
        let Some((first, _)) = told().next() else { return };
        let count = told().count();
        if count == 1 {
            add(RATE_LIMIT_POLICY, first.limit.policy.of(first.partition));
        } else {
            let mut items = String::new();
            for (Standing { limit, partition: key, .. }, _) in told() {
                if !items.is_empty() {
                    items.push_str(", ");
                }
                items.push_str(&limit.policy.item);
                partition(&mut items, *key);
            }
            add(RATE_LIMIT_POLICY, HeaderValue::from_str(&items).expect("a list of such values"));
        }
        let mut text = String::with_capacity(32 * count);
        for (Standing { limit, taken, partition, .. }, remaining) in told() {
            if !text.is_empty() {
                text.push_str(", ");
            }
            item(&mut text, &limit.name, remaining, taken.reset(), *partition);
        }
        add(RATE_LIMIT, HeaderValue::from_str(&text).expect("names and numbers are visible ASCII"));
        if let Some((Standing { limit, taken, .. }, remaining)) =
            told().find(|(standing, _)| standing.limit.spec.legacy_headers)
        {
            legacy(limit, remaining, taken.reset(), add);
        }
    }
}

/// They can tell of one limit: the most restrictive that is to tell.
fn legacy(limit: &Limit, remaining: u32, reset: Option<u64>, add: &mut impl FnMut(HeaderName, HeaderValue)) {
    let values = [Some(limit.most().get().into()), Some(remaining.into()), reset];
    for (name, value) in LEGACY.into_iter().zip(values) {
        if let Some(value) = value {
            add(name, HeaderValue::from(value));
        }
    }
}

fn item(text: &mut String, name: &Name, remaining: u32, reset: Option<u64>, key: Option<Partition>) {
    // Writing to a string does not fail.
    let _ = write!(text, "\"{name}\";r={remaining}");
    if let Some(reset) = reset {
        let _ = write!(text, ";t={reset}");
    }
    partition(text, key);
}

/// A byte sequence (RFC 9651 section 3.3.5).
fn partition(text: &mut String, key: Option<Partition>) {
    if let Some(key) = key {
        text.push_str(";pk=:");
        STANDARD.encode_string(key, text);
        text.push(':');
    }
}

/// A limit said no.
#[derive(Debug)]
pub struct Refusal {
    limit: Arc<Limit>,
    seconds: u64,
    partition: Option<Partition>,
}

impl Refusal {
    pub(super) fn new(limit: Arc<Limit>, seconds: u64, partition: Option<Partition>) -> Self {
        Self { limit, seconds: seconds.max(1), partition }
    }

    /// Which limit it was.
    pub fn limit(&self) -> &Name {
        &self.limit.name
    }

    /// 429, or 503 where it is nobody's fault that too much is going on; with when to come back.
    pub fn reply(&self) -> Reply {
        let (reason, detail) = match self.limit.spec.kind {
            LimitKind::Quota { .. } => (Reason::QuotaExceeded, "The quota of this period is used up: try again later."),
            LimitKind::Rate { .. } => (Reason::RateLimited, "Too many requests: try again later."),
            LimitKind::Concurrent(_) if !self.limit.spec.is_shared() => {
                (Reason::ConcurrencyLimited, "Too many requests at once: try again later.")
            }
            LimitKind::Concurrent(_) | LimitKind::Adaptive { .. } => return self.overloaded(),
        };
        let mut standing = String::new();
        item(&mut standing, &self.limit.name, 0, Some(self.seconds), self.partition);
        let mut reply = Reply::problem(reason, detail)
            .member("type", json!(QUOTA_EXCEEDED))
            .member("violated-policies", json!([&*self.limit.name]))
            .header(RETRY_AFTER, HeaderValue::from(self.seconds))
            .header(RATE_LIMIT_POLICY, self.limit.policy.of(self.partition))
            .header(RATE_LIMIT, HeaderValue::from_str(&standing).expect("names and numbers are visible ASCII"));
        if self.limit.spec.legacy_headers {
            legacy(&self.limit, 0, Some(self.seconds), &mut |name, value| reply.headers.push((name, value)));
        }
        reply
    }

    fn overloaded(&self) -> Reply {
        Reply::problem(Reason::Overloaded, "The service behind this route has too much to do: try again later.")
            .member("type", json!(REDUCED_CAPACITY))
            .member("violated-policies", json!([&*self.limit.name]))
            .header(RETRY_AFTER, HeaderValue::from(self.seconds))
    }
}
