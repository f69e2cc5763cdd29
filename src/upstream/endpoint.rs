//! One endpoint: how to get there, and what all workers know about it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;

use super::address::Address;
use super::balance::{Ewma, Tag, Warmth, seed_of};
use super::counters::EndpointStatus;
use super::group::Lineage;
use super::guard::Guard;
use super::health::Health;
use super::outlier::{self, Ejection, Record, Why};
use super::suspicion::Suspicion;
use crate::config::{self, Name};

/// An address and what is written about it in the configuration.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) address: Address,
    pub(super) weight: u32,
    /// What a request of ours names as its Host: the address, or the name it was found by
    pub(super) authority: Arc<str>,
    pub(super) priority: u8,
    pub(super) zone: Option<Name>,
    /// Of the zone of this gateway
    pub(super) is_near: bool,
}

/// One address of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    place: Place,
    text: Arc<str>,
    peer: HttpPeer,
    guard: Arc<Guard>,
    /// From its address, the same in every gateway
    seed: u64,
    /// Where clients are bound to endpoints
    tag: Option<Tag>,
    /// Hundredths; less than the weight while it gets warm. Written when turns are laid out
    weight_now: AtomicU32,
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
    warmth: Warmth,
    ewma: Ewma,
    /// What the checks have seen: one writer at a time, never a request
    health: Mutex<Health>,
    /// Why it is unhealthy
    illness: Mutex<Option<String>>,
    pub(super) ejection: Ejection,
    pub(super) record: Record,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            drained: AtomicBool::new(false),
            suspicion: Suspicion::new(now),
            warmth: Warmth::new(now),
            ewma: Ewma::new(now),
            health: Mutex::new(Health::default()),
            illness: Mutex::new(None),
            ejection: Ejection::new(now),
            record: Record::default(),
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

    /// It is new, or has been away: with `slow_start` its share grows from now on.
    pub(super) fn begin_anew(&self, now: Instant) {
        self.warmth.lost(now);
    }

    pub(super) fn release(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// `template` is the upstream's peer, still without an address.
    pub(super) fn new(
        place: Place,
        template: &HttpPeer,
        guard: Arc<Guard>,
        (state, lineage): (Arc<State>, Arc<Lineage>),
    ) -> Self {
        let text: Arc<str> = place.address.to_string().into();
        let peer = super::peer::at(template, &place.address);
        let weight_now = AtomicU32::new(hundredths(place.weight, 100));
        let seed = seed_of(&text);
        Self { place, text, peer, guard, seed, tag: None, weight_now, state, lineage }
    }

    /// The same where clients are bound to endpoints.
    pub(super) fn with_tag(self, tag: Option<Tag>) -> Self {
        Self { tag, ..self }
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

    /// What it has of that now, in hundredths of a unit.
    pub(super) fn weight_now(&self) -> u32 {
        self.weight_now.load(Ordering::Relaxed)
    }

    /// What it should have now.
    fn weight_at(&self, slow_start: Option<Duration>, now: Instant) -> u32 {
        let percent = slow_start.map_or(100, |slow_start| self.state.warmth.percent(slow_start, now));
        hundredths(self.place.weight, percent)
    }

    /// Brings the weight up to date: turns are about to be laid out.
    pub(super) fn grow(&self, slow_start: Option<Duration>, now: Instant) {
        self.weight_now.store(self.weight_at(slow_start, now), Ordering::Relaxed);
    }

    /// Whether turns should be laid out for it.
    pub(super) fn has_grown(&self, slow_start: Option<Duration>, now: Instant) -> bool {
        self.weight_now() != self.weight_at(slow_start, now)
    }

    /// Which tier it belongs to: by priority, and whether it is of this gateway's zone.
    pub(super) fn tier(&self) -> (u8, bool) {
        (self.place.priority, self.place.is_near)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn tag(&self) -> Option<Tag> {
        self.tag
    }

    pub(super) fn ewma(&self) -> &Ewma {
        &self.state.ewma
    }

    /// Whether requests may go there: health checks say so, where there are any, and it is not drained.
    pub fn is_healthy(&self) -> bool {
        self.passes_checks() && !self.is_drained()
    }

    /// What health checks say; true where nothing is checked.
    pub(super) fn passes_checks(&self) -> bool {
        !self.guard.checked || self.state.healthy.load(Ordering::Relaxed)
    }

    /// Whether it is out because of what its answers were.
    pub(super) fn is_ejected(&self, now: impl Fn() -> Instant + Copy) -> bool {
        if self.guard.outlier.is_none() {
            return false;
        }
        if self.state.ejection.has_returned(now) {
            self.state.record.begin_anew();
            log::info!("upstream {}: endpoint {} is no longer ejected", self.lineage.name, self.text);
        }
        self.state.ejection.is_out(now)
    }

    /// Puts it out, unless too many are or nobody else could serve.
    pub(super) fn eject(&self, spec: &config::Outlier, why: Why, now: Instant) {
        // Held until it is out, so that two at once do not both become the last that may be.
        let roster = self.lineage.roster.lock();
        let is_out = |state: &State| state.ejection.is_out(|| now);
        let serves = |state: &State| {
            let healthy = !self.guard.checked || state.healthy.load(Ordering::Relaxed);
            healthy && !is_out(state) && !state.drained.load(Ordering::Relaxed)
        };
        let others = roster.iter().filter(|state| !Arc::ptr_eq(state, &self.state) && serves(state)).count();
        let out = roster.iter().filter(|state| is_out(state)).count();
        if is_out(&self.state) || !outlier::may_eject(out, roster.len(), others, spec.max_ejected) {
            return;
        }
        let length = self.state.ejection.eject(now, spec.ejection, spec.max_ejection);
        drop(roster);
        self.state.record.begin_anew();
        self.lineage.counters.ejected(why);
        let (upstream, endpoint, why) = (&self.lineage.name, &self.text, why.name());
        log::warn!("upstream {upstream}: endpoint {endpoint} is ejected for {length:?}: {why}");
    }

    pub(super) fn is_drained(&self) -> bool {
        self.state.drained.load(Ordering::Relaxed)
    }

    /// An operator wants nothing new to go there, or wants it to serve again.
    pub(super) fn drain(&self, drained: bool) {
        if self.state.drained.swap(drained, Ordering::Relaxed) != drained {
            if !drained {
                self.state.begin_anew(Instant::now());
            }
            let what = if drained { "is drained: it gets no new requests" } else { "serves again" };
            log::info!("upstream {}: endpoint {} {what}", self.lineage.name, self.text);
        }
    }

    /// Leases held.
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> EndpointStatus {
        let now = Instant::now();
        let ejection = self.guard.outlier.as_ref().map(|_| &self.state.ejection);
        EndpointStatus {
            address: Arc::clone(&self.text),
            healthy: self.passes_checks(),
            drained: self.is_drained(),
            suspect: !self.state.suspicion.is_clear(),
            in_flight: self.in_flight(),
            weight: self.place.weight,
            illness: self.state.illness.lock().clone().filter(|_| !self.passes_checks()),
            ejected_for: ejection.and_then(|ejection| ejection.remaining(now)),
            ejections: self.state.ejection.count(),
            weight_now: self.weight_now(),
            priority: self.place.priority,
            zone: self.place.zone.clone(),
            latency: self.state.ewma.last().map(|micros| Duration::from_secs_f32(micros / 1e6)),
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

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
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
            self.state.release();
        }
        taken
    }

    /// A response came from it.
    pub(super) fn answered(&self) {
        if self.state.suspicion.succeeded() {
            self.state.begin_anew(Instant::now());
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
        if healthy {
            self.state.begin_anew(Instant::now());
        }
        self.state.healthy.store(healthy, Ordering::Relaxed);
        *self.state.illness.lock() = result.err().map(str::to_owned);
        match result {
            Ok(()) => log::info!("upstream {}: endpoint {} is healthy", self.lineage.name, self.text),
            Err(why) => log::warn!("upstream {}: endpoint {} is unhealthy: {why}", self.lineage.name, self.text),
        }
        true
    }
}

/// So many per cent of a weight.
fn hundredths(weight: u32, percent: u32) -> u32 {
    weight.saturating_mul(percent)
}
