//! Whom a connection to an upstream is for: the PROXY protocol (HAProxy's specification of 2020), said in front of
//! everything else.
//!
//! What is said holds for the whole connection, so one is used again only for the ends it was made for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::ProxyHeader;

/// The ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Announced {
    /// The client; its port is 0 where a trusted proxy told the address alone
    pub source: SocketAddr,
    /// Where it has connected to
    pub destination: SocketAddr,
}

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header. Without ends the connection is our own: a check.
pub(crate) fn header(version: ProxyHeader, ends: Option<Announced>) -> Vec<u8> {
    let ends = ends.map(|ends| same_family(ends.source, ends.destination));
    match version {
        ProxyHeader::V1 => v1(ends),
        ProxyHeader::V2 => v2(ends),
    }
}

/// What tells apart the connections of a pool that have said different things.
pub(super) fn pool_key(group_key: u64, header: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (group_key, header).hash(&mut hasher);
    hasher.finish()
}

/// A header has one family: where one end is IPv6, both are.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |addr: SocketAddr| SocketAddr::new(v6(addr.ip()).into(), addr.port());
    (mapped(source), mapped(destination))
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn v1(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((source, destination)) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    // A scope is nobody's business but this machine's, so addresses are written without their port and scope.
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn v2(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((source, destination)) = ends else {
        // Version 2, LOCAL; no family; nothing follows.
        header.extend([0x20, 0x00, 0, 0]);
        return header;
    };
    let mut addresses = Vec::with_capacity(36);
    for addr in [source, destination] {
        match addr.ip() {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    // Version 2, PROXY; the family and a stream.
    header.extend([0x21, if source.is_ipv4() { 0x11 } else { 0x21 }, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}
