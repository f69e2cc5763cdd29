//! What a selector can read.

use std::borrow::Cow;

use crate::config::Selector;
use crate::http::{Request, text};

use super::Identity;

/// All that is known of a request at one point of the chain.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the client sent
    pub request: &'a Request<'a>,
    /// Who sent it, once that is known
    pub identity: Option<&'a Identity>,
}

impl<'a> Facts<'a> {
    /// What `selector` reads here, or `None` when the request has no such part.
    pub fn read(&self, selector: &Selector) -> Option<Cow<'a, str>> {
        let request = self.request;
        match selector {
            Selector::ClientAddress => Some(Cow::Owned(request.client.to_string())),
            Selector::AuthSubject => self.identity?.subject().map(Cow::Borrowed),
            Selector::AuthName => self.identity.map(|identity| Cow::Borrowed(&*identity.auth)),
            Selector::Claim(claim) => self.identity?.claim_text(claim),
            Selector::Header(name) => request.headers.get(name).map(|value| text(value.as_bytes())),
            Selector::Cookie(name) => request.cookie(name).map(Cow::Borrowed),
            Selector::Query(name) => request.query_value(name),
            Selector::Host => Some(Cow::Borrowed(request.host)),
            Selector::Method => Some(Cow::Borrowed(request.method.as_str())),
            Selector::ClientCertificate(fact) => request.client_certificate?.text(*fact).map(Cow::Borrowed),
            Selector::Route => Some(Cow::Borrowed(request.route)),
        }
    }
}
