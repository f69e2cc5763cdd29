//! What is known of one finished request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};

use crate::config::Name;
use crate::http::{Proxied, RequestId};

/// One line of the access log, before it is a line. Rendered on the log's own thread.
#[derive(Debug)]
pub struct Record {
    /// When the head was complete
    pub received: SystemTime,
    /// Its id
    pub request_id: RequestId,
    /// The client, after trusted proxies were believed
    pub client: IpAddr,
    /// The other end of the connection
    pub peer: IpAddr,
    /// The listener
    pub listener: Name,
    /// Present with TLS
    pub tls: Option<TlsRecord>,
    /// Present behind the PROXY protocol
    pub proxied: Option<Arc<Proxied>>,
    /// As sent
    pub method: Method,
    /// Lower case
    pub host: String,
    /// Canonical
    pub path: String,
    /// Without `?`; secrets are masked when it is rendered
    pub query: Option<String>,
    /// HTTP version of the request
    pub version: Version,
    /// What was answered; 499 when the client left first
    pub status: StatusCode,
    /// Bytes of the request's body
    pub bytes_in: u64,
    /// Bytes of the response's body
    pub bytes_out: u64,
    /// From the head to the end
    pub duration: Duration,
    /// From the head to the upstream's head
    pub first_byte: Option<Duration>,
    /// In the lines of limits and of the upstream; zero where it did not have to wait
    pub queued: Duration,
    /// The route, if one took it
    pub route: Option<Name>,
    /// The upstream, if one was asked
    pub upstream: Option<Name>,
    /// The last endpoint asked
    pub endpoint: Option<Arc<str>>,
    /// How many endpoints were asked
    pub attempts: u32,
    /// Why it did not go as usual
    pub reason: Option<&'static str>,
    /// Which limit refused it
    pub limit: Option<Name>,
    /// Which limits would have refused it
    pub shadowed_by: Vec<Name>,
    /// Which `auth` knew the caller
    pub auth: Option<Name>,
    /// As sent
    pub user_agent: Option<HeaderValue>,
    /// As sent
    pub referer: Option<HeaderValue>,
    /// The configuration it was served by
    pub generation: u64,
    /// What the operator asks for besides: name and value
    pub extra: Vec<(String, String)>,
    /// Query parameters in which this configuration looks for tokens: masked when it is rendered
    pub token_parameters: Arc<[String]>,
}

impl Record {
    /// Whether the client's connection is encrypted, up to us or up to a balancer.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some() || self.proxied.as_ref().is_some_and(|proxied| proxied.encrypted)
    }

    /// What it takes in memory, about: most of it is of the client's choice.
    pub(super) fn weight(&self) -> usize {
        let header = |value: &Option<HeaderValue>| value.as_ref().map_or(0, HeaderValue::len);
        let extra: usize = self.extra.iter().map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Self>()
            + self.host.len()
            + self.path.len()
            + self.query.as_ref().map_or(0, String::len)
            + header(&self.user_agent)
            + header(&self.referer)
            + extra
    }
}

/// The TLS of a connection, in a record.
#[derive(Clone, Debug)]
pub struct TlsRecord {
    /// `1.2` or `1.3`
    pub version: &'static str,
    /// Registered name
    pub cipher: &'static str,
    /// What the client asked for
    pub sni: Option<String>,
}
