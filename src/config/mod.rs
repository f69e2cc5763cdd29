//! Everything an operator may write, as plain data.
//!
//! A value of these types is valid by construction: the reader refuses what cannot be served, so no other floor
//! checks again. Building the objects that serve traffic from it is `snapshot`'s work.
//!
//! The types are grouped as the tables of the file are; `leaf` holds the small values they are made of.

mod auth;
mod balance;
mod credential;
mod leaf;
mod limit;
mod listener;
mod load;
mod problem;
mod queue;
mod read;
mod reading;
mod route;
mod server;
mod store;
mod surroundings;
mod timestamp;
mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use auth::{Algorithm, Auth, AuthKind, CertificateAuth, ForwardAuth, Introspection, Jwt, KeySource, TokenSource};
pub use balance::{Balance, SameSite, Sticky};
pub use credential::{ApiKey, ApiKeyAuth, ApiKeys, BasicAuth, BasicUser, KeyHash, PasswordHash};
pub use leaf::{
    CertificateFact, Claim, EndpointAddress, FileContent, HostPattern, PathPattern, Pattern, Rate, Secret, Segment,
    Selector, Template, TemplatePart,
};
pub use limit::{Cost, Limit, LimitKind, Mode, OnFull, Period};
pub use listener::{Certificate, ClientAuth, Listener, Protocol, ProxyProtocol, Tls};
pub use load::{health_address, runtime_dir};
pub use problem::{ConfigError, Location, Problem};
pub use queue::Queue;
pub use read::Places;
pub use reading::{Reading, Recorder};
pub use route::{
    Action, AuthChoice, ClientRules, Cors, CorsHeaders, CorsOrigins, EncodedSlash, HeaderRules, Redirect, Require,
    Respond, Rewrite, Route, RoutePath,
};
pub use server::{AccessFormat, AccessLog, Admin, Log, LogOutput, Server};
pub use store::{OnStoreFailure, RedisAddress, RedisHost, RedisLogin, RedisServer, Store, StoreMode};
pub use surroundings::{Surroundings, System, Variable};
pub use timestamp::Timestamp;
pub use upstream::{
    Breaker, Endpoint, EndpointsFile, Health, HealthKind, Host, Outlier, ProxyHeader, Retry, RetryOn, Timeouts,
    Upstream, UpstreamProtocol, UpstreamTls, WhenAllDown,
};

/// A name from the configuration. Shared, because metrics, logs and answers repeat it.
pub type Name = Arc<str>;

/// The whole configuration: what was written, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
    /// `[listeners.NAME]`; at least one
    pub listeners: BTreeMap<Name, Listener>,
    /// `[auth.NAME]`
    pub auth: BTreeMap<Name, Auth>,
    /// `[limits.NAME]`
    pub limits: BTreeMap<Name, Limit>,
    /// `[upstreams.NAME]`
    pub upstreams: BTreeMap<Name, Upstream>,
    /// `[routes.NAME]`, with `[defaults]` already applied
    pub routes: BTreeMap<Name, Route>,
}
