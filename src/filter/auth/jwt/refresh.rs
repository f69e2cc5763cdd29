//! The task that fetches keys. A failure changes nothing but their age.

use std::sync::Arc;
use std::time::Instant;

use super::jwk::Read;
use super::keyring::Keyring;
use super::published::{Failure, Published};
use super::remote::{Owner, Remote};
use crate::filter::auth::counters::Counters;

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::filter::auth) enum Outcome {
    Success,
    /// No connection, or one that broke
    Unreachable,
    Timeout,
    /// Another status than 200
    Status,
    TooLarge,
    /// Not a key set with a key that can be used
    Invalid,
    /// A document that is not about this issuer, or does not say where its keys are
    Discovery,
}

impl Outcome {
    pub(in crate::filter::auth) const ALL: [Self; 7] =
        [Self::Success, Self::Unreachable, Self::Timeout, Self::Status, Self::TooLarge, Self::Invalid, Self::Discovery];

    pub(in crate::filter::auth) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Discovery => "discovery",
        }
    }
}

/// Fetches until the owner is gone: at once, then whenever it is time or somebody asks.
pub(super) async fn follow(owner: Owner, counters: Arc<Counters>) {
    loop {
        let Some((pause, wake)) = owner.with(|_, remote| remote.rest(Instant::now())) else { return };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
        }
        let begun = owner.with(|_, remote| remote.begin(Instant::now()).then(|| remote.target()));
        let Some(begun) = begun else {
            // What woke this task may have been meant for the one that follows it.
            wake.notify_one();
            return;
        };
        let Some((place, known, timeout)) = begun else { continue };
        let answer = place.ask(known, timeout).await;
        if owner.with(|keyring, remote| settle(keyring, remote, answer, &counters)).is_none() {
            return;
        }
    }
}

/// Takes the keys over, or keeps those there are; either is logged when it changes.
fn settle(keyring: &Keyring, remote: &Remote, answer: Result<Published, Failure>, counters: &Counters) {
    let name = remote.name();
    let was_failing = remote.is_failing();
    match answer {
        Ok(Published { keys, fresh_for, known }) => {
            let is_new = keys.is_some_and(|Read { set, skipped }| {
                let keys = set.len();
                let is_new = keyring.replace(set);
                if is_new {
                    log::info!("auth {name}: verifying with {keys} fetched keys");
                    for skipped in skipped {
                        log::info!("auth {name}: fetched key {} is not used: {}", skipped.id, skipped.why);
                    }
                }
                is_new
            });
            if was_failing && !is_new {
                log::info!("auth {name}: keys can be fetched again");
            }
            counters.refreshed(Outcome::Success);
            remote.succeeded(known, fresh_for, Instant::now());
        }
        Err((outcome, why)) => {
            if !was_failing {
                let kept =
                    if keyring.current().is_some() { "keeping those there are" } else { "and there are none yet" };
                log::warn!("auth {name}: keys cannot be fetched, {kept}: {why}");
            }
            counters.refreshed(outcome);
            remote.failed(Instant::now());
        }
    }
}
