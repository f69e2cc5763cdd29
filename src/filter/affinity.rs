//! From the parts of a request to a key that every gateway makes alike: requests with one key go to one endpoint.

use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};

use super::Facts;
use crate::config::Selector;
use crate::http::network;

/// 64 bits of SHA-256 over the parts, each with its length. A part that is missing is empty; a request that has none of
/// them has no key, so that such requests do not all meet at one endpoint.
pub fn affinity(selectors: &[Selector], facts: &Facts<'_>) -> Option<u64> {
    let mut context = Context::new(&SHA256);
    let mut is_empty = true;
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
        is_empty &= bytes.is_empty();
    };
    for selector in selectors {
        match selector {
            Selector::ClientAddress => match network(facts.request.client) {
                IpAddr::V4(address) => part(&address.octets()),
                IpAddr::V6(address) => part(&address.octets()),
            },
            other => part(facts.read(other).as_deref().unwrap_or("").as_bytes()),
        }
    }
    let digest = context.finish();
    let key = u64::from_be_bytes(digest.as_ref()[..8].try_into().expect("a digest of 32 bytes"));
    (!is_empty).then_some(key)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;
    use crate::http::Request;

    fn key(selectors: &[Selector], client: &str, headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.collect();
        let request = Request {
            method: &Method::GET,
            host: "h",
            path: "/",
            query: None,
            headers: &headers,
            client: client.parse::<IpAddr>().expect("an address"),
            client_certificate: None,
            route: "r",
            scheme: "http",
            id: "",
        };
        affinity(selectors, &Facts { request: &request, identity: None })
    }

    #[test]
    fn a_key_is_the_same_everywhere_and_parts_do_not_run_into_one_another() {
        let header = |name| Selector::Header(HeaderName::from_static(name));
        let both = [header("a"), header("b")];
        let of = |a, b| key(&both, "10.0.0.1", &[("a", a), ("b", b)]);
        assert_eq!(of("x", "y"), of("x", "y"));
        assert_ne!(of("xy", ""), of("x", "y"));
        assert_ne!(of("x", "y"), of("y", "x"));
        // Another gateway, of another version, has to find the same endpoint.
        assert_eq!(key(&[header("a")], "10.0.0.1", &[("a", "tenant-1")]), Some(17_261_336_955_536_905_497));
        assert_eq!(of("", ""), None);
        assert_eq!(key(&both, "10.0.0.1", &[]), None);
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let of = |client| key(&[Selector::ClientAddress], client, &[]);
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
