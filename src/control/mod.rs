//! Changing the truth while it runs: reload, hand-over, drain.
//!
//! [`Life`] is the process from its first READY to its end; it hears signals ([`Signals`]) and commands (`socket`), and
//! does one thing at a time: [`Reloader`] replaces the snapshot (also when `watch` has seen its files change), `upgrade`
//! hands over to a successor, which sees the same from its side as [`Predecessor`]. [`Drain`] is what everybody else
//! watches.

mod drain;
mod launch;
mod life;
mod message;
mod reload;
mod resource;
mod service_manager;
mod signals;
mod socket;
mod status;
mod successor;
mod tasks;
mod upgrade;
mod upstreams;
mod watch;

pub use drain::{AcceptorGuard, ConnectionGuard, Drain, Phase};
pub use launch::launch;
pub use life::{Life, Parts};
pub use message::{Answer, EndpointName, Outcome, Verb};
pub use reload::Reloader;
pub use resource::{Resource, Resources};
pub use signals::{Signal, Signals};
pub use socket::{ask, path as control_socket};
pub use status::{Reload, Status};
pub use successor::{Estate, Predecessor};
pub use upgrade::Launcher;
