//! Tollgate, an edge gateway: who calls, how much they may, and where the request goes.

pub mod config;
pub mod http;
