//! Where the budgets of a fleet are kept: `store = "redis"` and its keys.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{FileContent, Secret};

/// `store = "redis"`
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Who keeps them
    pub server: RedisServer,
    /// Default: batched
    pub mode: StoreMode,
    /// Default: local
    pub on_failure: OnStoreFailure,
}

/// `redis_url`, and how it is talked to. Limits that say the same share a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisServer {
    /// Where it is
    pub address: RedisAddress,
    /// Of an ACL; default: none, which is the server's `default`
    pub user: Option<String>,
    /// Default: none
    pub password: Option<Secret>,
    /// Default: 0
    pub db: u16,
    /// Whose certificates are believed; default: those the system trusts
    pub ca: Option<FileContent>,
    /// For one decision; default: 50 ms
    pub timeout: Duration,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// `redis://HOST:PORT`, `rediss://HOST:PORT`
    Tcp {
        /// A name or an address, without brackets
        host: String,
        /// Default: 6379
        port: u16,
        /// `rediss`
        tls: bool,
    },
    /// `unix:///PATH`
    Unix(PathBuf),
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How often the store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// For each request
    Strict,
    /// For a share that is spent here
    Batched,
}

/// Who decides while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// This gateway alone, by the same rate
    Local,
    /// Nobody: let everything through
    Allow,
    /// Nobody: refuse everything
    Deny,
}
