//! Selectors and claims: what is read from a request.

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::header;
use crate::config::read::complaint::Complaint;
use crate::config::read::suggest::did_you_mean;
use crate::config::{CertificateFact, Claim, Selector, TokenSource};

const FIXED: [(&str, Selector); 11] = [
    ("client.address", Selector::ClientAddress),
    ("auth.subject", Selector::AuthSubject),
    ("auth.name", Selector::AuthName),
    ("host", Selector::Host),
    ("method", Selector::Method),
    ("route", Selector::Route),
    ("tls.client.subject", Selector::ClientCertificate(CertificateFact::Subject)),
    ("tls.client.san", Selector::ClientCertificate(CertificateFact::San)),
    ("tls.client.fingerprint", Selector::ClientCertificate(CertificateFact::Fingerprint)),
    ("tls.client.serial", Selector::ClientCertificate(CertificateFact::Serial)),
    ("tls.client.not_after", Selector::ClientCertificate(CertificateFact::NotAfter)),
];
/// The forms with a name of the operator's choice.
const NAMED: [&str; 4] = ["claim.NAME", "header.NAME", "cookie.NAME", "query.NAME"];

/// `client.address`, `claim.tenant`, `header.x-tenant`, …
pub(crate) fn selector(text: &str) -> Result<Selector, Complaint> {
    if let Some((_, selector)) = FIXED.iter().find(|(name, _)| *name == text) {
        return Ok(selector.clone());
    }
    let (kind, name) = text.split_once('.').unwrap_or((text, ""));
    let offset = kind.len() + 1;
    match kind {
        "claim" => claim(name).map(Selector::Claim),
        "header" => header_name(name).map(Selector::Header),
        "cookie" => cookie(name).map(Selector::Cookie),
        "query" => query(name).map(Selector::Query),
        _ => return Err(unknown(text)),
    }
    .map_err(|complaint| complaint.moved(offset))
}

fn unknown(text: &str) -> Complaint {
    let names = FIXED.iter().map(|(name, _)| *name).chain(NAMED);
    let all: Vec<_> = names.clone().collect();
    let hint = did_you_mean(text, names);
    Complaint::about(0..text.len(), format!("is no selector; there are {}{hint}", all.join(", ")))
}

/// `header.authorization`, `header.NAME`, `cookie.NAME`, `query.NAME`.
pub(crate) fn token_source(text: &str) -> Result<TokenSource, Complaint> {
    let (kind, name) = text.split_once('.').unwrap_or((text, ""));
    let offset = kind.len() + 1;
    match kind {
        "header" => header_name(name).map(|name| match name {
            AUTHORIZATION => TokenSource::Bearer,
            name => TokenSource::Header(name),
        }),
        "cookie" => cookie(name).map(TokenSource::Cookie),
        "query" => query(name).map(TokenSource::Query),
        _ => {
            let message = "is no place for a token; there are header.NAME, cookie.NAME and query.NAME";
            return Err(Complaint::about(0..text.len(), message));
        }
    }
    .map_err(|complaint| complaint.moved(offset))
}

/// `tls.client.subject` and the like, as a variable.
pub(crate) fn client_certificate(text: &str) -> Option<CertificateFact> {
    FIXED.iter().find(|(name, _)| *name == text).and_then(|(_, selector)| match selector {
        Selector::ClientCertificate(fact) => Some(*fact),
        _ => None,
    })
}

fn header_name(name: &str) -> Result<HeaderName, Complaint> {
    if name.is_empty() { Err(nameless("header.x-tenant")) } else { header::name(name) }
}

fn cookie(name: &str) -> Result<String, Complaint> {
    match name {
        "" => Err(nameless("cookie.session")),
        name => header::cookie(name),
    }
}

fn query(name: &str) -> Result<String, Complaint> {
    if name.is_empty() { Err(nameless("query.page")) } else { Ok(name.to_owned()) }
}

fn nameless(example: &str) -> Complaint {
    Complaint::new(format!("the name is missing, as in \"{example}\""))
}

/// One literal member, or a JSON Pointer (RFC 6901) if it starts with `/`.
pub(crate) fn claim(text: &str) -> Result<Claim, Complaint> {
    if text.is_empty() {
        return Err(nameless("claim.tenant"));
    }
    let Some(pointer) = text.strip_prefix('/') else {
        return Ok(Claim::Member(text.to_owned()));
    };
    let tokens: Option<Vec<String>> = pointer.split('/').map(unescape).collect();
    tokens.map(Claim::Pointer).ok_or_else(|| {
        Complaint::new(
            "in a JSON Pointer \"~\" is written \"~0\", and \"/\" within a name \"~1\"; nothing else follows \"~\"",
        )
    })
}

fn unescape(token: &str) -> Option<String> {
    let mut plain = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            character => character,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_documented_selector_is_read() {
        assert_eq!(selector("client.address"), Ok(Selector::ClientAddress));
        assert_eq!(selector("claim.tenant"), Ok(Selector::Claim(Claim::Member("tenant".into()))));
        assert_eq!(
            selector("claim.https://x.example/y"),
            Ok(Selector::Claim(Claim::Member("https://x.example/y".into())))
        );
        let pointer = Claim::Pointer(vec!["realm_access".into(), "roles".into()]);
        assert_eq!(selector("claim./realm_access/roles"), Ok(Selector::Claim(pointer)));
        assert_eq!(selector("header.X-Tenant"), Ok(Selector::Header(HeaderName::from_static("x-tenant"))));
        assert_eq!(selector("cookie.session"), Ok(Selector::Cookie("session".into())));
        assert_eq!(selector("tls.client.san"), Ok(Selector::ClientCertificate(CertificateFact::San)));
        assert_eq!(selector("query.page"), Ok(Selector::Query("page".into())));
        for text in [
            "",
            "client",
            "client.adress",
            "header.",
            "header.a b",
            "cookie.a=b",
            "claim.",
            "claim./a~2",
            "path",
            "tls.client.pem",
        ] {
            assert!(selector(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_authorization_header_means_bearer() {
        assert_eq!(token_source("header.Authorization"), Ok(TokenSource::Bearer));
        assert_eq!(token_source("cookie.jwt"), Ok(TokenSource::Cookie("jwt".into())));
        assert!(token_source("claim.sub").is_err());
    }

    proptest! {
        #[test]
        fn pointers_are_unescaped_as_they_were_escaped(tokens in prop::collection::vec("[a~/01\u{e4}]{0,6}", 1..5)) {
            let escaped: String =
                tokens.iter().map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1"))).collect();
            prop_assert_eq!(claim(&escaped), Ok(Claim::Pointer(tokens)));
        }
    }
}
