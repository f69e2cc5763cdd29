//! `[listeners.NAME]`: where requests arrive.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;

use super::{CertificateFact, FileContent, Name};

/// `[listeners.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `address` or `addresses`; at least one
    pub addresses: Vec<SocketAddr>,
    /// Default: h2 and http/1.1 with TLS, http/1.1 without
    pub protocols: Vec<Protocol>,
    /// Default: off
    pub proxy_protocol: ProxyProtocol,
    /// Answer everything with a redirect to https; default: false
    pub redirect_to_https: bool,
    /// A whole request head within this; default: 10s
    pub header_timeout: Duration,
    /// An idle connection is closed after this; default: 75s
    pub keepalive_timeout: Duration,
    /// Default: 100
    pub max_headers: usize,
    /// Bytes of a whole request head; default: 32KiB
    pub max_header_bytes: usize,
    /// Limits for everything that arrives here; names of `limits`
    pub limits: Vec<Name>,
    /// Present = TLS
    pub tls: Option<Tls>,
}

/// A protocol spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http/1.1`
    Http1,
    /// `h2`, by ALPN
    Http2,
    /// `h2c`: HTTP/2 without TLS, by prior knowledge; always alone
    Http2Cleartext,
}

/// Whether a balancer speaks for its clients in front of each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// `off`
    Off,
    /// `required`: version 1 or 2, of trusted proxies alone
    Required,
}

/// `[listeners.NAME.tls]`
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `1.2` (default) or `1.3`
    pub min_version: rustls::ProtocolVersion,
    /// Chosen by SNI; the first is the default; at least one
    pub certificates: Vec<Certificate>,
    /// Present = clients are asked for a certificate
    pub clients: Option<ClientAuth>,
}

/// What of [`Tls`] is about clients' certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuth {
    /// `client_ca_file`: the authorities that are believed, as PEM
    pub ca: FileContent,
    /// `client_auth`: `required` (default, true) or `optional`
    pub is_required: bool,
    /// `client_cert_headers`: header = fact; removed from every client request on every route
    pub headers: Vec<(HeaderName, CertificateFact)>,
}

/// A certificate chain and its key, as PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// `cert_file`
    pub cert: FileContent,
    /// `key_file`
    pub key: FileContent,
}
