//! Which route takes a request.
//!
//! The most specific wins, in this order: host (exact, then the longest wildcard, then any), path (segment by segment,
//! a literal before a parameter; then the longest `/*`; then regular expressions by priority), then a method, then the
//! number of headers, then the number of query conditions. A route must match in everything: where the most specific
//! host has no route for a path, the next one is asked. Two routes that could both be the answer are refused when the
//! router is built, so the order of the file never matters.
//!
//! The cost of a lookup grows with the length of host and path, not with the number of routes.

mod entry;
mod tree;

use std::collections::HashMap;

use http::{HeaderValue, Method};

use self::entry::Entry;
use self::tree::Tree;
use crate::config::{self, HostPattern, Name, Problem};
use crate::http::Request;

/// Finds the route of a request. Generic in what a route is: it knows nothing of filters or upstreams.
#[derive(Debug)]
pub struct Router<T> {
    targets: Vec<T>,
    exact: HashMap<String, Tree>,
    /// By what stands behind `*.`
    wildcard: HashMap<String, Tree>,
    any: Tree,
}

/// The answer of [`Router::find`].
#[derive(Debug)]
pub enum Found<'r, 'p, T> {
    /// This route takes it
    Route {
        /// What the route is
        target: &'r T,
        /// What its path names, in the order of the path
        parameters: Parameters<'r, 'p>,
    },
    /// No route takes this host and path
    NoRoute,
    /// Routes take this host and path, but with other methods
    MethodNotAllowed {
        /// Value of the Allow field
        allow: HeaderValue,
    },
}

/// The parameters of a path, by name: mostly none, for which nothing is allocated.
pub type Parameters<'r, 'p> = Vec<(&'r str, &'p str)>;

impl<T> Router<T> {
    /// Places every route.
    ///
    /// # Errors
    /// Ties.
    pub fn build<'a>(routes: impl IntoIterator<Item = (Name, &'a config::Route, T)>) -> Result<Self, Vec<Problem>> {
        let mut router =
            Self { targets: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new(), any: Tree::default() };
        let mut problems = Vec::new();
        for (name, route, target) in routes {
            let index = router.targets.len();
            router.targets.push(target);
            let mut place = |tree: &mut Tree| {
                if let Err(problem) = tree.insert(&route.path, Entry::new(name.clone(), index, route)) {
                    problems.push(problem.under(&name).under("routes"));
                }
            };
            if route.hosts.is_empty() {
                place(&mut router.any);
            }
            for host in &route.hosts {
                place(match host {
                    HostPattern::Exact(host) => router.exact.entry(host.clone()).or_default(),
                    HostPattern::Wildcard(parent) => router.wildcard.entry(parent.clone()).or_default(),
                });
            }
        }
        if problems.is_empty() { Ok(router) } else { Err(problems) }
    }

    /// The route of a request that arrived at `listener`.
    pub fn find<'r, 'p>(&'r self, listener: &str, request: &Request<'p>) -> Found<'r, 'p, T> {
        let mut refused = Vec::new();
        for tree in self.trees(request.host) {
            if let Some((entry, values)) = tree.find(listener, request, &mut refused) {
                let parameters = entry.parameters().iter().map(String::as_str).zip(values).collect();
                return Found::Route { target: &self.targets[entry.index()], parameters };
            }
        }
        if refused.is_empty() { Found::NoRoute } else { Found::MethodNotAllowed { allow: allow(&refused) } }
    }

    /// The trees a host may be found in, the most specific first.
    fn trees<'s>(&'s self, host: &str) -> impl Iterator<Item = &'s Tree> {
        let exact = self.exact.get(host);
        let wildcards = host
            .char_indices()
            .filter(|(_, character)| *character == '.')
            .filter_map(|(dot, _)| self.wildcard.get(&host[dot + 1..]))
            .collect::<ShortList<'s>>();
        exact.into_iter().chain(wildcards).chain(std::iter::once(&self.any))
    }
}

/// Wildcards that cover one host: usually none or one, so usually no allocation.
type ShortList<'s> = Vec<&'s Tree>;

/// The union of the methods, each once.
fn allow(methods: &[&Method]) -> HeaderValue {
    let mut names: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    HeaderValue::from_str(&names.join(", ")).expect("methods are tokens")
}

#[cfg(test)]
mod tests;
