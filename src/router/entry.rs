//! A route at one place of the tree: what it asks for besides host and path.

use std::cmp::Reverse;

use http::{HeaderName, Method};

use crate::config::{self, Name, RoutePath, Segment};
use crate::http::Request;

/// The conditions of a route, and which one it is.
#[derive(Debug)]
pub(super) struct Entry {
    name: Name,
    index: usize,
    listeners: Vec<Name>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, String)>,
    query: Vec<(String, String)>,
    parameters: Vec<String>,
}

/// How an entry takes a request whose host and path fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Match,
    OtherMethod,
    Other,
}

impl Entry {
    pub(super) fn new(name: Name, index: usize, route: &config::Route) -> Self {
        let parameters = match &route.path {
            RoutePath::Path(pattern) => pattern.segments.iter().filter_map(parameter).collect(),
            RoutePath::Regex { .. } => Vec::new(),
        };
        Self {
            name,
            index,
            listeners: route.listeners.clone(),
            methods: route.methods.clone(),
            headers: route.match_headers.clone(),
            query: route.match_query.clone(),
            parameters,
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn methods(&self) -> &[Method] {
        &self.methods
    }

    pub(super) fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// Sorts the most specific first.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        Reverse((!self.methods.is_empty(), self.headers.len(), self.query.len()))
    }

    pub(super) fn judge(&self, listener: &str, request: &Request<'_>) -> Verdict {
        let fits = (self.listeners.is_empty() || self.listeners.iter().any(|name| &**name == listener))
            && self.headers.iter().all(|(name, value)| {
                request.headers.get_all(name).iter().any(|sent| sent.as_bytes() == value.as_bytes())
            })
            && self.query.iter().all(|(name, value)| request.query_value(name).is_some_and(|sent| sent == *value));
        if !fits {
            Verdict::Other
        } else if self.methods.is_empty() || self.methods.contains(request.method) {
            Verdict::Match
        } else {
            Verdict::OtherMethod
        }
    }

    /// Whether one request could match both, with nothing to say which is more specific.
    pub(super) fn ties(&self, other: &Self) -> bool {
        let same_rank = self.rank() == other.rank();
        let share = |left: &[Name], right: &[Name]| {
            left.is_empty() || right.is_empty() || left.iter().any(|name| right.contains(name))
        };
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        same_rank
            && share(&self.listeners, &other.listeners)
            && methods
            && compatible(&self.headers, &other.headers)
            && compatible(&self.query, &other.query)
    }
}

/// No condition of one contradicts one of the other.
fn compatible<K: PartialEq>(left: &[(K, String)], right: &[(K, String)]) -> bool {
    left.iter().all(|(name, value)| right.iter().all(|(other, expected)| name != other || value == expected))
}

fn parameter(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Parameter(name) => Some(name.clone()),
        Segment::Literal(_) => None,
    }
}
