//! Waiting for a condition, with a deadline. The one place that says how patient tests are.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that should take no time: the machine is slow and does much at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long something is watched that must not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns once `condition` holds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    some(what, || condition().then_some(()));
}

/// Returns what `look` finds, once it finds something.
#[track_caller]
pub(crate) fn some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} for this in vain: {what}"))
}

/// What `look` finds before `limit` is over.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Fails if `condition` becomes true while it is watched for a [`MOMENT`].
#[track_caller]
pub(crate) fn never(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(within(MOMENT, || condition().then_some(())).is_none(), "this must not happen: {what}");
}
