//! What every test stands on: the real binary, scripted services behind it, and clients that see each byte.
//!
//! Nothing sleeps and nothing has a fixed port: what takes time is waited for with the deadlines of [`wait`].

#![allow(dead_code, reason = "the toolbox is whole before every tool has its second user")]

pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod frames;
pub(crate) mod h2;
pub(crate) mod issuer;
pub(crate) mod jwt;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod oidc;
pub(crate) mod origin;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod tollgate;
pub(crate) mod visit;
pub(crate) mod wait;
pub(crate) mod websocket;
pub(crate) mod wire;

mod tests;

pub(crate) use self::client::{Client, Request};
pub(crate) use self::origin::{Gate, Origin};
pub(crate) use self::raw::Raw;
pub(crate) use self::tollgate::{Tollgate, open_to};
