//! The path the upstream is asked for, when it is not the client's.

use std::ops::ControlFlow;

use super::template::{self, Place};
use super::{Facts, Parameters};
use crate::config::{self, EncodedSlash};
use crate::http::{Reason, Reply, canonical};

/// A change of the path.
#[derive(Debug)]
pub struct Rewrite(config::Rewrite);

impl Rewrite {
    /// Keeps what was written.
    pub fn build(spec: &config::Rewrite) -> Self {
        Self(spec.clone())
    }

    /// The new path, in canonical form; the query is not touched.
    pub fn on_request(&self, facts: &Facts<'_>, parameters: Parameters<'_>) -> ControlFlow<Reply, String> {
        let path = match &self.0 {
            config::Rewrite::StripPrefix(prefix) => strip(facts.request.path, prefix).to_owned(),
            config::Rewrite::Replace(template) => template::render(template, facts, parameters, Place::Path),
        };
        // A value such as ".." may have made another path than the one that was meant.
        match canonical(path.as_bytes(), EncodedSlash::Keep) {
            Ok(form) if form.path == path => ControlFlow::Continue(path),
            _ => ControlFlow::Break(Reply::problem(
                Reason::BadPath,
                "The request has no place in the path behind this route.",
            )),
        }
    }
}

/// Whole segments only: what has not the prefix stays as it is.
fn strip<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix.trim_end_matches('/')) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_segments() {
        assert_eq!(strip("/orders/1", "/orders"), "/1");
        assert_eq!(strip("/orders", "/orders"), "/");
        assert_eq!(strip("/orders/", "/orders/"), "/");
        assert_eq!(strip("/ordersx/1", "/orders"), "/ordersx/1");
    }
}
