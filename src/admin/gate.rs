//! Who may see what. Pure: a request's head in, a page or a refusal out.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Method, Version};
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::http::Host;

/// Which of the two addresses a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// `[admin] address`: everything
    Main,
    /// `[admin] health_address`: probes and scrapes alone, without a token
    Health,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// `/healthz`
    Healthz,
    /// `/readyz`
    Readyz,
    /// `/metrics`
    Metrics,
    /// `/`; `/?live` loads itself again
    Status { live: bool },
    /// `/api/status`
    Report,
    /// `/api/limits`
    Limits,
    /// `/api/upstreams`: that part of it alone
    Upstreams,
}

/// Why a request gets none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not a request to an origin, or not clear to which
    BadRequest,
    /// A Host that a page from elsewhere could have made a browser send
    Misdirected,
    /// Anything but reading
    MethodNotAllowed,
    /// No token, or another
    Unauthorized,
    /// No such page at this door
    NotFound,
}

/// Top-level names that public DNS does not have: a page from elsewhere cannot have such a name.
const PRIVATE_DOMAINS: [&str; 6] = [".localhost", ".local", ".internal", ".home.arpa", ".svc", ".cluster.local"];

/// Decides. `token` is that of the configuration.
pub(super) fn admit(door: Door, token: Option<&Secret>, head: &Parts) -> Result<Page, Refusal> {
    check_host(door, head)?;
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(Refusal::MethodNotAllowed);
    }
    let page = page(door, head);
    let is_probe = matches!(page, Some(Page::Healthz | Page::Readyz));
    // Before saying that a page does not exist: without the token nothing is learnt, not even that.
    match token {
        Some(token) if door == Door::Main && !is_probe && !carries(head, token) => Err(Refusal::Unauthorized),
        _ => page.ok_or(Refusal::NotFound),
    }
}

fn page(door: Door, head: &Parts) -> Option<Page> {
    match (head.uri.path(), door) {
        ("/healthz", _) => Some(Page::Healthz),
        ("/readyz", _) => Some(Page::Readyz),
        ("/metrics", _) => Some(Page::Metrics),
        ("/", Door::Main) => Some(Page::Status { live: head.uri.query() == Some("live") }),
        ("/api/status", Door::Main) => Some(Page::Report),
        ("/api/limits", Door::Main) => Some(Page::Limits),
        ("/api/upstreams", Door::Main) => Some(Page::Upstreams),
        _ => None,
    }
}

/// A page from elsewhere can make a browser ask us under its own name, by letting that name point here (DNS
/// rebinding), and then read the answer. So a name is served only if nobody else can own it.
fn check_host(door: Door, head: &Parts) -> Result<(), Refusal> {
    if head.uri.authority().is_some() {
        return Err(Refusal::BadRequest);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| Refusal::BadRequest)?,
        // Probes speak HTTP/1.0 without a Host at times; browsers never do.
        (None, None) if head.version == Version::HTTP_10 => return Ok(()),
        _ => return Err(Refusal::BadRequest),
    };
    let host = Host::parse(host).map_err(|_| Refusal::BadRequest)?.name;
    let is_ours = host.parse::<IpAddr>().is_ok() || host == "localhost" || door == Door::Health && is_private(&host);
    if is_ours { Ok(()) } else { Err(Refusal::Misdirected) }
}

/// Names by which orchestrators and scrapers call: `tollgate`, `tollgate.monitoring.svc`.
fn is_private(host: &str) -> bool {
    !host.contains('.') || PRIVATE_DOMAINS.iter().any(|domain| host.ends_with(domain))
}

