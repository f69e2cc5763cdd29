//! The paths of one host, as a tree of segments.

use std::collections::HashMap;

use http::Method;

use super::entry::{Entry, Verdict};
use crate::config::{PathPattern, Pattern, Problem, RoutePath, Segment};
use crate::http::Request;

/// All routes of one host.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
    /// Segments of the longest pattern that takes what is below it
    deepest: usize,
    /// The highest priority first
    regexes: Vec<(i64, Pattern, Entry)>,
}

/// What can follow a prefix of segments.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Routes that end here, the most specific first
    exact: Vec<Entry>,
    /// Routes that take this and all below
    below: Vec<Entry>,
}

/// Which routes of a node are asked, and how deep the node must be.
#[derive(Clone, Copy)]
enum Kind {
    Exact,
    Below { depth: usize },
}

/// One lookup.
struct Search<'r, 'q, 'p> {
    listener: &'q str,
    request: &'q Request<'p>,
    refused: &'q mut Vec<&'r Method>,
    kind: Kind,
    /// Those of the parameters on the way to where the search is
    values: Vec<&'p str>,
}

impl Tree {
    /// Places a route.
    pub(super) fn insert(&mut self, path: &RoutePath, entry: Entry) -> Result<(), Problem> {
        match path {
            RoutePath::Path(pattern) => self.insert_path(pattern, entry),
            RoutePath::Regex { pattern, priority } => self.insert_regex(pattern, *priority, entry),
        }
    }

    fn insert_path(&mut self, pattern: &PathPattern, entry: Entry) -> Result<(), Problem> {
        let mut node = &mut self.root;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Parameter(_) => node.parameter.get_or_insert_with(Box::default),
            };
        }
        if pattern.below {
            self.deepest = self.deepest.max(pattern.segments.len());
        }
        let entries = if pattern.below { &mut node.below } else { &mut node.exact };
        if let Some(other) = entries.iter().find(|other| entry.ties(other)) {
            let message = format!(
                "this path takes the same requests as route \"{}\", and neither is more specific: change one, or give \
                 one a method, header or query condition",
                other.name()
            );
            return Err(Problem::new("path", message));
        }
        entries.push(entry);
        entries.sort_by_key(Entry::rank);
        Ok(())
    }

    fn insert_regex(&mut self, pattern: &Pattern, priority: i64, entry: Entry) -> Result<(), Problem> {
        let tie = self.regexes.iter().find(|(other, _, regex)| *other == priority && entry.ties(regex));
        if let Some((.., other)) = tie {
            let message = format!(
                "route \"{}\" has a regular expression with the same priority ({priority}) for this host: give one of \
                 them another priority",
                other.name()
            );
            return Err(Problem::new("path_regex", message));
        }
        self.regexes.push((priority, pattern.clone(), entry));
        self.regexes.sort_by_key(|(priority, _, entry)| (std::cmp::Reverse(*priority), entry.rank()));
        Ok(())
    }

    /// The most specific route that takes the request, and the values of its path's parameters in their order. Methods
    /// of routes that differ only in that are noted.
    pub(super) fn find<'r, 'p>(
        &'r self,
        listener: &str,
        request: &Request<'p>,
        refused: &mut Vec<&'r Method>,
    ) -> Option<(&'r Entry, Vec<&'p str>)> {
        let path = request.path.strip_prefix('/')?;
        let mut search = Search { listener, request, refused, kind: Kind::Exact, values: Vec::new() };
        let entry = search
            .walk(&self.root, Some(path), 0)
            .or_else(|| {
                // The longest first. Deeper than the path has segments nothing can match, and deeper than the patterns
                // nothing is: a path of slashes costs no more than another.
                (0..=path.split('/').count().min(self.deepest)).rev().find_map(|depth| {
                    search.kind = Kind::Below { depth };
                    search.walk(&self.root, Some(path), 0)
                })
            })
            .or_else(|| {
                let mut matching = self.regexes.iter().filter(|(_, pattern, _)| pattern.0.is_match(request.path));
                matching.find_map(|(.., entry)| search.judge(std::slice::from_ref(entry)))
            })?;
        Some((entry, search.values))
    }
}

impl<'r, 'p> Search<'r, '_, 'p> {
    /// Follows the path down; a literal before a parameter, and back where neither leads to a route.
    ///
    /// A node is reached in one way only, so a lookup visits each at most once.
    fn walk(&mut self, node: &'r Node, rest: Option<&'p str>, depth: usize) -> Option<&'r Entry> {
        match self.kind {
            Kind::Exact if rest.is_none() => return self.judge(&node.exact),
            Kind::Below { depth: wanted } if depth == wanted => return self.judge(&node.below),
            _ => {}
        }
        let (segment, rest) = match rest?.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest?, None),
        };
        if let Some(found) = node.literals.get(segment).and_then(|next| self.walk(next, rest, depth + 1)) {
            return Some(found);
        }
        let next = node.parameter.as_ref().filter(|_| !segment.is_empty())?;
        self.values.push(segment);
        let found = self.walk(next, rest, depth + 1);
        if found.is_none() {
            self.values.pop();
        }
        found
    }

    fn judge(&mut self, entries: &'r [Entry]) -> Option<&'r Entry> {
        entries.iter().find(|entry| match entry.judge(self.listener, self.request) {
            Verdict::Match => true,
            Verdict::OtherMethod => {
                self.refused.extend(entry.methods());
                false
            }
            Verdict::Other => false,
        })
    }
}
