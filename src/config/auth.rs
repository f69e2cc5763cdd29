//! `[auth.NAME]`: ways of knowing who calls.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::{CertificateFact, Claim, FileContent, Secret};

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
}

impl AuthKind {
    /// Its `type`
    pub fn name(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::ClientCertificate(_) => "client_certificate",
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
    /// `header.NAME`: the whole value
    Header(HeaderName),
    /// `cookie.NAME`
    Cookie(String),
    /// `query.NAME`
    Query(String),
}
