//! How we know who calls.
//!
//! An [`Authenticator`] is one `[auth.NAME]`, shared by every route that names it: what it knows, and what it remembers.
//! A [`RouteAuth`] is what one route asks of its callers. In the order of a request: the credentials are found
//! (`carrier`), each way of knowing that the route names is asked about them in turn, then the route's `require` is
//! evaluated, and a refusal becomes a challenge.

mod api_key;
mod authenticator;
mod basic;
mod cache;
mod call;
mod carrier;
mod certificate;
mod challenge;
mod circuit;
mod counters;
mod flight;
mod forward;
mod inherited;
mod inspection;
mod introspection;
mod jwt;
mod lifetime;
mod require;
mod route;
mod seldom;
mod service;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::api_key::KeyText;
pub use self::authenticator::Authenticator;
pub use self::basic::Credentials as BasicCredentials;
pub use self::cache::MAX_ENTRIES as MAX_REMEMBERED;
pub use self::carrier::{without_cookie, without_query};
pub use self::counters::Counts;
pub use self::jwt::{is_token, usable_keys};
pub use self::route::RouteAuth;

/// Work to be done in the background.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is known of a caller.
type Claims = Arc<Map<String, Value>>;

/// Why credentials are not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    /// There is nothing to be known by
    Missing,
    /// Never valid here; the operator may know why, the client may not
    Invalid(&'static str),
    /// They name a key that is not in this generation of keys, perhaps not yet
    UnknownKey {
        /// Of the keys that were looked through
        generation: u64,
    },
    /// Valid once
    Expired,
    /// There is nothing yet that could tell
    Unavailable,
    /// By a service, which says it in its own words
    Denied(Box<forward::Denial>),
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own the tasks that they start")]
mod tests;