/// `Authorization: Bearer TOKEN` (RFC 6750 section 2.1), once.
fn carries(head: &Parts, token: &Secret) -> bool {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, sent)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    let sent = sent.trim_ascii();
    // An empty token is no token: it must not open what it was meant to guard.
    scheme.eq_ignore_ascii_case(b"Bearer ") && !sent.is_empty() && sent.ct_eq(token.expose()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a valid head").into_parts().0
    }

    fn by_host(door: Door, host: &str) -> Result<Page, Refusal> {
        admit(door, None, &head("GET", "/metrics", &[("host", host)]))
    }

    fn by_token(target: &str, authorization: &[&str]) -> Result<Page, Refusal> {
        let mut headers = vec![("host", "127.0.0.1:9900")];
        headers.extend(authorization.iter().map(|value| ("authorization", *value)));
        admit(Door::Main, Some(&Secret::new(*b"open sesame")), &head("GET", target, &headers))
    }

    #[test]
    fn a_name_that_somebody_else_may_own_is_not_served() {
        for door in [Door::Main, Door::Health] {
            for host in ["127.0.0.1:9900", "[::1]:9900", "10.1.2.3", "localhost", "LOCALHOST:9900"] {
                assert_eq!(by_host(door, host), Ok(Page::Metrics), "{host}");
            }
            for host in ["evil.example", "localhost.evil.example:9900", "127.0.0.1.evil.example", "notlocal.example"] {
                assert_eq!(by_host(door, host), Err(Refusal::Misdirected), "{host}");
            }
            for host in ["", "a b", "user@localhost", "localhost/", "127.0.0.1,localhost"] {
                assert_eq!(by_host(door, host), Err(Refusal::BadRequest), "{host}");
            }
        }
    }

    #[test]
    fn scrapers_may_call_the_health_address_by_a_name_of_the_cluster() {
        for host in ["tollgate:9901", "tollgate.monitoring.svc", "gw.internal", "a.b.svc.cluster.local:9901"] {
            assert_eq!(by_host(Door::Health, host), Ok(Page::Metrics), "{host}");
            assert_eq!(by_host(Door::Main, host), Err(Refusal::Misdirected), "{host}");
        }
    }

    #[test]
    fn one_host_is_needed_except_by_old_probes() {
        let none = |version| {
            let mut head = head("GET", "/readyz", &[]);
            head.version = version;
            admit(Door::Main, None, &head)
        };
        assert_eq!(none(Version::HTTP_11), Err(Refusal::BadRequest));
        assert_eq!(none(Version::HTTP_10), Ok(Page::Readyz));
        let two = head("GET", "/readyz", &[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(admit(Door::Main, None, &two), Err(Refusal::BadRequest));
        let absolute = head("GET", "http://localhost/readyz", &[("host", "localhost")]);
        assert_eq!(admit(Door::Main, None, &absolute), Err(Refusal::BadRequest));
    }

    #[test]
    fn nothing_can_be_changed_here() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let head = head(method, "/api/status", &[("host", "localhost")]);
            assert_eq!(admit(Door::Main, None, &head), Err(Refusal::MethodNotAllowed), "{method}");
        }
        let head = head("HEAD", "/?live", &[("host", "localhost")]);
        assert_eq!(admit(Door::Main, None, &head), Ok(Page::Status { live: true }));
    }

    #[test]
    fn a_token_guards_everything_but_the_probes() {
        for target in ["/", "/api/status", "/api/upstreams", "/metrics", "/no/such/page"] {
            for authorization in [&[][..], &["Bearer open"], &["Basic open sesame"], &["Bearer"], &["Bearer "]] {
                assert_eq!(by_token(target, authorization), Err(Refusal::Unauthorized), "{target} {authorization:?}");
            }
            let twice = by_token(target, &["Bearer open sesame", "Bearer open sesame"]);
            assert_eq!(twice, Err(Refusal::Unauthorized), "{target}");
        }
        assert_eq!(by_token("/healthz", &[]), Ok(Page::Healthz));
        assert_eq!(by_token("/readyz", &["Bearer wrong"]), Ok(Page::Readyz));
        assert_eq!(by_token("/metrics", &["bearer open sesame"]), Ok(Page::Metrics));
        assert_eq!(by_token("/no/such/page", &["Bearer open sesame"]), Err(Refusal::NotFound));
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let head = head("GET", "/", &[("host", "localhost"), ("authorization", "Bearer ")]);
        assert_eq!(admit(Door::Main, Some(&Secret::new([])), &head), Err(Refusal::Unauthorized));
    }

    #[test]
    fn the_health_address_shows_no_more_than_it_must() {
        let ask =
            |target| admit(Door::Health, Some(&Secret::new(*b"token")), &head("GET", target, &[("host", "localhost")]));
        assert_eq!(ask("/healthz"), Ok(Page::Healthz));
        assert_eq!(ask("/readyz"), Ok(Page::Readyz));
        assert_eq!(ask("/metrics"), Ok(Page::Metrics));
        assert_eq!(ask("/"), Err(Refusal::NotFound));
        assert_eq!(ask("/api/status"), Err(Refusal::NotFound));
        assert_eq!(ask("/api/upstreams"), Err(Refusal::NotFound));
    }

    proptest! {
        #[test]
        fn a_public_name_is_never_served(name in "[a-z]{1,10}(\\.[a-z]{1,10}){0,3}\\.(com|org|example|dev|zip)(:[0-9]{1,4})?") {
            prop_assert_eq!(by_host(Door::Main, &name), Err(Refusal::Misdirected));
            prop_assert_eq!(by_host(Door::Health, &name), Err(Refusal::Misdirected));
        }

        #[test]
        fn only_the_token_opens(sent in "[ -~]{0,24}") {
            prop_assume!(sent.trim() != "open sesame");
            prop_assert_eq!(by_token("/", &[&format!("Bearer {sent}")]), Err(Refusal::Unauthorized));
        }
    }
}
