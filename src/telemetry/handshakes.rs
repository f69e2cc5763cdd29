//! What is counted of TLS handshakes.

use std::sync::{Arc, OnceLock};

use prometheus::{IntCounter, IntCounterVec};

use crate::config::Name;

/// Protocol version and whether a session was resumed, as they are labelled.
const KINDS: [[&str; 2]; 4] = [["1.2", "false"], ["1.2", "true"], ["1.3", "false"], ["1.3", "true"]];

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long
    Timeout,
    /// The client left
    Closed,
    /// What came is no TLS
    Malformed,
    /// No version of the protocol in common
    Version,
    /// Nothing else in common: a cipher, a group, a protocol by ALPN
    Incompatible,
    /// The client's certificate is missing, or not believed
    ClientCertificate,
    /// The client refused, ours most likely
    Alert,
    /// The client did not keep to the protocol
    Misbehaved,
    /// A fault of ours
    Internal,
}

impl HandshakeFailure {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Timeout, "timeout"),
        (Self::Closed, "closed"),
        (Self::Malformed, "malformed"),
        (Self::Version, "version"),
        (Self::Incompatible, "incompatible"),
        (Self::ClientCertificate, "client_certificate"),
        (Self::Alert, "alert"),
        (Self::Misbehaved, "misbehaved"),
        (Self::Internal, "internal"),
    ];
}

/// The counters of one listener, each made when it is first counted: most listeners never need most.
#[derive(Clone, Debug)]
pub(super) struct Handshakes(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    listener: Name,
    done: (IntCounterVec, [OnceLock<IntCounter>; KINDS.len()]),
    failed: (IntCounterVec, [OnceLock<IntCounter>; HandshakeFailure::ALL.len()]),
}

impl Handshakes {
    /// Of `listener`, in these families.
    pub(super) fn new(listener: &Name, done: &IntCounterVec, failed: &IntCounterVec) -> Self {
        let (done, failed) = ((done.clone(), Default::default()), (failed.clone(), Default::default()));
        Self(Arc::new(Counters { listener: listener.clone(), done, failed }))
    }

    pub(super) fn done(&self, version: &str, is_resumed: bool) {
        let kind = [version, if is_resumed { "true" } else { "false" }];
        let (family, counters) = &self.0.done;
        if let Some(at) = KINDS.iter().position(|other| *other == kind) {
            let make = || family.with_label_values(&[&*self.0.listener, kind[0], kind[1]]);
            counters[at].get_or_init(make).inc();
        }
    }

    pub(super) fn failed(&self, failure: HandshakeFailure) {
        let (family, counters) = &self.0.failed;
        if let Some(at) = HandshakeFailure::ALL.iter().position(|(other, _)| *other == failure) {
            let make = || family.with_label_values(&[&*self.0.listener, HandshakeFailure::ALL[at].1]);
            counters[at].get_or_init(make).inc();
        }
    }
}
