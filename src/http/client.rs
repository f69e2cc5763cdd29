//! Whom a request is from, when others may speak for the client.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Entries of X-Forwarded-For that are looked at, from the right.
const MAX_HOPS: usize = 32;

/// An IPv4 address in IPv6 clothes is an IPv4 address.
pub fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whose address it is, where callers are counted: one subscriber has a /64 of IPv6, and could otherwise be as many
/// callers as it has addresses.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// Who may speak for a client.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedProxies(Vec<IpNet>);

/// Whom a request is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client, or the last one in front of it that is not trusted
    pub address: IpAddr,
    /// The connection's other end is a trusted proxy
    pub trusted_peer: bool,
}

impl TrustedProxies {
    /// Nobody, if the list is empty.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether this address may speak for a client.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Walks X-Forwarded-For from the right and ends at the first address that is not trusted. An entry that is no
    /// address ends the walk at the last one that was.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = unmapped(peer);
        if !self.contains(peer) {
            return Client { address: peer, trusted_peer: false };
        }
        let mut address = peer;
        let entries = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let entries = entries.flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','));
        for entry in entries.take(MAX_HOPS) {
            let Some(next) = std::str::from_utf8(entry).ok().and_then(|entry| parse(entry.trim())) else {
                break;
            };
            address = next;
            if !self.contains(address) {
                break;
            }
        }
        Client { address, trusted_peer: true }
    }
}

/// An address, perhaps with a port or in brackets, as proxies write them.
fn parse(entry: &str) -> Option<IpAddr> {
    let plain = entry.parse().ok();
    let with_port = || entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    plain.or_else(with_port).or_else(bracketed).map(unmapped)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("network"), "fd00::/8".parse().expect("network")])
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).expect("header value"));
        }
        trusted().client(peer.parse().expect("address"), &headers).address.to_string()
    }

    #[test]
    fn an_untrusted_peer_speaks_for_itself() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn the_walk_ends_at_the_first_that_is_not_trusted() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7", "10.0.0.3"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.0.0.9"]), "10.0.0.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn garbage_ends_the_walk_at_the_last_good_one() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn mapped_addresses_ports_and_brackets_are_understood() {
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("fd00::1", &["[2001:db8::1]"]), "2001:db8::1");
    }

    proptest! {
        #[test]
        fn what_an_untrusted_client_prepends_changes_nothing(prefix in "[ -~]{0,40}") {
            let line = format!("{prefix}, 198.51.100.7");
            prop_assert_eq!(client("10.0.0.1", &[&line]), "198.51.100.7");
        }
    }
}
