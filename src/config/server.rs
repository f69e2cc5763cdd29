//! `[server]`, `[admin]` and `[log]`: the process itself.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Name, Rate, Secret, Selector};

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Worker threads; default: one per core
    pub threads: usize,
    /// How long listeners still accept after SIGTERM while `/readyz` already fails; default: none
    pub drain_delay: Duration,
    /// How long requests in flight may take after that; default: 30s
    pub drain_timeout: Duration,
    /// Where the control socket lives, mode 0700
    pub runtime_dir: PathBuf,
    /// Who may speak for a client; default: nobody
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once over all listeners; default: 80 % of the file limit / 2
    pub max_connections: usize,
    /// Of these, from one address; default: no cap
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// New connections of one address, per second or minute; default: no bound
    pub max_connection_rate_per_address: Option<Rate>,
    /// Keep request headers with `_` in their name; default: false
    pub keep_underscore_headers: bool,
    /// Reload when a file that the configuration was read from changes; default: false
    pub watch: bool,
    /// Where this gateway is: endpoints of the same zone are preferred; default: nowhere in particular
    pub zone: Option<Name>,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Status and API; default: 127.0.0.1:9900
    pub address: SocketAddr,
    /// Required off loopback
    pub token: Option<Secret>,
    /// `/healthz`, `/readyz` and `/metrics` alone, without a token; default: they are on `address`
    pub health_address: Option<SocketAddr>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// env_logger's filter syntax; default: info
    pub level: String,
    /// `[log.access]`
    pub access: AccessLog,
}

/// `[log.access]`
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Default: json
    pub format: AccessFormat,
    /// Default: stdout
    pub output: LogOutput,
    /// Share of 2xx and 3xx lines kept, 0 to 1; default: 1
    pub sample: f64,
    /// Fields besides the standard ones: their name as written, and what they read
    pub fields: Vec<(String, Selector)>,
}

/// How an access-log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line
    Json,
    /// The combined format of the NCSA servers
    Combined,
    /// No access log
    Off,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
    /// `file:/path`, reopened on SIGUSR1
    File(PathBuf),
}
