//! The task that checks an upstream's endpoints, round after round.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::Sleep;

use super::Check;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::group::{Owner, jittered};

/// Checks of one upstream at the same time.
const CONCURRENT_CHECKS: usize = 32;

/// Checks until the owner is gone: at once, then every interval (a little more or less, so that gateways that started
/// together do not knock together), and new addresses as soon as they appear. Those that are unhealthy have an interval
/// of their own.
pub(in crate::upstream) async fn watch(owner: Owner, check: Arc<Check>) {
    let Some(changed) = owner.upstream().map(|upstream| upstream.changed()) else { return };
    let intervals = check.intervals();
    let mut again = round(&owner, &check, |_| true).await;
    let (mut healthy, mut unhealthy) = (after(intervals.healthy), after(intervals.unhealthy));
    while again {
        tokio::select! {
            () = &mut healthy => {
                again = round(&owner, &check, Endpoint::passes_checks).await;
                healthy = after(intervals.healthy);
            }
            () = &mut unhealthy => {
                again = round(&owner, &check, |endpoint| !endpoint.passes_checks()).await;
                unhealthy = after(intervals.unhealthy);
            }
            () = changed.notified() => again = round(&owner, &check, |endpoint| !endpoint.was_checked()).await,
        }
    }
}

fn after(interval: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(jittered(interval)))
}

/// Checks those endpoints that `wants` names; false when there is nobody to check for.
async fn round(owner: &Owner, check: &Check, wants: impl Fn(&Endpoint) -> bool) -> bool {
    let Some(upstream) = owner.upstream() else { return false };
    let endpoints = upstream.current();
    // Only the endpoints are held while a slow one is waited for, never the upstream.
    drop(upstream);
    let wanted = endpoints.all().iter().filter(|endpoint| wants(endpoint));
    stream::iter(wanted)
        .for_each_concurrent(CONCURRENT_CHECKS, async |endpoint| {
            let result = check.run(endpoint).await;
            // A version that has been replaced has no say any more.
            if let Some(upstream) = owner.upstream()
                && endpoint.checked(result.as_ref().copied().map_err(String::as_str), check.thresholds())
            {
                upstream.lay_out_again();
            }
        })
        .await;
    true
}
