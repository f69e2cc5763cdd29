//! Endpoints come and go: names are resolved and followed as their answers' TTLs say, and lists are read again.
//!
//! Each name and each list has a task of its own. What cannot be had changes nothing: the last answer is used until
//! there is another.

mod dns;
mod list;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::dns::Resolver;
pub(super) use self::list::follow as follow_list;
use super::group::{Owner, jittered};

/// The shortest time between two lookups of a name, whatever its TTL.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest: a name that moves is followed, even if its TTL is a day, and so is a file of hosts, which has none.
const LONGEST: Duration = Duration::from_secs(30);
/// From a lookup that failed to the next.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// When a lookup has failed.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses taken from one answer.
const MAX_ADDRESSES: usize = 64;

/// What to look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    /// A name's addresses (A and AAAA), and the port behind them
    Host { host: String, port: u16 },
    /// A service's hosts and ports (SRV, RFC 2782)
    Service { name: String },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Service { name } => write!(f, "srv:{name}"),
        }
    }
}

/// One address of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) addr: SocketAddr,
    /// Share among those of the same answer
    pub(super) weight: u32,
    /// Its host and port, as a request without a Host of its own names them
    pub(super) authority: Arc<str>,
}

/// What a lookup has brought.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) found: Vec<Found>,
    /// For how long it may be used without asking again
    pub(super) ttl: Duration,
}

/// Looks `target` up until the owner is gone. `resolve` is the seam for tests.
pub(super) async fn follow<R, F>(owner: Owner, target: Target, resolve: R)
where
    R: Fn(Target) -> F,
    F: Future<Output = io::Result<Answer>>,
{
    let mut failing = false;
    loop {
        let answer = match tokio::time::timeout(LOOKUP_TIMEOUT, resolve(target.clone())).await {
            Ok(answer) => answer.and_then(usable),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        let next = match &answer {
            Ok(answer) => answer.ttl.clamp(SHORTEST, LONGEST),
            Err(_) => jittered(AFTER_FAILURE),
        };
        if !settle(&owner, &target, answer, &mut failing) {
            return;
        }
        tokio::time::sleep(next).await;
    }
}

/// Hands the answer over; a failure is logged once and keeps what was known. False when the owner is gone.
fn settle(owner: &Owner, target: &Target, answer: io::Result<Answer>, failing: &mut bool) -> bool {
    let Some(upstream) = owner.upstream() else { return false };
    let name = upstream.name();
    match answer {
        Ok(answer) => {
            if *failing {
                log::info!("upstream {name}: {target} resolves again");
            }
            *failing = false;
            upstream.resolved(target, Some(answer.found));
        }
        Err(error) => {
            if !*failing {
                log::warn!("upstream {name}: {target} does not resolve, keeping what is known: {error}");
            }
            *failing = true;
            upstream.resolved(target, None);
        }
    }
    true
}

/// The addresses of an answer that somebody can be reached at, in an order that does not change from answer to answer.
fn usable(mut answer: Answer) -> io::Result<Answer> {
    let found = &mut answer.found;
    found.retain(|found| {
        let ip = found.addr.ip().to_canonical();
        !ip.is_unspecified() && !ip.is_multicast()
    });
    found.sort_unstable();
    found.dedup_by(|one, other| one.addr == other.addr);
    found.truncate(MAX_ADDRESSES);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the answer holds no address that can be connected to"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(addresses: &[&str]) -> Answer {
        let found = addresses.iter().map(|addr| Found {
            addr: addr.parse().expect("an address"),
            weight: 1,
            authority: "orders:80".into(),
        });
        Answer { found: found.collect(), ttl: SHORTEST }
    }

    #[test]
    fn answers_are_the_same_in_any_order() {
        let (one, other) =
            (answer(&["10.0.0.2:80", "10.0.0.1:80"]), answer(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"]));
        assert_eq!(usable(one).expect("usable").found, usable(other).expect("usable").found);
    }

    #[test]
    fn an_answer_without_an_address_to_connect_to_is_a_failure() {
        for addresses in [&[][..], &["0.0.0.0:80", "[::]:80", "224.0.0.1:80"][..]] {
            assert!(usable(answer(addresses)).is_err(), "{addresses:?}");
        }
    }

    #[test]
    fn an_answer_is_cut_at_its_bound() {
        let many: Vec<String> = (0..=255).map(|last| format!("10.0.0.{last}:80")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(usable(answer(&many)).expect("usable").found.len(), MAX_ADDRESSES);
    }
}
