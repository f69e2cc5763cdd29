//! Who takes part in a case, and how it is set up.

use super::token::Algorithm;

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Tollgate,
    /// A proxy on the same runtime that does nothing
    Floor,
    Nginx,
    Haproxy,
}

/// What it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    /// Write a JSON line for each request to a file
    pub(super) log: bool,
    /// Terminate TLS, and speak HTTP/2 to whoever wants to
    pub(super) tls: bool,
    /// Verify tokens, and limit each user
    pub(super) token: Option<Algorithm>,
    /// Limit each client address
    pub(super) limit: bool,
    /// Rules by address, scope, claim and header besides
    pub(super) policies: bool,
    /// Pass on upgrades to WebSocket
    pub(super) upgrade: bool,
    /// One, or so many with a first segment each
    pub(super) routes: usize,
    pub(super) workers: usize,
}

/// One of a case.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) peer: Peer,
    pub(super) setup: Setup,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            log: false,
            tls: false,
            token: None,
            limit: false,
            policies: false,
            upgrade: false,
            routes: 1,
            workers: 1,
        }
    }
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tollgate => "tollgate",
            Self::Floor => "floor",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

impl Contender {
    pub(super) fn new(peer: Peer, setup: Setup) -> Self {
        Self::named(peer.name(), peer, setup)
    }

    pub(super) fn named(name: &str, peer: Peer, setup: Setup) -> Self {
        Self { name: name.to_owned(), peer, setup }
    }
}
