//! Changing the truth while it runs: reload, hand-over, drain.

mod drain;

pub use drain::{ConnectionGuard, Drain, Phase};
