//! Refusals as RFC 6750 section 3 writes them, and RFC 9110 section 11.6.1 where several ways of knowing would do.
//!
//! They never say which key, claim or rule was missed: that is for the log of the operator, not for whoever is trying.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::forward::Denial;
use crate::http::{Reason, Reply};

/// How a way of knowing is asked for, by the name of its authentication scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 6750
    Bearer,
    /// RFC 7617
    Basic,
    /// Registered nowhere, but a refusal must name what it misses
    ClientCertificate,
    /// Registered nowhere either
    ApiKey,
    /// Registered nowhere: what a service wants that decides, it alone can say
    Forward,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
            Self::ClientCertificate => "ClientCertificate",
            Self::ApiKey => "ApiKey",
            Self::Forward => "Forward",
        }
    }

    /// What it asks for, in a sentence.
    fn needs(self) -> &'static str {
        match self {
            Self::Bearer => "a Bearer token",
            Self::Basic => "a user name and a password",
            Self::ClientCertificate => "a client certificate",
            Self::ApiKey => "an API key",
            Self::Forward => "whatever the service that decides accepts",
        }
    }
}

/// What one way of knowing of a route is asked for with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks<'a> {
    pub(super) scheme: Scheme,
    /// What it is for, if that was chosen; visible ASCII without quotes
    pub(super) realm: Option<&'a str>,
    /// Where a client finds out whom to ask for a token (RFC 9728 section 5.1)
    pub(super) resource_metadata: Option<&'a str>,
}

/// The challenges of one route.
#[derive(Debug)]
pub(super) struct Challenges {
    /// In the order of the route
    members: Vec<Member>,
    /// What a request without anything is told
    missing: Cow<'static, str>,
}

#[derive(Debug)]
struct Member {
    scheme: Scheme,
    plain: HeaderValue,
    /// An earlier member asks for the same in the same words
    repeated: bool,
    /// `None` where the scheme has no errors
    errors: Option<Errors>,
}

#[derive(Debug)]
struct Errors {
    invalid: HeaderValue,
    expired: HeaderValue,
    several: HeaderValue,
    insufficient: HeaderValue,
}

const INVALID: &str = "The token is not valid here";
const EXPIRED: &str = "The token has expired";
const SEVERAL: &str = "The request carries more than one token";

