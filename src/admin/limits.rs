//! How much is taken of what, as plain data: the JSON of `/api/limits`.
//!
//! The busiest keys are looked for when somebody asks, so that no request pays for it. They are shown as hashes unless a
//! limit says `show_keys`: what callers are counted by is who they are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::describe;
use crate::config::{self, Cost, Mode, OnFull, Queue, StoreMode};
use crate::filter::limit::{AdaptiveStats, Busy, Flood, Limit, QueueStats};
use crate::snapshot::Snapshot;

/// Keys shown of each limit.
const BUSIEST: usize = 10;

#[derive(Debug, Serialize)]
pub(super) struct Limits<'a> {
    pub(super) limits: Vec<LimitDetail<'a>>,
    /// Absent where connections may come as fast as they like
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection_rate: Option<ConnectionRate>,
}

#[derive(Debug, Serialize)]
pub(super) struct LimitDetail<'a> {
    name: &'a str,
    allowance: String,
    key: Vec<String>,
    cost: String,
    mode: &'static str,
    store: &'static str,
    max_keys: usize,
    on_full: &'static str,
    allowed: u64,
    near: u64,
    refused: u64,
    shadowed: u64,
    keys: u64,
    evicted: u64,
    full: u64,
    busiest: Vec<BusyKey>,
    /// Absent where nobody waits
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Line>,
    /// Absent where there is nothing to be found
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive: Option<Found>,
}

/// Those who wait for a place.
#[derive(Debug, Serialize)]
struct Line {
    length: u32,
    timeout_seconds: f64,
    waiting: usize,
    bound: usize,
    results: BTreeMap<&'static str, u64>,
    queued_seconds: f64,
}

/// What a limit has found; of its keys the one with the least. Nothing where no request has come yet.
#[derive(Debug, Serialize)]
struct Found {
    requests_in_flight: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct BusyKey {
    key: String,
    used: u64,
    most: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct ConnectionRate {
    allowance: String,
    refused: u64,
    bytes: usize,
}

impl<'a> Limits<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let specs = &snapshot.config.limits;
        let limits = snapshot.limits.iter();
        Self {
            limits: limits.filter_map(|(name, limit)| Some(LimitDetail::new(name, limit, specs.get(name)?))).collect(),
            connection_rate: snapshot.flood.as_ref().map(|flood| ConnectionRate {
                allowance: describe::rate(flood.rate()),
                refused: flood.refused(),
                bytes: Flood::BYTES,
            }),
        }
    }
}

impl<'a> LimitDetail<'a> {
    fn new(name: &'a str, limit: &Limit, spec: &config::Limit) -> Self {
        let stats = limit.stats();
        Self {
            name,
            allowance: describe::allowance(&spec.kind),
            key: spec.key.iter().map(describe::selector).collect(),
            cost: cost(&spec.cost),
            mode: match spec.mode {
                Mode::Enforce => "enforce",
                Mode::Shadow => "shadow",
            },
            store: match spec.store.as_ref().map(|store| store.mode) {
                None => "local",
                Some(StoreMode::Strict) => "redis, strict",
                Some(StoreMode::Batched) => "redis, batched",
            },
            max_keys: spec.max_keys.get(),
            on_full: match spec.on_full {
                OnFull::Allow => "allow",
                OnFull::Deny => "deny",
            },
            allowed: stats.allowed,
            near: stats.near,
            refused: stats.refused,
            shadowed: stats.shadowed,
            keys: stats.keys,
            evicted: stats.evicted,
            full: stats.full,
            busiest: limit.busiest(BUSIEST).into_iter().map(BusyKey::from).collect(),
            queue: spec.queue.zip(limit.queue()).map(Line::from),
            adaptive: limit.found().map(Found::from),
        }
    }
}

impl From<(Queue, QueueStats)> for Line {
    fn from((queue, stats): (Queue, QueueStats)) -> Self {
        Self {
            length: queue.length.get(),
            timeout_seconds: queue.timeout.as_secs_f64(),
            waiting: stats.waiting,
            bound: stats.bound,
            results: stats.results.into(),
            queued_seconds: stats.waited.as_secs_f64(),
        }
    }
}

impl From<AdaptiveStats> for Found {
    fn from(AdaptiveStats { found, in_flight, .. }: AdaptiveStats) -> Self {
        // Zero is what was not measured yet.
        let seconds = |latency: Duration| Some(latency.as_secs_f64()).filter(|_| !latency.is_zero());
        Self {
            requests_in_flight: in_flight,
            concurrency: found.map(|found| found.limit),
            baseline_seconds: found.and_then(|found| seconds(found.baseline)),
            sampled_seconds: found.and_then(|found| seconds(found.sampled)),
        }
    }
}

impl From<Busy> for BusyKey {
    fn from(Busy { key, used, most }: Busy) -> Self {
        Self { key, used, most }
    }
}

fn cost(cost: &Cost) -> String {
    match cost {
        Cost::One => "1".to_owned(),
        Cost::Method(costs) => {
            let costs: Vec<_> = costs.iter().map(|(method, cost)| format!("{method} {cost}")).collect();
            costs.join(", ")
        }
        Cost::Header(name) => format!("header.{name}"),
    }
}
