//! Changing the truth while it runs: reload, hand-over, drain.

mod drain;
mod status;

pub use drain::{ConnectionGuard, Drain, Phase};
pub use status::{Reload, Status};
