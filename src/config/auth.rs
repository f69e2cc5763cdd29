//! `[auth.NAME]`: ways of knowing who calls.

use std::time::Duration;

use http::{HeaderName, Uri};

use super::{Claim, FileContent, Secret};

/// `[auth.NAME]`, by its `type`
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// `type = "jwt"`
    Jwt(Jwt),
}

impl Auth {
    /// Headers this way of knowing sets for the upstream, and so removes from every client request.
    pub fn identity_headers(&self) -> &[(HeaderName, Claim)] {
        match self {
            Self::Jwt(jwt) => &jwt.identity_headers,
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
    /// Exactly one of `jwks_url`, `jwks_file`, `public_key_file`, `secret`, `secret_file`
    pub keys: KeySource,
    /// Clock difference allowed on `exp` and `nbf`; default: 30s
    pub leeway: Duration,
    /// Where the token is looked for, in order; default: the Authorization header
    pub token_from: Vec<TokenSource>,
    /// Claims a token must have besides exp, iss and aud
    pub required_claims: Vec<String>,
    /// Header = claim; removed from every client request on every route
    pub identity_headers: Vec<(HeaderName, Claim)>,
    /// Keep what carried the token in the request upstream; default: false
    pub forward_token: bool,
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
    EdDSA,
}

/// Where the keys that verify tokens come from.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
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
