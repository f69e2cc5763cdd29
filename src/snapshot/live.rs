//! The handle that swaps the truth.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Snapshot;

/// The current snapshot. Only `control` replaces it; a request loads it once.
#[derive(Debug)]
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    /// Starts with a first snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    /// The snapshot of this moment, to keep.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// From here on, new requests are served by `snapshot`.
    pub fn replace(&self, snapshot: Arc<Snapshot>) {
        self.0.store(snapshot);
    }
}
