//! Header rules of a route: what is removed, then what is set.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::template::{self, Place};
use super::{Facts, Parameters};
use crate::config::{self, Template, TemplatePart};

/// Compiled rules; shared with the requests they apply to.
#[derive(Clone, Debug)]
pub struct HeaderRules(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    remove: Vec<HeaderName>,
    fixed: Vec<(HeaderName, HeaderValue)>,
    templates: Vec<(HeaderName, Template)>,
}

/// Rules with their values filled in for one request. Costs nothing where there are no rules.
#[derive(Debug, Default)]
pub struct Rendered {
    rules: Option<Arc<Rules>>,
    values: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    /// Values without variables are made now, and once.
    pub fn build(spec: &config::HeaderRules) -> Self {
        if *spec == config::HeaderRules::default() {
            return Self(None);
        }
        let mut rules = Rules { remove: spec.remove.clone(), fixed: Vec::new(), templates: Vec::new() };
        for (name, template) in &spec.set {
            match fixed(template) {
                Some(value) => rules.fixed.push((name.clone(), value)),
                None => rules.templates.push((name.clone(), template.clone())),
            }
        }
        Self(Some(Arc::new(rules)))
    }

    /// Fills in the variables.
    pub fn render(&self, facts: &Facts<'_>, parameters: Parameters<'_>) -> Rendered {
        let Some(rules) = &self.0 else {
            return Rendered::default();
        };
        let values = rules.templates.iter().filter_map(|(name, template)| {
            let text = template::render(template, facts, parameters, Place::Header);
            // A value that cannot stand in a header is left out, and what it would replace with it.
            HeaderValue::from_str(&text).ok().map(|value| (name.clone(), value))
        });
        Rendered { values: values.collect(), rules: Some(Arc::clone(rules)) }
    }
}

impl Rendered {
    /// Carries the rules out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.remove(headers);
        let fixed = self.rules.iter().flat_map(|rules| &rules.fixed);
        for (name, value) in fixed.chain(&self.values) {
            headers.insert(name, value.clone());
        }
    }

    /// Carries out only what takes away.
    pub fn remove(&self, headers: &mut HeaderMap) {
        let Some(rules) = &self.rules else {
            return;
        };
        for name in rules.remove.iter().chain(rules.templates.iter().map(|(name, _)| name)) {
            headers.remove(name);
        }
    }
}

fn fixed(template: &Template) -> Option<HeaderValue> {
    let mut text = String::new();
    for part in &template.0 {
        let TemplatePart::Text(part) = part else {
            return None;
        };
        text.push_str(part);
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::Method;

    use super::*;
    use crate::http::Request;

    #[test]
    fn rules_remove_then_set_and_leave_out_what_is_no_value() {
        let text = |text: &str| Template(vec![TemplatePart::Text(text.into())]);
        let spec = config::HeaderRules {
            set: vec![
                (HeaderName::from_static("x-fixed"), text("a")),
                (HeaderName::from_static("x-id"), Template(vec![TemplatePart::Parameter("id".into())])),
                (HeaderName::from_static("x-bad"), Template(vec![TemplatePart::Parameter("bad".into())])),
            ],
            remove: vec![HeaderName::from_static("x-gone")],
        };
        let request = Request {
            method: &Method::GET,
            host: "",
            path: "/",
            query: None,
            headers: &HeaderMap::new(),
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "",
            scheme: "http",
            id: "",
        };
        let mut headers = HeaderMap::new();
        for name in ["x-gone", "x-bad", "x-kept"] {
            headers.insert(name, HeaderValue::from_static("sent"));
        }
        let parameters = [("id", "7"), ("bad", "a\nb")];
        HeaderRules::build(&spec).render(&Facts { request: &request, identity: None }, &parameters).apply(&mut headers);
        let mut seen: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        seen.sort();
        assert_eq!(seen, ["x-fixed=a", "x-id=7", "x-kept=sent"]);
    }
}
