//! Names are resolved in the background and followed.
//!
//! The system's resolver blocks a thread for as long as it likes. So a name has one lookup at a time: one that hangs is
//! waited for, with the addresses of the last answer still in use, and never joined by another.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::group::{Owner, jittered};

/// How often a name is looked up again.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(5);
/// When a lookup counts as failed, though it is still waited for.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses taken from one answer.
const MAX_ADDRESSES: usize = 64;

/// A name to resolve, and the port behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Asks the system.
pub(super) async fn system(target: Target) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((target.host, target.port)).await?.collect())
}

/// Looks `target` up until the owner is gone. `resolve` is the seam for tests.
pub(super) async fn follow<R, F>(owner: Owner, target: Target, resolve: R)
where
    R: Fn(Target) -> F,
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let mut failing = false;
    loop {
        let lookup = resolve(target.clone());
        tokio::pin!(lookup);
        let answer = loop {
            match tokio::time::timeout(LOOKUP_TIMEOUT, &mut lookup).await {
                Ok(answer) => break answer.and_then(usable),
                Err(_) => {
                    let late = Err(io::Error::from(io::ErrorKind::TimedOut));
                    if !settle(&owner, &target, late, &mut failing) {
                        return;
                    }
                }
            }
        };
        if !settle(&owner, &target, answer, &mut failing) {
            return;
        }
        tokio::time::sleep(jittered(FOLLOW_INTERVAL)).await;
    }
}

/// Hands the answer over; a failure is logged once and keeps what was known. False when the owner is gone.
fn settle(owner: &Owner, target: &Target, answer: io::Result<Vec<SocketAddr>>, failing: &mut bool) -> bool {
    let Some(upstream) = owner.upstream() else { return false };
    let Target { host, port } = target;
    let name = upstream.name();
    match answer {
        Ok(addresses) => {
            if *failing {
                log::info!("upstream {name}: {host}:{port} resolves again");
            }
            *failing = false;
            upstream.resolved(target, Some(addresses));
        }
        Err(error) => {
            if !*failing {
                log::warn!("upstream {name}: {host}:{port} does not resolve, keeping what is known: {error}");
            }
            *failing = true;
            upstream.resolved(target, None);
        }
    }
    true
}

/// The addresses of an answer that somebody can be reached at, in an order that does not change from answer to answer.
fn usable(mut addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    addresses.retain(|addr| {
        let ip = addr.ip().to_canonical();
        !ip.is_unspecified() && !ip.is_multicast()
    });
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the answer holds no address that can be connected to"));
    }
    Ok(addresses)
}
