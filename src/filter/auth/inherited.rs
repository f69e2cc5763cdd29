//! State that the successive versions of one `auth` have in common.

use std::sync::OnceLock;

/// A value of its own, until it is told whose to go on with.
#[derive(Debug, Default)]
pub(super) struct Inherited<T> {
    own: T,
    /// Set at most once, before anything is asked
    older: OnceLock<T>,
}

impl<T: Clone> Inherited<T> {
    pub(super) fn new(own: T) -> Self {
        Self { own, older: OnceLock::new() }
    }

    /// Goes on with the value of the version before. To be called once.
    pub(super) fn inherit(&self, previous: &Self) {
        // A second time changes nothing: there is one line of descent.
        let _ = self.older.set(previous.get().clone());
    }

    pub(super) fn get(&self) -> &T {
        self.older.get().unwrap_or(&self.own)
    }
}
