//! The small values a configuration is made of. None of them can be wrong once it exists.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// Bytes nobody may see in a log, an error or a debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Hides `bytes`.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The only way to read it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A file named in the configuration and what it held when the configuration was loaded.
///
/// Two are equal when their contents are, so a renewed certificate under the same path is a change.
#[derive(Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Where it was read from
    pub path: PathBuf,
    /// What it held
    pub content: Secret,
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileContent({})", self.path.display())
    }
}

/// `"100/s"`: so many in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many
    pub count: NonZeroU32,
    /// In how long: a second, a minute or an hour
    pub per: Duration,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// `10.0.0.11:8080`, `[::1]:8080`
    Socket(SocketAddr),
    /// `orders.internal:8080`: resolved and followed
    Name {
        /// Lower-case host name
        host: String,
        /// Port
        port: u16,
    },
    /// `srv:_http._tcp.orders.internal`: a service whose hosts, ports and weights DNS knows
    Service {
        /// Lower-case name
        name: String,
    },
    /// `unix:/run/orders.sock`
    Unix(PathBuf),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => write!(f, "{addr}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Service { name } => write!(f, "srv:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One entry of `hosts`, lower case, without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(String),
    /// `*.example.com`, kept as `example.com`; takes one or more labels in front
    Wildcard(String),
}

/// A `path`: segments, then perhaps everything below. Segments are in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    /// Between the slashes: `/users/{id}` is `[Literal("users"), Parameter("id")]`; `/` is `[Literal("")]`; `/a/` is `[Literal("a"), Literal("")]`
    pub segments: Vec<Segment>,
    /// Ends in `/*`: the segments themselves and all below; `/*` alone is no segments and `true`
    pub below: bool,
}

/// One segment of a [`PathPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Exactly this
    Literal(String),
    /// Any one non-empty segment, remembered under this name
    Parameter(String),
}

/// A regular expression that compiled.
#[derive(Clone, Debug)]
pub struct Pattern(pub regex::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// What a limit key, a log field or a condition reads from a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// `client.address`; IPv6 by /64 where it is a key
    ClientAddress,
    /// `auth.subject`
    AuthSubject,
    /// `auth.name`: which `auth` knew the caller
    AuthName,
    /// `claim.NAME`
    Claim(Claim),
    /// `header.NAME`
    Header(HeaderName),
    /// `cookie.NAME`
    Cookie(String),
    /// `query.NAME`
    Query(String),
    /// `host`
    Host,
    /// `method`
    Method,
    /// `route`
    Route,
    /// `tls.client.FACT`
    ClientCertificate(CertificateFact),
}

impl Selector {
    /// Whether it can be read before the caller is known.
    pub fn needs_identity(&self) -> bool {
        matches!(self, Self::AuthSubject | Self::AuthName | Self::Claim(_))
    }
}

/// What can be read of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateFact {
    /// `subject`: its distinguished name (RFC 4514)
    Subject,
    /// `san`: its subject alternative names, `DNS:a.example,URI:spiffe://b/c`
    San,
    /// `fingerprint`: SHA-256 of the whole, hexadecimal
    Fingerprint,
    /// `serial`: its serial number, hexadecimal
    Serial,
    /// `not_after`: when it ends (RFC 3339)
    NotAfter,
    /// `pem`: the whole as percent-encoded PEM; for headers alone
    Pem,
    /// `rfc9440`: the whole as the `Client-Cert` field has it; for headers alone
    Rfc9440,
}

impl CertificateFact {
    /// Every fact and its name, in the order of the variants.
    pub const ALL: [(&'static str, Self); 7] = [
        ("subject", Self::Subject),
        ("san", Self::San),
        ("fingerprint", Self::Fingerprint),
        ("serial", Self::Serial),
        ("not_after", Self::NotAfter),
        ("pem", Self::Pem),
        ("rfc9440", Self::Rfc9440),
    ];
}

/// Names a claim: one literal member, or a JSON Pointer (RFC 6901) if written with a leading `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// One member of the claims object, whatever characters its name has
    Member(String),
    /// Path of unescaped reference tokens; never empty
    Pointer(Vec<String>),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => f.write_str(name),
            Self::Pointer(path) => {
                path.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
            }
        }
    }
}

/// Text with `{variables}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePart>);

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands
    Text(String),
    /// `{path}`: the canonical path
    Path,
    /// `{query}`: without `?`; empty when there is none
    Query,
    /// `{host}`
    Host,
    /// `{method}`
    Method,
    /// `{NAME}` of a path parameter
    Parameter(String),
    /// `{claim.x}`
    Claim(Claim),
    /// `{header.x}`
    Header(HeaderName),
    /// `{tls.client.FACT}`
    ClientCertificate(CertificateFact),
}
