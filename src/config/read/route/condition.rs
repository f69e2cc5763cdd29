//! Which requests a route takes.

use http::{HeaderName, Method};
use regex::RegexBuilder;

use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::{address, header, path};
use crate::config::read::node::Node;
use crate::config::read::section::Named;
use crate::config::read::table::Table;
use crate::config::{EncodedSlash, HostPattern, Name, PathPattern, Pattern, RoutePath, Segment};

const MAX_HOSTS: usize = 1000;
const MAX_LISTENERS: usize = 64;
const MAX_METHODS: usize = 32;
const MAX_CONDITIONS: usize = 32;
/// Longest name or value of a query condition.
const MAX_TEXT: usize = 1024;
/// What a compiled regular expression may take of memory.
const MAX_REGEX: usize = 1 << 20;
const MAX_PRIORITY: i64 = 1_000_000;

pub(super) fn hosts(table: &mut Table<'_>) -> Option<Vec<HostPattern>> {
    table.or("hosts", Vec::new(), |node| {
        node.some(MAX_HOSTS, "leave it out for any", |item| item.parse(address::host_pattern))
    })
}

pub(super) fn listeners(table: &mut Table<'_>, listeners: &Named<'_>) -> Option<Vec<Name>> {
    table.or("listeners", Vec::new(), |node| {
        node.some(MAX_LISTENERS, "leave it out for all", |item| listeners.refer(item))
    })
}

/// `path` or `path_regex`.
pub(super) fn path(table: &mut Table<'_>, slash: EncodedSlash) -> Option<RoutePath> {
    let priority = table.get("priority");
    let choice = table.one_of(&["path", "path_regex"]);
    if let Some(("path_regex", node)) = choice {
        let bounds = -MAX_PRIORITY..=MAX_PRIORITY;
        let priority = priority.map_or(Some(0), |node| node.integer(bounds));
        return Some(RoutePath::Regex { pattern: node.parse(regex)?, priority: priority? });
    }
    if let Some(priority) = priority {
        priority.problem_of_key("a priority orders regular expressions: of paths the most specific wins");
    }
    match choice {
        Some((_, node)) => node.parse(|text| path::pattern(text, slash)).map(RoutePath::Path),
        None => Some(RoutePath::Path(PathPattern { segments: Vec::new(), below: true })),
    }
}

pub(super) fn regex(text: &str) -> Result<Pattern, Complaint> {
    let regex = RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    regex.map(Pattern).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => Complaint::new("this regular expression is too large"),
        // The library draws the pattern; what it says of it is the last line.
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or("").trim_start_matches("error: ");
            Complaint::new(format!("this is not a regular expression: {reason}"))
        }
    })
}

/// Names that templates may use.
pub(super) fn parameters(path: Option<&RoutePath>) -> Vec<&str> {
    let Some(RoutePath::Path(pattern)) = path else {
        return Vec::new();
    };
    let names = pattern.segments.iter().filter_map(|segment| match segment {
        Segment::Parameter(name) => Some(name.as_str()),
        Segment::Literal(_) => None,
    });
    names.collect()
}

/// What is served for GET is served for HEAD (RFC 9110 section 9.3.2).
pub(super) fn methods(table: &mut Table<'_>) -> Option<Vec<Method>> {
    let mut methods = table.or("methods", Vec::new(), |node| {
        node.some(MAX_METHODS, "leave it out for any", |item| item.parse(header::method))
    })?;
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    Some(methods)
}

pub(super) fn match_headers(table: &mut Table<'_>, identity: &[HeaderName]) -> Option<Vec<(HeaderName, String)>> {
    conditions(table, "match_headers", |key, node| {
        let name = node.parse_key(key, header::name);
        let value = node.parse(|text| header::value(text).map(|_| text.to_owned()));
        let (name, value) = (name?, value?);
        if name == http::header::HOST {
            node.problem_of_key("the host is matched with \"hosts\"");
            return None;
        }
        if header::is_among(&name, identity) {
            node.problem_of_key("this header carries an identity: what a client sends in it is removed");
            return None;
        }
        Some((name, value))
    })
}

pub(super) fn match_query(table: &mut Table<'_>) -> Option<Vec<(String, String)>> {
    conditions(table, "match_query", |key, node| {
        let value = node.parse(|text| match text.len() {
            ..=MAX_TEXT => Ok(text.to_owned()),
            _ => Err(Complaint::new(format!("this is longer than {MAX_TEXT} bytes"))),
        })?;
        if key.is_empty() || key.len() > MAX_TEXT {
            node.problem_of_key(format!("a parameter's name has from 1 to {MAX_TEXT} bytes"));
            return None;
        }
        Some((key.to_owned(), value))
    })
}

/// `{ name = "value" }`, each name once.
fn conditions<N: PartialEq>(
    table: &mut Table<'_>,
    key: &'static str,
    read: impl Fn(&str, &Node<'_>) -> Option<(N, String)>,
) -> Option<Vec<(N, String)>> {
    let Some(node) = table.get(key) else {
        return Some(Vec::new());
    };
    let mut conditions: Vec<(N, String)> = Vec::new();
    let mut complete = true;
    for (name, node) in node.table()?.entries() {
        match read(name, &node) {
            Some((name, _)) if conditions.iter().any(|(other, _)| *other == name) => {
                node.problem_of_key("this is written already");
                complete = false;
            }
            Some(condition) => conditions.push(condition),
            None => complete = false,
        }
    }
    if conditions.len() > MAX_CONDITIONS {
        node.problem(format!("a route has {MAX_CONDITIONS} of these at most"));
    }
    complete.then_some(conditions)
}
