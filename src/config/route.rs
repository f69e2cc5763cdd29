//! `[routes.NAME]`: what happens to a request.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::{Claim, HostPattern, Mode, Name, PathPattern, Pattern, Template};

/// `[routes.NAME]`, with `[defaults]` applied
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Default: any (empty)
    pub hosts: Vec<HostPattern>,
    /// `path` or `path_regex`; default: `/*`
    pub path: RoutePath,
    /// Any of; default: any (empty). GET brings HEAD (already added)
    pub methods: Vec<Method>,
    /// All of
    pub match_headers: Vec<(HeaderName, String)>,
    /// All of
    pub match_query: Vec<(String, String)>,
    /// Names of `listeners`; default: all (empty)
    pub listeners: Vec<Name>,
    /// How callers are known
    pub auth: AuthChoice,
    /// Default: enforce
    pub auth_mode: Mode,
    /// Names of `limits`
    pub limits: Vec<Name>,
    /// Default: none
    pub cors: Option<Cors>,
    /// Default: everybody
    pub clients: ClientRules,
    /// What answers
    pub action: Action,
    /// Default: none
    pub rewrite: Option<Rewrite>,
    /// What a `%2F` in the path gets; default: refuse
    pub encoded_slash: EncodedSlash,
    /// On the way to the upstream
    pub request_headers: HeaderRules,
    /// On the way to the client
    pub response_headers: HeaderRules,
    /// From the request's first byte to the response's last; default: 60s; `None` is "none"
    pub timeout: Option<Duration>,
    /// A stream with nothing in either direction; default: 5m
    pub stream_idle: Duration,
    /// Bytes of a request body; default: 10MiB; `None` is "none"
    pub max_body: Option<u64>,
}

/// Which paths a route takes.
#[derive(Clone, Debug, PartialEq)]
pub enum RoutePath {
    /// `path`
    Path(PathPattern),
    /// `path_regex` with `priority`; searched after every `path` that could match
    Regex {
        /// Anchored as written by the operator
        pattern: Pattern,
        /// The higher wins
        priority: i64,
    },
}

/// `auth`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChoice {
    /// `"none"`: a decision somebody wrote down
    Open,
    /// Any of several, tried in order
    AnyOf {
        /// Names of `auth`; at least one
        names: Vec<Name>,
        /// `"none"` is among them: whoever presents nothing may pass too
        anonymous: bool,
        /// What the identity must have
        require: Require,
    },
}

/// `cors`
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// `origins` and `origins_regex`; one at least
    pub origins: CorsOrigins,
    /// Default: those of the route, or GET, HEAD and POST where it takes any
    pub methods: Vec<Method>,
    /// Request headers besides those that need no leave; default: none
    pub headers: CorsHeaders,
    /// Response headers that pages may read besides those that need no leave; default: none
    pub expose: Vec<HeaderName>,
    /// Cookies and the like may come along; default: false
    pub credentials: bool,
    /// For how long a browser may remember the answer to a preflight; default: not said, and browsers take seconds
    pub max_age: Option<Duration>,
    /// Pages of the public network may ask; default: false
    pub private_network: bool,
}

/// Whose pages may read a route's answers.
#[derive(Clone, Debug, PartialEq)]
pub enum CorsOrigins {
    /// `"*"`
    Any,
    /// Any of these
    Listed {
        /// `https://app.example.com`
        exact: Vec<String>,
        /// Of the whole origin
        patterns: Vec<Pattern>,
    },
}

/// Which request headers a page may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsHeaders {
    /// `"*"`
    Any,
    /// These
    Listed(Vec<HeaderName>),
}

/// `require`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Require {
    /// All of these scopes
    pub scopes: Vec<String>,
    /// At least one of these scopes, unless empty
    pub any_scope: Vec<String>,
    /// Each claim has (or, if a list, contains) one of these values
    pub claims: Vec<(Claim, Vec<String>)>,
    /// Each claim is a list that contains all of these values, or the one value there is
    pub all_claims: Vec<(Claim, Vec<String>)>,
}

/// `clients`: deny wins; an empty `allow` is everybody
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// Empty = everybody
    pub allow: Vec<IpNet>,
    /// Wins over `allow`
    pub deny: Vec<IpNet>,
}

/// What answers a request that may pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `upstream`: a name of `upstreams`
    Upstream(Name),
    /// `redirect`
    Redirect(Redirect),
    /// `respond`
    Respond(Respond),
}

/// `redirect`
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// No variable stands before the path
    pub to: Template,
    /// 301, 302, 303, 307 or 308; default: 308
    pub status: StatusCode,
}

/// `respond`
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    /// Default: 200
    pub status: StatusCode,
    /// Default: text/plain
    pub content_type: HeaderValue,
    /// Default: empty
    pub body: String,
}

/// `rewrite`
#[derive(Clone, Debug, PartialEq)]
pub enum Rewrite {
    /// `strip_prefix`: whole segments; the rest starts with `/`
    StripPrefix(String),
    /// `replace`: a new path; the query is kept
    Replace(Template),
}

/// `encoded_slash`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400
    Refuse,
    /// `%2F` stays as it is and never separates segments
    Keep,
}

/// `request_headers`, `response_headers`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderRules {
    /// Replaces what is there
    pub set: Vec<(HeaderName, Template)>,
    /// Done before `set`
    pub remove: Vec<HeaderName>,
}
