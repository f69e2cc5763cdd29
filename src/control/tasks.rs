//! Work in the background: names that are followed, health that is checked, keys that are
//! fetched, stores that are connected to.
//!
//! A task belongs to the object it works for: it holds that weakly and ends with it. So nothing here is ever stopped.

#![expect(clippy::disallowed_methods, reason = "control owns the tasks that it starts")]

use std::sync::Arc;

use futures_util::future::join_all;

use crate::snapshot::Snapshot;

/// Starts what the objects of `next` need that were not in `previous`, and waits (for a bounded time) until each has
/// had its first answer: a name its addresses, an issuer its keys.
pub(super) async fn follow(next: &Snapshot, previous: Option<&Snapshot>) {
    let upstreams = next.upstreams.iter().filter(|(name, upstream)| {
        let before = previous.and_then(|previous| previous.upstreams.get(*name));
        !before.is_some_and(|before| Arc::ptr_eq(before, upstream))
    });
    let authenticators = next.authenticators.iter().filter(|(name, authenticator)| {
        let before = previous.and_then(|previous| previous.authenticators.get(*name));
        !before.is_some_and(|before| Arc::ptr_eq(before, authenticator))
    });
    let limits = next.limits.iter().filter(|(name, limit)| {
        let before = previous.and_then(|previous| previous.limits.get(*name));
        !before.is_some_and(|before| Arc::ptr_eq(before, limit))
    });
    let (upstreams, authenticators): (Vec<_>, Vec<_>) =
        (upstreams.map(|(_, one)| one).collect(), authenticators.map(|(_, one)| one).collect());
    let limits: Vec<_> = limits.map(|(_, one)| one).collect();
    for task in upstreams.iter().flat_map(|upstream| upstream.tasks()) {
        tokio::spawn(task);
    }
    for task in authenticators.iter().flat_map(|authenticator| authenticator.tasks()) {
        tokio::spawn(task);
    }
    for task in limits.iter().flat_map(|limit| limit.tasks()) {
        tokio::spawn(task);
    }
    let settled = join_all(upstreams.iter().map(|upstream| upstream.settled()));
    let known = join_all(authenticators.iter().map(|authenticator| authenticator.settled()));
    let connected = join_all(limits.iter().map(|limit| limit.settled()));
    tokio::join!(settled, known, connected);
}
