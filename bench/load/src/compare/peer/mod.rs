//! The proxies that are compared: each is given a configuration that does the same as that of the others.

mod floor;
mod haproxy;
mod nginx;
mod tollgate;

pub(super) use self::floor::floor;
pub(super) use self::haproxy::haproxy;
pub(super) use self::nginx::{nginx, origin};
pub(super) use self::tollgate::tollgate;

/// Idle connections to the origin that each keeps: more than requests are in flight.
const POOL: usize = 512;
/// Connections that each can hold, and more than any case has.
const CONNECTIONS: usize = 16_384;
/// A limit for each user that nobody reaches.
const RATE: u64 = 100_000;
