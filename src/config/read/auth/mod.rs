//! `[auth.NAME]`.

mod api_key;
mod basic;
mod client_certificate;
mod forward;
mod introspection;
mod jwt;

use std::time::Duration;

use http::{HeaderName, Uri};

use super::leaf::{address, header, selector};
use super::node::Node;
use super::table::Table;
use super::{Objects, file, value};
use crate::config::{Auth, AuthKind, Claim, FileContent, TokenSource};

pub(in crate::config) use self::api_key::api_keys;

const MAX_SOURCES: usize = 8;
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

#[derive(Clone, Copy)]
enum Kind {
    Jwt,
    ClientCertificate,
    ApiKey,
    Basic,
    Introspection,
    Forward,
}

const KINDS: [(&str, Kind); 6] = [
    ("jwt", Kind::Jwt),
    ("client_certificate", Kind::ClientCertificate),
    ("api_key", Kind::ApiKey),
    ("basic", Kind::Basic),
    ("introspection", Kind::Introspection),
    ("forward", Kind::Forward),
];
/// Ways of knowing that are to come.
const LATER: [&str; 1] = ["oidc"];

pub(super) fn auth(mut table: Table<'_>) -> Option<Auth> {
    let why = "how callers are known, \"jwt\"";
    // Without it nothing says which keys belong here.
    let auth = match table.required("type", why, |node| node.word(&KINDS, &LATER))? {
        Kind::Jwt => {
            let kind = jwt::jwt(&mut table).map(AuthKind::Jwt);
            by_token(&mut table, kind)
        }
        Kind::ClientCertificate => {
            let kind = client_certificate::client_certificate(&mut table).map(AuthKind::ClientCertificate);
            by_itself(&mut table, kind)
        }
        Kind::ApiKey => {
            let kind = api_key::api_key(&mut table).map(AuthKind::ApiKey);
            let sources = sources(&mut table, "key_from", TokenSource::Header(X_API_KEY));
            by_credential(&mut table, kind, sources)
        }
        Kind::Basic => {
            let kind = basic::basic(&mut table).map(AuthKind::Basic);
            by_credential(&mut table, kind, Some(vec![TokenSource::Basic]))
        }
        Kind::Introspection => {
            let kind = introspection::introspection(&mut table).map(AuthKind::Introspection);
            by_token(&mut table, kind)
        }
        Kind::Forward => {
            let kind = forward::forward(&mut table).map(AuthKind::Forward);
            by_itself(&mut table, kind)
        }
    };
    table.finish(&[]);
    auth
}

/// What all ways have that look for a token.
fn by_token(table: &mut Table<'_>, kind: Option<AuthKind>) -> Option<Auth> {
    let sources = sources(table, "token_from", TokenSource::Bearer);
    let forward_token = table.or("forward_token", false, Node::boolean);
    let identity_headers = identity_headers(table);
    let resource_metadata = table.optional("resource_metadata", |node| node.parse(address::public_url));
    Some(Auth {
        kind: kind?,
        sources: sources?,
        forward_token: forward_token?,
        identity_headers: identity_headers?,
        resource_metadata: resource_metadata?,
    })
}

/// What all ways have that look for something else than a token.
fn by_credential(table: &mut Table<'_>, kind: Option<AuthKind>, sources: Option<Vec<TokenSource>>) -> Option<Auth> {
    let forward_token = table.or("forward_credentials", false, Node::boolean);
    let identity_headers = identity_headers(table);
    Some(Auth {
        kind: kind?,
        sources: sources?,
        forward_token: forward_token?,
        identity_headers: identity_headers?,
        resource_metadata: None,
    })
}

/// Of the services that are asked for each request: nobody waits longer for an answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// `timeout` of a question.
fn timeout(table: &mut Table<'_>) -> Option<Duration> {
    table.or("timeout", Duration::from_secs(2), |node| value::duration(node, MAX_TIMEOUT))
}

/// `ca_file`, which without TLS would be believed to protect something.
fn authorities(table: &mut Table<'_>, url: Option<&Uri>) -> Option<Option<FileContent>> {
    table.optional("ca_file", |node| {
        if url.is_some_and(|url| url.scheme_str() != Some("https")) {
            node.problem_of_key("the url is not https, so no certificate is looked at");
            return None;
        }
        file::content(node)
    })
}

/// What all ways have for which a request carries nothing of its own.
fn by_itself(table: &mut Table<'_>, kind: Option<AuthKind>) -> Option<Auth> {
    let identity_headers = identity_headers(table);
    Some(Auth {
        kind: kind?,
        sources: Vec::new(),
        forward_token: false,
        identity_headers: identity_headers?,
        resource_metadata: None,
    })
}

/// The headers that carry identities, whichever way of knowing sets them.
pub(super) fn all_identity_headers(auth: &Objects<Auth>) -> Vec<HeaderName> {
    auth.values().flat_map(|auth| &auth.identity_headers).map(|(name, _)| name.clone()).collect()
}

/// Where the credentials are looked for.
fn sources(table: &mut Table<'_>, key: &'static str, default: TokenSource) -> Option<Vec<TokenSource>> {
    table.or(key, vec![default], |node| {
        node.some(MAX_SOURCES, "leave it out for the default", |item| item.parse(selector::token_source))
    })
}

/// `header = claim`. Two headers that an upstream could take for one are one too many.
fn identity_headers(table: &mut Table<'_>) -> Option<Vec<(HeaderName, Claim)>> {
    let Some(node) = table.get("identity_headers") else { return Some(Vec::new()) };
    let table = node.table()?;
    let mut headers: Vec<(HeaderName, Claim)> = Vec::new();
    let mut complete = true;
    for (name, node) in table.entries() {
        let claim = node.parse(selector::claim);
        let header = node.parse_key(name, header::identity);
        let is_twin =
            |header: &HeaderName| headers.iter().any(|(other, _)| header::folded(other) == header::folded(header));
        match (header, claim) {
            (Some(header), Some(_)) if is_twin(&header) => {
                node.problem_of_key("this header is set already, with \"_\" and \"-\" taken as the same");
                complete = false;
            }
            (Some(header), Some(claim)) => headers.push((header, claim)),
            _ => complete = false,
        }
    }
    complete.then_some(headers)
}
