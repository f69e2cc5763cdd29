//! The certificate a client has shown, as its requests know it.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::config::CertificateFact;

/// Bytes of a header's value; many upstreams take no longer line.
const MAX_VALUE: usize = 8 * 1024;
/// Characters of a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;
/// Everything but unreserved characters (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A verified certificate, parsed once a connection. Header values are made when the first request needs them.
pub struct ClientCertificate {
    der: Box<[u8]>,
    texts: CertificateTexts,
    /// The last second it is valid, since 1970
    pub ends: u64,
    headers: [OnceLock<Option<HeaderValue>>; CertificateFact::ALL.len()],
}

/// What its parts say: visible ASCII, of bounded length. One that is longer is missing: half of it would be another
/// identity.
#[derive(Debug, Default)]
pub struct CertificateTexts {
    /// The distinguished name (RFC 4514)
    pub subject: Option<Box<str>>,
    /// `DNS:a.example,URI:spiffe://b/c`
    pub san: Option<Box<str>>,
    /// SHA-256 of the whole, lower-case hexadecimal
    pub fingerprint: Option<Box<str>>,
    /// Lower-case hexadecimal
    pub serial: Option<Box<str>>,
    /// RFC 3339
    pub not_after: Option<Box<str>>,
}

impl ClientCertificate {
    /// `texts` are those of `der`, and it is valid up to the second `ends` since 1970.
    pub fn new(der: &[u8], texts: CertificateTexts, ends: u64) -> Self {
        Self { der: der.into(), texts, ends, headers: Default::default() }
    }

    /// A fact as text. The whole certificate has none.
    pub fn text(&self, fact: CertificateFact) -> Option<&str> {
        let texts = &self.texts;
        match fact {
            CertificateFact::Subject => texts.subject.as_deref(),
            CertificateFact::San => texts.san.as_deref(),
            CertificateFact::Fingerprint => texts.fingerprint.as_deref(),
            CertificateFact::Serial => texts.serial.as_deref(),
            CertificateFact::NotAfter => texts.not_after.as_deref(),
            CertificateFact::Pem | CertificateFact::Rfc9440 => None,
        }
    }

    /// A fact as an upstream is told.
    pub fn header(&self, fact: CertificateFact) -> Option<&HeaderValue> {
        let made = self.headers.get(fact as usize)?.get_or_init(|| {
            let value = match fact {
                CertificateFact::Pem => self.escaped_pem(),
                CertificateFact::Rfc9440 => format!(":{}:", STANDARD.encode(&self.der)),
                fact => self.text(fact)?.to_owned(),
            };
            HeaderValue::try_from(value).ok().filter(|value| value.len() <= MAX_VALUE)
        });
        made.as_ref()
    }

    fn escaped_pem(&self) -> String {
        let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
        let base64 = STANDARD.encode(&self.der);
        for line in base64.as_bytes().chunks(PEM_LINE) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        percent_encode(pem.as_bytes(), ESCAPED).to_string()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.texts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_certificate_is_told_in_two_forms() {
        let certificate = ClientCertificate::new(&[0xfb; 60], CertificateTexts::default(), 0);
        let told = |fact| certificate.header(fact).expect("told").to_str().expect("ASCII").to_owned();
        let base64 = STANDARD.encode([0xfb; 60]);
        assert_eq!(told(CertificateFact::Rfc9440), format!(":{base64}:"));
        let pem = percent_encoding::percent_decode_str(&told(CertificateFact::Pem)).decode_utf8_lossy().into_owned();
        let (first, rest) = base64.split_at(PEM_LINE);
        assert_eq!(pem, format!("-----BEGIN CERTIFICATE-----\n{first}\n{rest}\n-----END CERTIFICATE-----\n"));
        assert!(told(CertificateFact::Pem).starts_with("-----BEGIN%20CERTIFICATE-----%0A"));
        assert_eq!(certificate.header(CertificateFact::Subject), None);
    }

    #[test]
    fn what_is_too_long_for_a_header_is_not_told() {
        let certificate = ClientCertificate::new(&[0; MAX_VALUE], CertificateTexts::default(), 0);
        assert_eq!(certificate.header(CertificateFact::Rfc9440), None);
    }

    #[test]
    fn every_fact_has_a_place_of_its_own() {
        for (place, (_, fact)) in CertificateFact::ALL.iter().enumerate() {
            assert_eq!(*fact as usize, place);
        }
    }
}
