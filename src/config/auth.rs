//! `[auth.NAME]`: ways of knowing who calls.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::{ApiKeyAuth, BasicAuth, CertificateFact, Claim, FileContent, Secret};

/// `[auth.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// By its `type`
    pub kind: AuthKind,
    /// Where the credentials are looked for, in order; empty where none are carried
    pub sources: Vec<TokenSource>,
    /// Keep what carried the credentials in the request upstream; default: false
    pub forward_token: bool,
    /// Header = claim; set for the upstream, removed from every client request on every route
    pub identity_headers: Vec<(HeaderName, Claim)>,
    /// Where a client finds out whom to ask for a token (RFC 9728), told in challenges; an address of visible ASCII
    pub resource_metadata: Option<String>,
}

/// A way of knowing, by its `type`
#[derive(Clone, Debug, PartialEq)]
pub enum AuthKind {
    /// `type = "jwt"`
    Jwt(Jwt),
    /// `type = "client_certificate"`
    ClientCertificate(CertificateAuth),
    /// `type = "api_key"`
    ApiKey(ApiKeyAuth),
    /// `type = "basic"`
    Basic(BasicAuth),
    /// `type = "introspection"`
    Introspection(Introspection),
    /// `type = "forward"`
    Forward(ForwardAuth),
}

impl AuthKind {
    /// Its `type`
    pub fn name(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::ClientCertificate(_) => "client_certificate",
            Self::ApiKey(_) => "api_key",
            Self::Basic(_) => "basic",
            Self::Introspection(_) => "introspection",
            Self::Forward(_) => "forward",
        }
    }
}

/// `type = "jwt"`
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    /// Required `iss`
    pub issuer: String,
    /// Required `aud`, any of; at least one
    pub audience: Vec<String>,
    /// Nothing else is accepted; at least one, all fit the key source (HS* only with a secret)
    pub algorithms: Vec<Algorithm>,
    /// Exactly one of `discovery`, `discovery_url`, `jwks_url`, `jwks_file`, `public_key_file`, `secret`, `secret_file`
    pub keys: KeySource,
    /// The only authorities believed when something is fetched, as PEM; default: the system's
    pub ca_file: Option<FileContent>,
    /// Clock difference allowed on `exp` and `nbf`; default: 30s
    pub leeway: Duration,
    /// Required `typ`, in lower case and without "application/"; default: any, or none
    pub token_type: Option<String>,
    /// Claims a token must have besides exp, iss and aud
    pub required_claims: Vec<Claim>,
}

/// `type = "client_certificate"`. Without any list, whatever the listener's authorities have signed is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuth {
    /// What the caller is called: subject, san or fingerprint; default: subject
    pub subject_from: CertificateFact,
    /// Distinguished names (RFC 4514)
    pub subjects: Vec<String>,
    /// Alternative names with their kind in front; a `*` at the end stands for any rest
    pub sans: Vec<String>,
    /// SHA-256 of whole certificates, lower-case hexadecimal
    pub fingerprints: Vec<String>,
}

/// `type = "introspection"` (RFC 7662)
#[derive(Clone, Debug, PartialEq)]
pub struct Introspection {
    /// Of the endpoint that is asked. https, or http to a loopback address
    pub url: Uri,
    /// Who we are there
    pub client_id: String,
    /// `client_secret` or `client_secret_file`, for `client_secret_basic`
    pub client_secret: Secret,
    /// What `iss` must be, where it matters
    pub issuer: Option<String>,
    /// `aud` must name one of these, where there are any
    pub audience: Vec<String>,
    /// Of one question, from connecting to the last byte; default: 2s
    pub timeout: Duration,
    /// How long an answer is believed, in whole seconds; `None` asks each time; default: 1m
    pub remember: Option<Duration>,
    /// Whose certificates are believed; default: the system's
    pub ca: Option<FileContent>,
}

/// `type = "forward"`: a service decides.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardAuth {
    /// What is asked. http or https
    pub url: Uri,
    /// Headers of the client that the service is shown; default: authorization, cookie
    pub request_headers: Vec<HeaderName>,
    /// Headers of a refusal that the client is shown
    pub response_headers: Vec<HeaderName>,
    /// Claim = header of the service's consent
    pub claims: Vec<(String, HeaderName)>,
    /// Of one question, from connecting to the last byte; default: 2s
    pub timeout: Duration,
    /// Whose certificates are believed; default: the system's
    pub ca: Option<FileContent>,
}

/// A signature algorithm of JWS (RFC 7518 section 3.1, RFC 8037), by its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the standard's own")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// Where the keys that verify tokens come from.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// `discovery` or `discovery_url`: a document that says where the keys are fetched. Addresses as for `jwks_url`
    Discovery(Uri),
    /// `jwks_url`: fetched and refreshed in the background. https, or http to a loopback address
    JwksUrl(Uri),
    /// `jwks_file`
    JwksFile(FileContent),
    /// `public_key_file`, PEM
    PublicKey(FileContent),
    /// `secret` or `secret_file`, for HS*
    Secret(Secret),
}

/// Where a request carries a token or key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// `header.authorization`: the Bearer scheme
    Bearer,
    /// The Basic scheme of the Authorization header
    Basic,
    /// `header.NAME`: the whole value
    Header(HeaderName),
    /// `cookie.NAME`
    Cookie(String),
    /// `query.NAME`
    Query(String),
}
