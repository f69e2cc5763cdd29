//! Where one endpoint is, once names are resolved.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An address that can be connected to without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP; never an IPv4 address in IPv6 clothes
    Socket(SocketAddr),
    /// A Unix socket
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    /// `[::ffff:10.0.0.1]:80` and `10.0.0.1:80` are one endpoint: one count, one health, one pool.
    fn from(addr: SocketAddr) -> Self {
        Self::Socket(match addr.ip().to_canonical() {
            canonical if canonical == addr.ip() => addr,
            canonical => SocketAddr::new(canonical, addr.port()),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(Address::from(mapped).to_string(), "10.0.0.1:80");
    }

    #[test]
    fn an_ipv6_scope_is_kept() {
        let scoped: SocketAddr = "[fe80::1%7]:80".parse().unwrap();
        assert_eq!(Address::from(scoped), Address::Socket(scoped));
    }
}
