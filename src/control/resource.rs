//! What the process holds of everything that has a bound: the answer to `tollgate limits`.

use serde::{Deserialize, Serialize};

use super::Drain;
use crate::filter::auth;
use crate::filter::limit::{Flood, QueueStats};
use crate::snapshot::Snapshot;
use crate::telemetry::AccessLog;
use crate::upstream::Unavailable;

/// Most that one answer has room for.
const MOST: usize = 400;

/// All of them, or as many as one answer has room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// In the order of their names within each kind
    pub resources: Vec<Resource>,
    /// How many there was no room for
    pub more: usize,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is; of several the name comes behind a dot, as in the configuration
    pub name: String,
    /// What it is counted in
    pub unit: String,
    /// How many there can be
    pub bound: u64,
    /// How many there are
    pub used: u64,
    /// How many were forgotten, dropped or refused since it began to count; absent where that is not counted
    pub lost: Option<u64>,
}

impl Resource {
    fn new(name: impl Into<String>, unit: &str, bound: usize, used: usize, lost: Option<u64>) -> Self {
        Self { name: name.into(), unit: unit.to_owned(), bound: bound as u64, used: used as u64, lost }
    }
}

impl Resources {
    pub(super) fn of(snapshot: &Snapshot, drain: &Drain, access_log: &AccessLog) -> Self {
        let server = &snapshot.config.server;
        let mut resources =
            vec![Resource::new("connections", "connections", server.max_connections, drain.connections(), None)];
        if let Some((used, bound)) = access_log.queue() {
            resources.push(Resource::new("access_log", "bytes", bound, used, Some(access_log.dropped())));
        }
        if let Some(flood) = &snapshot.flood {
            let name = "max_connection_rate_per_address";
            resources.push(Resource::new(name, "bytes", Flood::BYTES, Flood::BYTES, Some(flood.refused())));
        }
        for (name, limit) in &snapshot.limits {
            let (stats, most) = (limit.stats(), limit.max_keys());
            let lost = stats.evicted + stats.full;
            resources.push(Resource {
                used: stats.keys,
                ..Resource::new(format!("limits.{name}"), "keys", most, 0, Some(lost))
            });
            // A limit that finds itself has found nothing before the first request.
            if let Some(stats) = limit.found().filter(|stats| stats.found.is_some()) {
                resources.push(Resource {
                    bound: stats.allowed,
                    used: stats.in_flight,
                    ..Resource::new(format!("limits.{name}.concurrent"), "requests", 0, 0, None)
                });
            }
            if let Some(QueueStats { waiting, bound, results, .. }) = limit.queue() {
                let lost = results.iter().find(|(result, _)| *result == "full").map(|(_, count)| *count);
                resources.push(Resource::new(format!("limits.{name}.queue"), "requests", bound, waiting, lost));
            }
        }
        for (name, upstream) in &snapshot.upstreams {
            if let (Some(queue), Some((waiting, _))) = (upstream.spec().queue, upstream.queue()) {
                let refused = upstream.counts().refused;
                let full = Unavailable::QueueFull.name();
                let lost = refused.iter().find(|(why, _)| *why == full).map(|(_, count)| *count);
                let bound = queue.length.get() as usize;
                resources.push(Resource::new(format!("upstreams.{name}.queue"), "requests", bound, waiting, lost));
            }
        }
        for (name, authenticator) in &snapshot.authenticators {
            if let Some(used) = authenticator.counts().remembered {
                resources.push(Resource::new(format!("auth.{name}"), "tokens", auth::MAX_REMEMBERED, used, None));
            }
        }
        let more = resources.len().saturating_sub(MOST);
        resources.truncate(MOST);
        Self { resources, more }
    }
}