impl Challenges {
    /// `scope` is what would be enough, empty when no scope would help.
    pub(super) fn new<'a>(asks: impl Iterator<Item = Asks<'a>>, scope: &str) -> Self {
        let mut members: Vec<Member> = Vec::new();
        let mut needs: Vec<&str> = Vec::new();
        for asks in asks {
            let member = Member::new(asks, scope);
            if !needs.contains(&asks.scheme.needs()) {
                needs.push(asks.scheme.needs());
            }
            let repeated = members.iter().any(|earlier| earlier.plain == member.plain);
            members.push(Member { repeated, ..member });
        }
        Self { members, missing: format!("This needs {}.", needs.join(" or ")).into() }
    }

    /// What a request that this member has refused for this reason is answered with.
    pub(super) fn reply(&self, reason: Reason, member: usize) -> Reply {
        let errors = self.members.get(member).and_then(|member| member.errors.as_ref());
        let reply = |detail: Cow<'static, str>| Reply::problem(reason, detail);
        match reason {
            Reason::NoCredentials => self.challenged(reply(self.missing.clone()), member, None),
            Reason::MultipleCredentials => {
                // It is not of one member alone.
                let errors = self.members.iter().find_map(|member| member.errors.as_ref());
                with(
                    reply("The request carries more than one token or key.".into()),
                    errors.map(|errors| &errors.several),
                )
            }
            Reason::TokenExpired => {
                self.challenged(reply("The token has expired.".into()), member, errors.map(|errors| &errors.expired))
            }
            Reason::InsufficientScope => {
                with(reply("The caller may not do this.".into()), errors.map(|errors| &errors.insufficient))
            }
            // Not the caller's fault, so nothing the caller could present instead.
            Reason::AuthUnavailable => reply("Callers cannot be verified at the moment. Try again later.".into()),
            Reason::CredentialsExpired => self.challenged(reply("The credentials have expired.".into()), member, None),
            Reason::InvalidCredentials => {
                self.challenged(reply("The credentials are not valid here.".into()), member, None)
            }
            _ => self.challenged(
                reply("The token is not valid here.".into()),
                member,
                errors.map(|errors| &errors.invalid),
            ),
        }
    }

    /// What a request is answered with that the service behind this member has refused: in its own words, and with a
    /// challenge where a 401 must have one (RFC 9110 section 15.5.2).
    pub(super) fn denied(&self, denial: Denial, member: usize) -> Reply {
        let Denial { status, mut headers, body } = denial;
        let content_type = headers.iter().position(|(name, _)| *name == CONTENT_TYPE).map(|at| headers.remove(at).1);
        let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let reply = Reply { headers, ..Reply::content(Reason::AuthDenied, status, content_type, body) };
        if status != StatusCode::UNAUTHORIZED {
            return reply;
        }
        match reply.headers.iter().position(|(name, _)| *name == WWW_AUTHENTICATE) {
            Some(_) => self.others(reply, member),
            None => self.challenged(reply, member, None),
        }
    }

    /// With what this member says of its error, or else asks for, and what the others ask for.
    fn challenged(&self, reply: Reply, member: usize, error: Option<&HeaderValue>) -> Reply {
        let own = error.or_else(|| self.members.get(member).map(|member| &member.plain));
        self.others(with(reply, own), member)
    }

    fn others(&self, reply: Reply, member: usize) -> Reply {
        let scheme = self.members.get(member).map(|member| member.scheme);
        let others = self.members.iter().filter(|other| !other.repeated && Some(other.scheme) != scheme);
        others.fold(reply, |reply, other| with(reply, Some(&other.plain)))
    }
}

impl Member {
    fn new(asks: Asks<'_>, scope: &str) -> Self {
        let metadata = match asks.resource_metadata {
            Some(url) => format!(", resource_metadata=\"{url}\""),
            None => String::new(),
        };
        let realm = asks.realm.unwrap_or("tollgate");
        let value = |parameters: &str| {
            let text = format!("{} realm=\"{realm}\"{parameters}{metadata}", asks.scheme.name());
            HeaderValue::from_str(&text).expect("scopes and addresses are visible ASCII")
        };
        let error =
            |code: &str, description: &str| value(&format!(", error=\"{code}\", error_description=\"{description}\""));
        let scope = if scope.is_empty() { String::new() } else { format!(", scope=\"{scope}\"") };
        let errors = || Errors {
            invalid: error("invalid_token", INVALID),
            expired: error("invalid_token", EXPIRED),
            several: error("invalid_request", SEVERAL),
            insufficient: value(&format!(", error=\"insufficient_scope\"{scope}")),
        };
        Self {
            scheme: asks.scheme,
            // Said where a browser would otherwise send what is not ASCII in an encoding of its own.
            plain: value(if asks.scheme == Scheme::Basic { ", charset=\"UTF-8\"" } else { "" }),
            repeated: false,
            errors: (asks.scheme == Scheme::Bearer).then(errors),
        }
    }
}

