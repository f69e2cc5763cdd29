//! May a request pass, and how is it changed? One file a filter.

pub mod auth;
pub mod limit;

mod facts;
mod identity;

pub use facts::Facts;
pub use identity::Identity;
