//! Refusals as RFC 6750 section 3 writes them.
//!
//! They never say which key, claim or rule was missed: that is for the log of the operator, not for whoever is trying.

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;

use crate::http::{Reason, Reply};

const REALM: &str = "Bearer realm=\"tollgate\"";

/// The challenges of one route.
#[derive(Debug)]
pub(super) struct Challenges {
    /// The only one that depends on the route
    insufficient: HeaderValue,
}

impl Challenges {
    /// `scope` is what would be enough, empty when no scope would help.
    pub(super) fn new(scope: &str) -> Self {
        let scope = if scope.is_empty() { String::new() } else { format!(", scope=\"{scope}\"") };
        let insufficient = format!("{REALM}, error=\"insufficient_scope\"{scope}");
        let insufficient = HeaderValue::from_str(&insufficient).expect("scopes are visible ASCII");
        Self { insufficient }
    }

    /// What a request that is refused for this reason is answered with.
    pub(super) fn reply(&self, reason: Reason) -> Reply {
        let (detail, challenge) = match reason {
            Reason::NoCredentials => {
                ("This needs a Bearer token.", Some(HeaderValue::from_static("Bearer realm=\"tollgate\"")))
            }
            Reason::MultipleCredentials => (
                "The request carries more than one token.",
                Some(HeaderValue::from_static(
                    "Bearer realm=\"tollgate\", error=\"invalid_request\", \
                     error_description=\"The request carries more than one token\"",
                )),
            ),
            Reason::TokenExpired => (
                "The token has expired.",
                Some(HeaderValue::from_static(
                    "Bearer realm=\"tollgate\", error=\"invalid_token\", error_description=\"The token has expired\"",
                )),
            ),
            Reason::InsufficientScope => ("The token does not allow this.", Some(self.insufficient.clone())),
            // Not the caller's fault, so nothing the caller could present instead.
            Reason::AuthUnavailable => ("The keys that verify tokens are not available yet. Try again later.", None),
            _ => (
                "The token is not valid here.",
                Some(HeaderValue::from_static(
                    "Bearer realm=\"tollgate\", error=\"invalid_token\", \
                     error_description=\"The token is not valid here\"",
                )),
            ),
        };
        let reply = Reply::problem(reason, detail);
        match challenge {
            Some(challenge) => reply.header(WWW_AUTHENTICATE, challenge),
            None => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scope: &str, reason: Reason) -> (u16, Option<String>) {
        let reply = Challenges::new(scope).reply(reason);
        assert_eq!(reply.reason, reason);
        let challenge = reply.headers.iter().find(|(name, _)| *name == WWW_AUTHENTICATE);
        (reply.status.as_u16(), challenge.map(|(_, value)| value.to_str().expect("ASCII").to_owned()))
    }

    #[test]
    fn each_refusal_has_its_exact_challenge() {
        for (reason, status, expected) in [
            (Reason::NoCredentials, 401, Some(r#"Bearer realm="tollgate""#)),
            (
                Reason::InvalidToken,
                401,
                Some(
                    r#"Bearer realm="tollgate", error="invalid_token", error_description="The token is not valid here""#,
                ),
            ),
            (
                Reason::TokenExpired,
                401,
                Some(r#"Bearer realm="tollgate", error="invalid_token", error_description="The token has expired""#),
            ),
            (
                Reason::MultipleCredentials,
                400,
                Some(
                    r#"Bearer realm="tollgate", error="invalid_request", error_description="The request carries more than one token""#,
                ),
            ),
            (
                Reason::InsufficientScope,
                403,
                Some(r#"Bearer realm="tollgate", error="insufficient_scope", scope="a b""#),
            ),
            (Reason::AuthUnavailable, 503, None),
        ] {
            assert_eq!(challenge("a b", reason), (status, expected.map(str::to_owned)));
        }
    }

    #[test]
    fn where_no_scope_would_help_none_is_named() {
        let expected = r#"Bearer realm="tollgate", error="insufficient_scope""#;
        assert_eq!(challenge("", Reason::InsufficientScope), (403, Some(expected.to_owned())));
    }
}
