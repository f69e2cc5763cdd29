//! Where the budgets of a fleet are kept: `store = "redis"` and its keys.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Certificate, FileContent, Secret};

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
    /// Who asks it; default: nobody, who is the server's `default`
    pub login: Option<RedisLogin>,
    /// Who asks its sentinels; default: the same
    pub sentinel_login: Option<RedisLogin>,
    /// Default: 0
    pub db: u16,
    /// Whose certificates are believed; default: those the system trusts
    pub ca: Option<FileContent>,
    /// What is shown to it; default: nothing
    pub client: Option<Certificate>,
    /// For one decision; default: 50 ms
    pub timeout: Duration,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisLogin {
    /// Of an ACL; default: `default`
    pub user: Option<String>,
    /// Never empty
    pub password: Secret,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// `redis://HOST:PORT`, `rediss://HOST:PORT`
    Tcp {
        /// Default port: 6379
        host: RedisHost,
        /// `rediss`
        tls: bool,
    },
    /// `redis+sentinel://HOST:PORT,HOST:PORT/NAME`, `rediss+sentinel://`: wherever they say
    Sentinel {
        /// At least one; default port: 26379
        sentinels: Vec<RedisHost>,
        /// How they call the server
        master: String,
        /// `rediss`: for sentinels and servers
        tls: bool,
    },
    /// `unix:///PATH`
    Unix(PathBuf),
}

/// A server's end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisHost {
    /// A name or an address, without brackets
    pub name: String,
    /// Not 0
    pub port: u16,
}

impl RedisAddress {
    /// Whether all that is said is encrypted, and certificates are looked at.
    pub fn uses_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. } | Self::Sentinel { tls: true, .. })
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, .. } => host.fmt(f),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "{master} of ")?;
                for (index, sentinel) in sentinels.iter().enumerate() {
                    write!(f, "{}{sentinel}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for RedisHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
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
