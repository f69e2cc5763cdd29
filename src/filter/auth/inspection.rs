//! What ways of knowing and routes make of a token, for a person. The same code judges as does for requests; only the
//! reason, which a client is never told, is put into words.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Method};

use super::call::{Call, Presented};
use super::{Authenticator, Refused, RouteAuth};
use crate::filter::Identity;
use crate::http::Request;

impl Authenticator {
    /// Whom it takes the bearer of the token for, or why for nobody. Not to be asked of ways that judge no tokens by
    /// themselves: they are `None`.
    pub async fn inspect(&self, token: &str, wall: SystemTime) -> Option<Result<Identity, &'static str>> {
        if !self.judges_tokens() {
            return None;
        }
        let request = Request {
            method: &Method::GET,
            host: "",
            path: "/",
            query: None,
            headers: &HeaderMap::new(),
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "",
            scheme: "https",
            id: "",
        };
        let call = Call { request: &request, presented: Some(Presented::new(token, 0)), wall };
        let verdict = self.ask(&call).await.map_err(|refused| match refused {
            Refused::Missing => "nothing to judge",
            Refused::Invalid(why) => why,
            Refused::UnknownKey { .. } => "it names a key that is not in the set",
            Refused::Expired => "it has expired",
            Refused::Unavailable => "the keys are not here",
            Refused::Denied(_) => "a service has refused it",
        });
        Some(verdict.map(|claims| Identity { auth: Arc::clone(self.name()), claims, carried_by: None }))
    }
}

impl RouteAuth {
    /// What a caller who is known would still need, in words.
    pub fn missing(&self, identity: &Identity) -> Vec<String> {
        self.requirement().missing(identity).map(|missing| missing.to_string()).collect()
    }
}
