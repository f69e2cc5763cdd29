//! The PROXY protocol (HAProxy's specification of 2020, versions 1 and 2): what a balancer says in front of a
//! connection's first byte. Pure: bytes in, a header out, and nothing read beyond it.
//!
//! Our own, since the crates for it take more than the grammar (signs and leading zeros in ports, any byte behind
//! `PROXY`) and leave the checksum to their user.

mod v1;
mod v2;

use std::net::SocketAddr;

/// Bytes of a whole header. Version 1 allows 107; version 2 would allow 65,551, and 4,096 is what others take as well:
/// addresses of Unix sockets, a client's names and its certificate fit.
pub(crate) const MAX_HEADER: usize = 4096;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// 1 or 2
    pub(crate) version: u8,
    /// `None`: the connection is the balancer's own, or its ends have no IP address; those of the socket hold
    pub(crate) ends: Option<Ends>,
    /// The client's connection to the balancer was encrypted
    pub(crate) encrypted: bool,
    /// The host that the client asked the balancer for (SNI)
    pub(crate) authority: Option<String>,
    /// What the balancer calls the connection; 128 bytes at most
    pub(crate) unique_id: Option<Box<[u8]>>,
}

/// The ends of the client's connection to the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// Not a header, and why; for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Reads the header at the front of `bytes` and says how long it is. `None`: it goes on behind them, and all of them
/// belong to it.
///
/// # Errors
/// No header begins like this, whatever follows.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if is_prefix(bytes, v1::BEGIN) {
        v1::parse(bytes)
    } else if is_prefix(bytes, v2::BEGIN) {
        v2::parse(bytes)
    } else {
        Err(Malformed("what arrived does not begin like a PROXY header"))
    }
}

/// Whether `bytes` begin with `begin`, as far as they go.
fn is_prefix(bytes: &[u8], begin: &[u8]) -> bool {
    bytes.iter().zip(begin).all(|(byte, expected)| byte == expected)
}

#[cfg(test)]
mod tests;
