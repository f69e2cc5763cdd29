//! `type = "client_certificate"`: whoever the listener's authorities have vouched for, as far as the names fit.
//!
//! The handshake has verified the certificate (`tls`); here it is only asked whose it is, and whether it has ended since,
//! for a connection may outlive it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::{Claims, Refused};
use crate::config::{self, CertificateFact};
use crate::http::ClientCertificate;

/// Which certificates are enough, and what their owners are called.
#[derive(Debug)]
pub(super) struct Certificate(config::CertificateAuth);

impl Certificate {
    pub(super) fn new(spec: &config::CertificateAuth) -> Self {
        Self(spec.clone())
    }

    pub(super) fn judge(&self, shown: Option<&ClientCertificate>, wall: SystemTime) -> Result<Claims, Refused> {
        let certificate = shown.ok_or(Refused::Missing)?;
        if wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() > certificate.ends {
            return Err(Refused::Expired);
        }
        if !self.is_welcome(certificate) {
            return Err(Refused::Invalid("a certificate that is not listed"));
        }
        let subject = certificate.text(self.0.subject_from);
        let subject = subject.ok_or(Refused::Invalid("a certificate without what its owner is called by"))?;
        let told = [
            ("sub", Some(subject)),
            ("subject", certificate.text(CertificateFact::Subject)),
            ("fingerprint", certificate.text(CertificateFact::Fingerprint)),
            ("serial", certificate.text(CertificateFact::Serial)),
            ("not_after", certificate.text(CertificateFact::NotAfter)),
        ];
        let told = told.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
        let names: Vec<_> = sans(certificate).map(Value::from).collect();
        let claims: Map<_, _> = told.chain([("san".to_owned(), Value::from(names))]).collect();
        Ok(Arc::new(claims))
    }

    fn is_welcome(&self, certificate: &ClientCertificate) -> bool {
        let config::CertificateAuth { subjects, sans: patterns, fingerprints, .. } = &self.0;
        if subjects.is_empty() && patterns.is_empty() && fingerprints.is_empty() {
            return true;
        }
        let is = |fact, listed: &[String]| {
            certificate.text(fact).is_some_and(|text| listed.iter().any(|listed| listed == text))
        };
        is(CertificateFact::Subject, subjects)
            || is(CertificateFact::Fingerprint, fingerprints)
            || sans(certificate).any(|name| patterns.iter().any(|pattern| fits(pattern, name)))
    }
}

/// The alternative names; a comma within one is escaped.
fn sans(certificate: &ClientCertificate) -> impl Iterator<Item = &str> {
    certificate.text(CertificateFact::San).into_iter().flat_map(|names| names.split(','))
}

/// The name, or whatever begins with it where a `*` stands at the end.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::CertificateTexts;

    fn certificate() -> ClientCertificate {
        let text = |text: &str| Some(text.into());
        let texts = CertificateTexts {
            subject: text("CN=orders,O=Example"),
            san: text("DNS:orders.internal,URI:spiffe://prod/orders"),
            fingerprint: text("ab12"),
            serial: text("07"),
            not_after: text("2001-09-09T01:46:40Z"),
        };
        ClientCertificate::new(b"der", texts, 1_000_000_000)
    }

    fn spec() -> config::CertificateAuth {
        config::CertificateAuth {
            subject_from: CertificateFact::Subject,
            subjects: Vec::new(),
            sans: Vec::new(),
            fingerprints: Vec::new(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn judged(spec: &config::CertificateAuth) -> Result<Claims, Refused> {
        Certificate::new(spec).judge(Some(&certificate()), at(999_999_999))
    }

    #[test]
    fn without_lists_every_certificate_that_was_verified_is_enough() {
        let claims = judged(&spec()).expect("known");
        assert_eq!(claims["sub"], "CN=orders,O=Example");
        assert_eq!(claims["san"], serde_json::json!(["DNS:orders.internal", "URI:spiffe://prod/orders"]));
        assert_eq!(Certificate::new(&spec()).judge(None, at(0)), Err(Refused::Missing));
    }

    #[test]
    fn a_certificate_that_ended_on_an_open_connection_is_refused() {
        let certificate = |seconds| Certificate::new(&spec()).judge(Some(&certificate()), at(seconds));
        certificate(1_000_000_000).expect("its last second");
        assert_eq!(certificate(1_000_000_001), Err(Refused::Expired));
    }

    #[test]
    fn one_name_of_any_list_is_enough_and_none_is_not() {
        let list = |text: &str| vec![text.to_owned()];
        for spec in [
            config::CertificateAuth { subjects: list("CN=orders,O=Example"), fingerprints: list("ff"), ..spec() },
            config::CertificateAuth { sans: list("URI:spiffe://prod/*"), ..spec() },
            config::CertificateAuth { sans: list("DNS:orders.internal"), ..spec() },
            config::CertificateAuth { fingerprints: list("ab12"), subjects: list("CN=other"), ..spec() },
        ] {
            judged(&spec).expect("known");
        }
        for spec in [
            config::CertificateAuth { subjects: list("CN=orders"), ..spec() },
            config::CertificateAuth { sans: list("URI:spiffe://prod/"), ..spec() },
            config::CertificateAuth { fingerprints: list("*"), subjects: list("*"), ..spec() },
            config::CertificateAuth { fingerprints: list("ab1"), ..spec() },
        ] {
            assert!(matches!(judged(&spec), Err(Refused::Invalid(_))), "{spec:?}");
        }
    }

    #[test]
    fn an_owner_is_called_as_the_operator_chose() {
        let named = |subject_from| judged(&config::CertificateAuth { subject_from, ..spec() }).expect("known");
        assert_eq!(named(CertificateFact::San)["sub"], "DNS:orders.internal,URI:spiffe://prod/orders");
        assert_eq!(named(CertificateFact::Fingerprint)["sub"], "ab12");
    }
}
