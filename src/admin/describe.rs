//! Pieces of the configuration, in words close to those an operator wrote.

use std::fmt::Write;
use std::time::Duration;

use crate::config::{
    Action, AuthKind, Balance, CertificateFact, HostPattern, KeySource, LimitKind, Period, Protocol, Rate, RoutePath,
    Segment, Selector, Template, TemplatePart, UpstreamProtocol,
};

pub(super) fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(parent) => format!("*.{parent}"),
    }
}

pub(super) fn path(path: &RoutePath) -> String {
    let pattern = match path {
        RoutePath::Path(pattern) => pattern,
        RoutePath::Regex { pattern, priority } => return format!("~ {} (priority {priority})", pattern.0.as_str()),
    };
    let mut text = String::new();
    for segment in &pattern.segments {
        text.push('/');
        match segment {
            Segment::Literal(literal) => text.push_str(literal),
            Segment::Parameter(name) => text.extend(["{", name, "}"]),
        }
    }
    if pattern.below {
        text.push_str("/*");
    }
    text
}

pub(super) fn selector(selector: &Selector) -> String {
    match selector {
        Selector::ClientAddress => "client.address".into(),
        Selector::AuthSubject => "auth.subject".into(),
        Selector::AuthName => "auth.name".into(),
        Selector::Claim(name) => format!("claim.{name}"),
        Selector::Header(name) => format!("header.{name}"),
        Selector::Cookie(name) => format!("cookie.{name}"),
        Selector::Query(name) => format!("query.{name}"),
        Selector::Host => "host".into(),
        Selector::Method => "method".into(),
        Selector::Route => "route".into(),
        Selector::ClientCertificate(fact) => client_certificate(*fact),
    }
}

fn client_certificate(fact: CertificateFact) -> String {
    let name = CertificateFact::ALL.iter().find(|(_, other)| *other == fact).map_or("", |(name, _)| name);
    format!("tls.client.{name}")
}

/// `100/s`
pub(super) fn rate(rate: Rate) -> String {
    format!("{}/{}", rate.count, period(rate.per))
}

/// `100/s, burst 200`, `100000 each month` or `500 at once`
pub(super) fn allowance(kind: &LimitKind) -> String {
    match kind {
        LimitKind::Rate { rate, burst } => format!("{}, burst {burst}", self::rate(*rate)),
        LimitKind::Quota { count, period } => {
            let name = Period::ALL.iter().find(|(_, one)| one == period).map_or("", |(name, _)| *name);
            format!("{count} each {name}")
        }
        LimitKind::Concurrent(count) => format!("{count} at once"),
    }
}

fn period(per: Duration) -> String {
    match per.as_secs() {
        1 => "s".into(),
        60 => "m".into(),
        3600 => "h".into(),
        _ => format!("{per:?}"),
    }
}

/// What answers a request. A body of our own may be long, or nobody's business: its status says enough.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Upstream(name) => format!("upstream {name}"),
        Action::Redirect(redirect) => format!("redirect {} to {}", redirect.status.as_u16(), template(&redirect.to)),
        Action::Respond(respond) => format!("respond {}", respond.status.as_u16()),
    }
}

fn template(template: &Template) -> String {
    let mut text = String::new();
    for part in &template.0 {
        // Writing to memory does not fail.
        let _ = match part {
            TemplatePart::Text(literal) => write!(text, "{}", literal.replace('{', "{{")),
            TemplatePart::Path => write!(text, "{{path}}"),
            TemplatePart::Query => write!(text, "{{query}}"),
            TemplatePart::Host => write!(text, "{{host}}"),
            TemplatePart::Method => write!(text, "{{method}}"),
            TemplatePart::Parameter(name) => write!(text, "{{{name}}}"),
            TemplatePart::Claim(name) => write!(text, "{{claim.{name}}}"),
            TemplatePart::Header(name) => write!(text, "{{header.{name}}}"),
            TemplatePart::ClientCertificate(fact) => write!(text, "{{{}}}", client_certificate(*fact)),
        };
    }
    text
}

/// The key that was written, never its value: an address may carry a password.
pub(super) fn keys(keys: &KeySource) -> &'static str {
    match keys {
        KeySource::Discovery(_) => "discovery",
        KeySource::JwksUrl(_) => "jwks_url",
        KeySource::JwksFile(_) => "jwks_file",
        KeySource::PublicKey(_) => "public_key_file",
        KeySource::Secret(_) => "secret",
    }
}

pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::Http2 => "h2",
        Protocol::Http2Cleartext => "h2c",
    }
}

pub(super) fn upstream_protocol(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Http1 => "http/1.1",
        UpstreamProtocol::Http2 => "h2",
        UpstreamProtocol::Http2Cleartext => "h2c",
    }
}

pub(super) fn balance(balance: &Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastRequest => "least_request",
        Balance::PeakEwma { .. } => "peak_ewma",
        Balance::Random => "random",
        Balance::ConsistentHash { .. } => "consistent_hash",
    }
}

/// Who is asked, without what a query or a user may hold: an address may carry a password.
pub(super) fn service(kind: &AuthKind) -> Option<String> {
    let url = match kind {
        AuthKind::Introspection(introspection) => &introspection.url,
        AuthKind::Forward(forward) => &forward.url,
        AuthKind::Jwt(_) | AuthKind::ClientCertificate(_) | AuthKind::ApiKey(_) | AuthKind::Basic(_) => return None,
    };
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    Some(format!("{}://{}{port}{}", url.scheme_str()?, url.host()?, url.path()))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Claim;
    use crate::config::{PathPattern, Rate, Redirect};

    fn pattern(segments: &[Segment], below: bool) -> String {
        path(&RoutePath::Path(PathPattern { segments: segments.to_vec(), below }))
    }

    #[test]
    fn paths_read_as_they_were_written() {
        let literal = |text: &str| Segment::Literal(text.into());
        assert_eq!(pattern(&[], true), "/*");
        assert_eq!(pattern(&[literal("")], false), "/");
        assert_eq!(pattern(&[literal("a"), literal("")], false), "/a/");
        let below_orders = [literal("users"), Segment::Parameter("id".into()), literal("orders")];
        assert_eq!(pattern(&below_orders, true), "/users/{id}/orders/*");
    }

    #[test]
    fn allowances_read_as_they_were_written() {
        let count = |count| NonZeroU32::new(count).expect("tests use counts from 1");
        let rate = Rate { count: count(1000), per: Duration::from_secs(60) };
        assert_eq!(allowance(&LimitKind::Rate { rate, burst: count(50) }), "1000/m, burst 50");
        assert_eq!(allowance(&LimitKind::Concurrent(count(500))), "500 at once");
    }

    #[test]
    fn a_pointer_is_escaped_as_it_was() {
        assert_eq!(selector(&Selector::Claim(Claim::Pointer(vec!["a/b".into(), "c~".into()]))), "claim./a~1b/c~0");
    }

    #[test]
    fn a_redirect_shows_where_it_leads() {
        let to = Template(vec![TemplatePart::Text("https://example.com".into()), TemplatePart::Path]);
        let redirect = Redirect { to, status: http::StatusCode::PERMANENT_REDIRECT };
        assert_eq!(action(&Action::Redirect(redirect)), "redirect 308 to https://example.com{path}");
    }
}
