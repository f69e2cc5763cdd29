//! How we know who calls: JSON Web Tokens (RFC 7519, read as RFC 8725 says), sent as RFC 6750 says.
//!
//! An [`Authenticator`] is one `[auth.NAME]`, shared by every route that names it: its keys, its rules and the tokens it
//! remembers. A [`RouteAuth`] is what one route asks of its callers. In the order of a request: the token is found
//! (`carrier`), perhaps remembered (`cache`), else taken apart strictly (`token`) and verified (`verify`) with a key
//! (`keyring`); then the route's `require` is evaluated, and a refusal becomes a challenge.
//!
//! What is refused is refused in one place each: the shape of a token in `token`, keys in `key`, `jwk` and `pem`, claims
//! in `verify`.

mod authenticator;
mod cache;
mod carrier;
mod challenge;
mod counters;
mod json;
mod jwk;
mod key;
mod keyring;
mod pem;
mod refresh;
mod remote;
mod require;
mod route;
mod token;
mod verify;

use std::future::Future;
use std::pin::Pin;

pub use self::authenticator::Authenticator;
pub use self::carrier::{without_cookie, without_query};
pub use self::counters::Counts;
pub use self::route::RouteAuth;

/// Work to be done in the background.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// Never valid here; the operator may know why, the client may not
    Invalid(&'static str),
    /// It names a key that is not in the set, perhaps not yet
    UnknownKey,
    /// Valid once
    Expired,
    /// There are no keys yet that could tell
    Unavailable,
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own the tasks that they start")]
mod tests;
