//! Where requests go: a named group of endpoints, which of them is next, and which are fit for it.
//!
//! An [`Upstream`] is asked to [`pick`](Upstream::pick) and answers with a [`Lease`]: the right to use one endpoint
//! once. What became of it is told to the lease ([`Outcome`]); dropping the lease gives the place back. Names are
//! followed and health is asked for in the background ([`Upstream::tasks`]).

mod address;
mod announce;
mod balance;
mod breaker;
mod budget;
mod counters;
mod dial;
mod discovery;
mod endpoint;
mod endpoints;
mod group;
mod guard;
mod health;
mod lease;
mod outlier;
mod peer;
mod retry;
mod suspicion;
mod upgrade;
mod window;

pub use address::Address;
pub use announce::Announced;
pub(crate) use announce::header as announcement;
pub use balance::{Bond, Sticky, Wish};
pub use breaker::BreakerState;
pub use counters::{Counts, EndpointStatus};
pub use endpoint::Endpoint;
pub use group::{BreakerStatus, Task, Upstream};
pub use lease::{Lease, Outcome, Tried, Unavailable};
pub use retry::{Failure, RetryPolicy};
