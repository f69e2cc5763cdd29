//! One request as filters see it.

use std::net::IpAddr;

use http::{HeaderMap, Method};

/// What may be judged of a request: borrowed, canonical, free of any connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As sent
    pub method: &'a Method,
    /// Lower case, without a port
    pub host: &'a str,
    /// Canonical: what is matched is what is forwarded
    pub path: &'a str,
    /// Without `?`
    pub query: Option<&'a str>,
    /// As sent, less what the security floor removes
    pub headers: &'a HeaderMap,
    /// The client, after trusted proxies were believed; IPv4-mapped IPv6 is IPv4
    pub client: IpAddr,
    /// The route's name; empty before one is known
    pub route: &'a str,
}
