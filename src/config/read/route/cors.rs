//! `cors`.

use std::time::Duration;

use http::{HeaderName, Method, Uri};

use super::condition;
use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::header;
use crate::config::read::node::Node;
use crate::config::read::value;
use crate::config::{Cors, CorsHeaders, CorsOrigins, Pattern};

const MAX_ORIGINS: usize = 1_000;
const MAX_PATTERNS: usize = 100;
const MAX_HEADERS: usize = 100;
const MAX_METHODS: usize = 32;
/// The longest that any browser takes.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// `methods` are those of the route.
pub(super) fn cors(node: &Node<'_>, methods: Option<&[Method]>) -> Option<Cors> {
    let mut table = node.table()?;
    let exact = table.or("origins", Vec::new(), |node| {
        node.some(MAX_ORIGINS, "no page could read anything", |item| item.parse(origin))
    });
    let patterns = table.or("origins_regex", Vec::new(), |node| {
        node.some(MAX_PATTERNS, "leave it out for none", |item| item.parse(pattern))
    });
    let is_any = exact.as_ref().is_some_and(|exact| exact.iter().any(|origin| origin == ANY));
    let credentials = table.or("credentials", false, |node| {
        let credentials = node.boolean()?;
        if credentials && is_any {
            node.problem("with \"*\" any page could act in the name of whoever looks at it: name the origins");
            return None;
        }
        Some(credentials)
    });
    let safelisted = [Method::GET, Method::HEAD, Method::POST];
    let default = methods.filter(|methods| !methods.is_empty()).unwrap_or(&safelisted).to_vec();
    let methods = table.or("methods", default, |node| {
        node.some(MAX_METHODS, "leave it out for those of the route", |item| item.parse(header::method))
    });
    let headers = table.or("headers", CorsHeaders::Listed(Vec::new()), headers);
    let expose = table.or("expose", Vec::new(), |node| node.distinct(MAX_HEADERS, |item| item.parse(header::name)));
    let max_age = table.optional("max_age", |node| value::duration(node, MAX_AGE));
    let private_network = table.or("private_network", false, Node::boolean);
    if !table.has("origins") && !table.has("origins_regex") {
        table.node.problem("\"origins\" is missing: whose pages may read the answers, [\"https://app.example.com\"]");
        return None;
    }
    table.finish(&[]);
    let (exact, patterns) = (exact?, patterns?);
    if is_any && exact.len() + patterns.len() > 1 {
        node.problem("\"*\" is everybody: there is nothing to add to it");
        return None;
    }
    Some(Cors {
        origins: if is_any { CorsOrigins::Any } else { CorsOrigins::Listed { exact, patterns } },
        methods: methods?,
        headers: headers?,
        expose: expose?,
        credentials: credentials?,
        max_age: max_age?,
        private_network: private_network?,
    })
}

const ANY: &str = "*";

/// As browsers write it (RFC 6454 section 6.2): scheme, host and a port that is not the scheme's own, in lower case.
fn origin(text: &str) -> Result<String, Complaint> {
    if text == ANY {
        return Ok(text.to_owned());
    }
    if text == "null" {
        return Err(Complaint::new("\"null\" is what every sandboxed page and local file is: anybody can be that"));
    }
    if text.contains('*') {
        return Err(Complaint::new("a \"*\" stands alone; several origins are told by \"origins_regex\""));
    }
    let bad = || Complaint::new("this is not an origin, https://app.example.com or http://localhost:3000");
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad()) };
    let written = format!("{scheme}://{authority}").to_ascii_lowercase();
    let port = authority.port_u16().map_or(String::new(), |port| format!(":{port}"));
    let is_whole = authority.as_str() == format!("{}{port}", authority.host());
    if !is_whole || text.to_ascii_lowercase().trim_end_matches('/') != written {
        return Err(bad());
    }
    let own = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let expected = written.strip_suffix(own).unwrap_or(&written);
    if text == expected {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(format!("browsers never write it so: {expected}")))
}

/// Of the whole origin: a pattern that forgets an end would let in whoever owns the rest.
fn pattern(text: &str) -> Result<Pattern, Complaint> {
    condition::regex(text)?;
    condition::regex(&format!("^(?:{text})$"))
}

fn headers(node: &Node<'_>) -> Option<CorsHeaders> {
    let names = node.distinct(MAX_HEADERS, |item| {
        item.parse(|text| if text == ANY { Ok(None) } else { header::name(text).map(Some) })
    })?;
    if !names.contains(&None) {
        return Some(CorsHeaders::Listed(names.into_iter().flatten().collect::<Vec<HeaderName>>()));
    }
    if names.len() > 1 {
        node.problem("\"*\" is every header: there is nothing to add to it");
        return None;
    }
    Some(CorsHeaders::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_do() {
        for text in ["https://app.example.com", "http://localhost:3000", "http://[::1]:80x", "app://bundle", "*"] {
            assert_eq!(origin(text).is_ok(), !text.contains("80x"), "{text}");
        }
        for (text, hint) in [
            ("https://App.example.com", "https://app.example.com"),
            ("https://app.example.com/", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
        ] {
            assert!(origin(text).map(drop).expect_err(text).message.contains(hint), "{text}");
        }
        for text in ["", "app.example.com", "https://", "https://a/b", "https://u@a", "null", "https://*.a", "//a"] {
            origin(text).map(drop).expect_err(text);
        }
    }

    #[test]
    fn a_pattern_is_of_the_whole_origin() {
        let alternatives = pattern("https://a|https://b").map(|pattern| pattern.0).expect("a pattern");
        assert!(alternatives.is_match("https://a") && alternatives.is_match("https://b"));
        assert!(!alternatives.is_match("https://a.evil.test") && !alternatives.is_match("https://evil.test/https://b"));
        pattern("(").map(drop).expect_err("not closed");
    }
}
