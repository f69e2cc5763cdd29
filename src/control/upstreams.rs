//! What `tollgate upstream` asks of the running process.

use std::fmt::Write;

use super::EndpointName;
use crate::snapshot::Snapshot;
use crate::upstream::EndpointStatus;

/// Every endpoint, a line each.
pub(super) fn list(snapshot: &Snapshot) -> String {
    let lines = snapshot.upstreams.iter().flat_map(|(name, upstream)| {
        let endpoints = upstream.endpoints();
        let none = endpoints.is_empty().then(|| [name.to_string(), "no address is known".to_owned(), String::new()]);
        none.into_iter().chain(endpoints.into_iter().map(|one| {
            let in_flight = format!("{} in flight", one.in_flight);
            [name.to_string(), format!("{} {}", one.address, state(&one)), in_flight]
        }))
    });
    let lines: Vec<_> = lines.collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [name, endpoint, in_flight] in &lines {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{}", format!("{name:first$}  {endpoint:second$}  {in_flight}").trim_end());
    }
    if text.is_empty() {
        return "there is no upstream".to_owned();
    }
    text.truncate(text.trim_end().len());
    text
}

fn state(endpoint: &EndpointStatus) -> &'static str {
    match endpoint {
        EndpointStatus { healthy: false, drained: true, .. } => "drained, unhealthy",
        EndpointStatus { drained: true, .. } => "drained",
        EndpointStatus { healthy: false, .. } => "unhealthy",
        EndpointStatus { suspect: true, .. } => "avoided for a moment",
        EndpointStatus { .. } => "serves",
    }
}

/// Every endpoint that is drained.
pub(super) fn drained(snapshot: &Snapshot) -> Vec<EndpointName> {
    let all = snapshot.upstreams.iter().flat_map(|(name, upstream)| {
        let drained = upstream.endpoints().into_iter().filter(|one| one.drained);
        drained.map(|one| EndpointName { upstream: name.to_string(), endpoint: one.address.to_string() })
    });
    all.collect()
}

/// Drains an endpoint, or ends that.
///
/// # Errors
/// There is no such upstream or endpoint; what there is.
pub(super) fn drain(snapshot: &Snapshot, which: &EndpointName, drained: bool) -> Result<String, String> {
    let EndpointName { upstream, endpoint } = which;
    let Some(found) = snapshot.upstreams.get(upstream.as_str()) else {
        let names: Vec<_> = snapshot.upstreams.keys().map(|name| &**name).collect();
        return Err(format!("there is no upstream {upstream:?}; there is: {}", names.join(", ")));
    };
    if !found.drain(endpoint, drained) {
        let all = found.endpoints();
        let all: Vec<_> = all.iter().map(|one| &*one.address).collect();
        return Err(format!("upstream {upstream} has no endpoint {endpoint:?}; it has: {}", all.join(", ")));
    }
    let all = found.endpoints();
    let in_flight = all.iter().find(|one| *one.address == **endpoint).map_or(0, |one| one.in_flight);
    let others = all.iter().any(|one| one.healthy && !one.drained);
    Ok(match (drained, others) {
        (true, true) => format!("{endpoint} of {upstream} gets no new requests; {in_flight} in flight go on"),
        (true, false) => format!(
            "{endpoint} of {upstream} gets no new requests; {in_flight} in flight go on. \
             No endpoint of it serves now: requests get 503"
        ),
        (false, _) => format!("{endpoint} of {upstream} serves again"),
    })
}
