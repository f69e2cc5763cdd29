//! A route that sends elsewhere (RFC 9110 section 15.4).

use http::HeaderValue;
use http::header::LOCATION;

use super::template::{self, Place};
use super::{Facts, Parameters};
use crate::config;
use crate::http::{Reason, Reply};

/// Where to, and how.
#[derive(Debug)]
pub struct Redirect(config::Redirect);

impl Redirect {
    /// The reader has made sure that nothing the client sends can choose the authority.
    pub fn build(spec: &config::Redirect) -> Self {
        Self(spec.clone())
    }

    /// The redirect for this request.
    pub fn reply(&self, facts: &Facts<'_>, parameters: Parameters<'_>) -> Reply {
        let target = template::render(&self.0.to, facts, parameters, Place::Path);
        // `{path}?{query}` without a query would end in a question mark.
        let target = target.strip_suffix('?').unwrap_or(&target);
        match HeaderValue::from_str(target) {
            Ok(location) => {
                let empty = HeaderValue::from_static("text/plain; charset=utf-8");
                Reply::content(Reason::Redirected, self.0.status, empty, "").header(LOCATION, location)
            }
            Err(_) => Reply::problem(Reason::BadPath, "The request has no place in this redirect."),
        }
    }
}