fn with(reply: Reply, challenge: Option<&HeaderValue>) -> Reply {
    match challenge {
        Some(challenge) => reply.header(WWW_AUTHENTICATE, challenge.clone()),
        None => reply,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn bearer(resource_metadata: Option<&str>) -> Asks<'_> {
        Asks { scheme: Scheme::Bearer, realm: None, resource_metadata }
    }

    const CERTIFICATE: Asks<'static> = Asks { scheme: Scheme::ClientCertificate, realm: None, resource_metadata: None };
    const BASIC: Asks<'static> = Asks { scheme: Scheme::Basic, realm: Some("a shop"), resource_metadata: None };

    fn challenges(asks: &[Asks<'_>], scope: &str, reason: Reason, member: usize) -> (u16, Vec<String>) {
        let reply = Challenges::new(asks.iter().copied(), scope).reply(reason, member);
        assert_eq!(reply.reason, reason);
        let challenges = reply.headers.iter().filter(|(name, _)| *name == WWW_AUTHENTICATE);
        (reply.status.as_u16(), challenges.map(|(_, value)| value.to_str().expect("ASCII").to_owned()).collect())
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
            let expected = expected.map(str::to_owned).into_iter().collect();
            assert_eq!(challenges(&[bearer(None)], "a b", reason, 0), (status, expected));
        }
    }

    #[test]
    fn where_no_scope_would_help_none_is_named() {
        let expected = r#"Bearer realm="tollgate", error="insufficient_scope""#;
        assert_eq!(challenges(&[bearer(None)], "", Reason::InsufficientScope, 0), (403, vec![expected.to_owned()]));
    }

    #[test]
    fn every_challenge_of_a_token_says_where_to_find_out_more() {
        let asks = [bearer(Some("https://api.example/.well-known/oauth-protected-resource"))];
        for reason in [Reason::NoCredentials, Reason::InvalidToken, Reason::TokenExpired, Reason::InsufficientScope] {
            let (_, challenges) = challenges(&asks, "", reason, 0);
            let expected = r#", resource_metadata="https://api.example/.well-known/oauth-protected-resource""#;
            assert!(challenges[0].ends_with(expected), "{challenges:?}");
        }
    }

    #[test]
    fn all_ways_are_asked_for_once_and_the_one_that_refused_comes_first() {
        let asks = [bearer(None), bearer(None), CERTIFICATE];
        let (plain, certificate) = (r#"Bearer realm="tollgate""#, r#"ClientCertificate realm="tollgate""#);
        assert_eq!(challenges(&asks, "", Reason::NoCredentials, 0).1, [plain, certificate]);
        assert_eq!(challenges(&asks, "", Reason::InvalidCredentials, 2).1, [certificate, plain]);
        let (_, refused) = challenges(&asks, "", Reason::InvalidToken, 1);
        assert!(refused.len() == 2 && refused[0].contains("invalid_token") && refused[1] == certificate, "{refused:?}");
        assert_eq!(challenges(&asks, "", Reason::InsufficientScope, 2), (403, Vec::new()));
    }

    #[test]
    fn a_password_is_asked_for_with_its_realm_and_in_utf_8() {
        let basic = r#"Basic realm="a shop", charset="UTF-8""#;
        for reason in [Reason::NoCredentials, Reason::InvalidCredentials] {
            assert_eq!(challenges(&[BASIC], "", reason, 0), (401, vec![basic.to_owned()]));
        }
        assert_eq!(challenges(&[BASIC], "a", Reason::InsufficientScope, 0), (403, Vec::new()));
        assert_eq!(challenges(&[BASIC], "", Reason::AuthUnavailable, 0), (503, Vec::new()));
    }

    #[test]
    fn a_service_speaks_for_itself_and_a_401_has_a_challenge_whatever_it_says() {
        let asks = [bearer(None), Asks { scheme: Scheme::Forward, realm: None, resource_metadata: None }];
        let told = |status, headers: &[(HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let denial = Denial { status, headers: headers.collect(), body: "no".into() };
            let (headers, body) = Challenges::new(asks.into_iter(), "").denied(denial, 1).render("id");
            assert_eq!((&headers[CONTENT_TYPE] == "text/html", &*body), (headers.len() > 3, &b"no"[..]));
            headers
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .map(|value| value.to_str().expect("ASCII").to_owned())
                .collect::<Vec<_>>()
        };
        let (own, ours, bearer) = ("Basic realm=\"x\"", "Forward realm=\"tollgate\"", "Bearer realm=\"tollgate\"");
        let html = (CONTENT_TYPE, "text/html");
        assert_eq!(told(StatusCode::UNAUTHORIZED, &[(WWW_AUTHENTICATE, own), html.clone()]), [own, bearer]);
        assert_eq!(told(StatusCode::UNAUTHORIZED, &[html]), [ours, bearer]);
        assert_eq!(told(StatusCode::FORBIDDEN, &[]), Vec::<String>::new());
    }
}
