//! Text with variables, filled in so that no client can break out of the place it stands in.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Facts;
use crate::config::{Selector, Template, TemplatePart};

/// What the path of the request names: parameter and value, as the router found them.
pub type Parameters<'a> = &'a [(&'a str, &'a str)];

/// Everything but unreserved characters (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path or a reference to one: values from outside the path are percent-encoded
    Path,
    /// A header's value: as it is
    Header,
}

/// Fills in `template`. What the request does not have is empty.
pub(super) fn render(template: &Template, facts: &Facts<'_>, parameters: Parameters<'_>, place: Place) -> String {
    let mut text = String::new();
    for part in &template.0 {
        match part {
            TemplatePart::Text(part) => text.push_str(part),
            // These three are in their canonical, escaped form already.
            TemplatePart::Path => text.push_str(facts.request.path),
            TemplatePart::Query => text.push_str(facts.request.query.unwrap_or("")),
            TemplatePart::Parameter(name) => {
                let value = parameters.iter().find(|(parameter, _)| parameter == name);
                text.push_str(value.map_or("", |(_, value)| value));
            }
            TemplatePart::Host => outside(&mut text, facts.request.host, place),
            TemplatePart::Method => outside(&mut text, facts.request.method.as_str(), place),
            TemplatePart::Claim(claim) => {
                let value = facts.identity.and_then(|identity| identity.claim_text(claim));
                outside(&mut text, value.as_deref().unwrap_or(""), place);
            }
            TemplatePart::ClientCertificate(fact) => {
                let value = facts.request.client_certificate.and_then(|certificate| certificate.text(*fact));
                outside(&mut text, value.unwrap_or(""), place);
            }
            TemplatePart::Header(name) => {
                let value = facts.read(&Selector::Header(name.clone()));
                outside(&mut text, value.as_deref().unwrap_or(""), place);
            }
        }
    }
    text
}

fn outside(text: &mut String, value: &str, place: Place) {
    match place {
        Place::Path => text.extend(utf8_percent_encode(value, ESCAPED)),
        Place::Header => text.push_str(value),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;
    use crate::http::Request;

    #[test]
    fn values_are_escaped_in_a_path_and_not_in_a_header() {
        let name = HeaderName::from_static("x-tenant");
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("../a?b"))]);
        let request = Request {
            method: &Method::GET,
            host: "h",
            path: "/p",
            query: Some("q=1"),
            headers: &headers,
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "r",
            scheme: "http",
            id: "",
        };
        let facts = Facts { request: &request, identity: None };
        let template = Template(vec![
            TemplatePart::Text("/t/".into()),
            TemplatePart::Header(name),
            TemplatePart::Path,
            TemplatePart::Parameter("id".into()),
            TemplatePart::Parameter("none".into()),
        ]);
        let parameters = [("id", "7")];
        assert_eq!(render(&template, &facts, &parameters, Place::Path), "/t/..%2Fa%3Fb/p7");
        assert_eq!(render(&template, &facts, &parameters, Place::Header), "/t/../a?b/p7");
    }
}
