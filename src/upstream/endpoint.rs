//! One endpoint: how to get there, and what all workers know about it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;

use super::address::Address;
use super::counters::{Counters, EndpointStatus};
use super::group::Lineage;
use super::health::Health;
use super::suspicion::Suspicion;

/// An address and what is written about it in the configuration.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) address: Address,
    pub(super) weight: u32,
    /// What a request of ours names as its Host: the address, or the name it was found by
    pub(super) authority: Arc<str>,
}

/// One address of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    place: Place,
    text: Arc<str>,
    peer: HttpPeer,
    /// Whether health checks decide; without them nothing an earlier version learnt may keep it out
    checked: bool,
    state: Arc<State>,
    lineage: Arc<Lineage>,
}

/// What is known about an address. It outlives a reload, and a name that lets go of the address for a while.
#[derive(Debug)]
pub(super) struct State {
    in_flight: AtomicU32,
    healthy: AtomicBool,
    /// An operator wants nothing new to go there
    drained: AtomicBool,
    suspicion: Suspicion,
    /// What the checks have seen: one writer at a time, never a request
    health: Mutex<Health>,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            drained: AtomicBool::new(false),
            suspicion: Suspicion::new(now),
            health: Mutex::new(Health::default()),
        }
    }

    /// Takes a place, if there is one; exact under any number of workers.
    fn reserve(&self, cap: Option<NonZeroU32>) -> bool {
        let Some(cap) = cap else {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let taken = |count| (count < cap.get()).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn release(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// `template` is the upstream's peer, still without an address.
    pub(super) fn new(
        place: Place,
        template: &HttpPeer,
        checked: bool,
        (state, lineage): (Arc<State>, Arc<Lineage>),
    ) -> Self {
        let text = place.address.to_string().into();
        let peer = super::peer::at(template, &place.address);
        Self { place, text, peer, checked, state, lineage }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.place.address
    }

    /// Where it is, as logs and metrics show it.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Share of the traffic, relative to the others.
    pub fn weight(&self) -> u32 {
        self.place.weight
    }

    /// Whether requests may go there: health checks say so, where there are any, and it is not drained.
    pub fn is_healthy(&self) -> bool {
        self.passes_checks() && !self.is_drained()
    }

    fn passes_checks(&self) -> bool {
        !self.checked || self.state.healthy.load(Ordering::Relaxed)
    }

    fn is_drained(&self) -> bool {
        self.state.drained.load(Ordering::Relaxed)
    }

    /// An operator wants nothing new to go there, or wants it to serve again.
    pub(super) fn drain(&self, drained: bool) {
        if self.state.drained.swap(drained, Ordering::Relaxed) != drained {
            let what = if drained { "is drained: it gets no new requests" } else { "serves again" };
            log::info!("upstream {}: endpoint {} {what}", self.lineage.name, self.text);
        }
    }

    /// Leases held.
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> EndpointStatus {
        EndpointStatus {
            address: Arc::clone(&self.text),
            healthy: self.passes_checks(),
            drained: self.is_drained(),
            suspect: !self.state.suspicion.is_clear(),
            in_flight: self.in_flight(),
            weight: self.place.weight,
        }
    }

    /// What a request without a Host of its own names there.
    pub fn authority(&self) -> &str {
        &self.place.authority
    }

    pub(super) fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.lineage.counters
    }

    pub(super) fn has_room(&self, cap: Option<NonZeroU32>) -> bool {
        cap.is_none_or(|cap| self.in_flight() < cap.get())
    }

    pub(super) fn permits(&self, now: impl Fn() -> Instant) -> bool {
        self.state.suspicion.permits(now)
    }

    /// Takes a place. `despite_suspicion` is for when there is nobody above suspicion.
    pub(super) fn take(&self, cap: Option<NonZeroU32>, despite_suspicion: bool, now: impl Fn() -> Instant) -> bool {
        if !self.state.reserve(cap) {
            return false;
        }
        // After the place, since only one request gets this permission and it must be able to use it.
        let taken = despite_suspicion || self.state.suspicion.claim(now);
        if !taken {
            self.release();
        }
        taken
    }

    /// Gives a place back, and lets whoever waits for one know.
    pub(super) fn release(&self) {
        self.state.release();
        self.lineage.queue.call();
    }

    /// A response came from it.
    pub(super) fn answered(&self) {
        if self.state.suspicion.succeeded() {
            log::info!("upstream {}: endpoint {} answers again", self.lineage.name, self.text);
        }
    }

    /// No connection could be had.
    pub(super) fn unreachable(&self, why: &str, now: Instant) {
        if self.state.suspicion.failed(now) {
            log::warn!("upstream {}: endpoint {} is avoided for a moment: {why}", self.lineage.name, self.text);
        }
    }

    /// Whether a check has had its say about this address.
    pub(super) fn was_checked(&self) -> bool {
        self.state.health.lock().was_checked()
    }

    /// Feeds the result of a check; true if that changed whether it is healthy.
    pub(super) fn checked(&self, result: Result<(), &str>, thresholds: super::health::Thresholds) -> bool {
        let mut health = self.state.health.lock();
        let Some(healthy) = health.observe(result.is_ok(), thresholds) else { return false };
        self.state.healthy.store(healthy, Ordering::Relaxed);
        match result {
            Ok(()) => log::info!("upstream {}: endpoint {} is healthy", self.lineage.name, self.text),
            Err(why) => log::warn!("upstream {}: endpoint {} is unhealthy: {why}", self.lineage.name, self.text),
        }
        true
    }
}
