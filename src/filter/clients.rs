//! Who may use a route by address: deny wins, and an empty `allow` is everybody.

use std::ops::ControlFlow;

use crate::config;
use crate::http::{Reason, Reply, Request};

/// Allow and deny lists of a route.
#[derive(Debug)]
pub struct ClientRules(config::ClientRules);

impl ClientRules {
    /// `None` when there is nothing to check.
    pub fn build(spec: &config::ClientRules) -> Option<Self> {
        (*spec != config::ClientRules::default()).then(|| Self(spec.clone()))
    }

    /// Judges the client's address.
    pub fn on_request(&self, request: &Request<'_>) -> ControlFlow<Reply> {
        let within = |networks: &[ipnet::IpNet]| networks.iter().any(|network| network.contains(&request.client));
        if within(&self.0.deny) || !(self.0.allow.is_empty() || within(&self.0.allow)) {
            return ControlFlow::Break(Reply::problem(
                Reason::ClientDenied,
                "This client's address may not use this route.",
            ));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn allowed(allow: &[&str], deny: &[&str], client: &str) -> bool {
        let parse = |list: &[&str]| list.iter().map(|network| network.parse().expect("network")).collect();
        let rules = ClientRules::build(&config::ClientRules { allow: parse(allow), deny: parse(deny) });
        let headers = HeaderMap::new();
        let client = client.parse().expect("address");
        let request = Request {
            method: &Method::GET,
            host: "",
            path: "/",
            query: None,
            headers: &headers,
            client,
            client_certificate: None,
            route: "",
            scheme: "http",
            id: "",
        };
        rules.is_none_or(|rules| rules.on_request(&request).is_continue())
    }

    #[test]
    fn deny_wins_over_allow() {
        assert!(allowed(&["10.0.0.0/8"], &["10.6.6.0/24"], "10.1.1.1"));
        assert!(!allowed(&["10.0.0.0/8"], &["10.6.6.0/24"], "10.6.6.1"));
        assert!(!allowed(&["10.0.0.0/8"], &[], "192.0.2.1"));
    }

    #[test]
    fn an_empty_allow_is_everybody() {
        assert!(allowed(&[], &["10.6.6.0/24"], "192.0.2.1"));
        assert!(allowed(&[], &[], "::1"));
    }
}
