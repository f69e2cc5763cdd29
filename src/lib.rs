//! Tollgate, an edge gateway: who calls, how much they may, and where the request goes.
//!
//! The house has floors; a room imports from lower floors only (`tests/architecture.rs` sees to it). Read it from the
//! bottom up to learn the words, or from the top down to follow a request. `ARCHITECTURE.md` is the guided tour.

// FLOOR 6: the roof. Turning it on.
pub mod app;
pub mod cli;

// FLOOR 5: the machines. What listens.
pub mod admin;
pub mod listen;
pub mod proxy;

// FLOOR 4: the control room. Changing the truth while it runs.
pub mod control;

// FLOOR 3: the plan room. One moment's whole truth.
pub mod snapshot;

// FLOOR 2: the rooms. One skill each, strangers to each other.
pub mod filter;
pub mod router;
pub mod tls;
pub mod upstream;

// FLOOR 1: the workshop. Tools every room uses.
pub mod http;
pub mod socket;
pub mod telemetry;

// FLOOR 0: the dictionary. Words, no verbs.
pub mod config;
