//! What is known of one finished request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};

use crate::config::Name;
use crate::http::RequestId;

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
    /// As sent
    pub method: Method,
    /// Lower case
    pub host: String,
    /// Canonical
    pub path: String,
    /// Without `?`; secrets are masked when it is rendered
    pub query: Option<String>,
    /// Parameters of the query that are secrets here, besides those that always are
    pub secret_parameters: Arc<[String]>,
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
