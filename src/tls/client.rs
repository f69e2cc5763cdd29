//! Clients' certificates: whose are believed, and what they say.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::der_parser::asn1_rs::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::certificate::{address, certificates};
use crate::config::{self, Problem};
use crate::http::{CertificateTexts, ClientCertificate};

/// Characters of a name; a longer one is not told, since half of it would be another.
const MAX_TEXT: usize = 4 * 1024;
/// Names of attribute types as RFC 4514 section 3 and the registry of LDAP have them, and the one that OpenSSL adds.
const TYPES: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Who decides whether a client's certificate is believed.
#[derive(Clone, Debug)]
pub(super) struct Clients(Arc<dyn ClientCertVerifier>);

impl Clients {
    /// Believes what the authorities of the listener have signed for clients.
    ///
    /// # Errors
    /// `tls.client_ca_file` holds no certificate, or one that is no authority's.
    pub(super) fn build(spec: &config::ClientAuth, provider: &Arc<CryptoProvider>) -> Result<Self, Problem> {
        const KEY: &str = "tls.client_ca_file";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&spec.ca, KEY)? {
            roots.add(certificate).map_err(|error| Problem::new(KEY, format!("not an authority's: {error}")))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = if spec.is_required { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map(Self).map_err(|error| Problem::new(KEY, error.to_string()))
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0)
    }

    /// Who is at the other end of a connection that was shaken just now. rustls does not look again at the certificate
    /// of a session that is resumed: it may have ended since, or its authority.
    ///
    /// # Errors
    /// Nobody who may be there.
    pub(super) fn identify(
        &self,
        shown: Option<&[CertificateDer<'_>]>,
        is_resumed: bool,
        now: UnixTime,
    ) -> Result<Option<ClientCertificate>, rustls::Error> {
        let Some((leaf, rest)) = shown.and_then(<[_]>::split_first) else {
            // The ticketer's context keeps such sessions away already; this is the second lock.
            return if self.0.client_auth_mandatory() { Err(rustls::Error::NoCertificatesPresented) } else { Ok(None) };
        };
        if is_resumed {
            self.0.verify_client_cert(leaf, rest, now)?;
        }
        // What one parser took and another does not is nobody's identity.
        parse(leaf).map(Some).ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))
    }
}

/// What a verified certificate says.
pub fn parse(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let san = alternatives.and_then(|names| san(&names.value.general_names));
    let serial = certificate.raw_serial();
    let leading = serial.iter().take_while(|byte| **byte == 0).count().min(serial.len().saturating_sub(1));
    let end = certificate.validity().not_after.to_datetime();
    let not_after = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        end.year(),
        u8::from(end.month()),
        end.day(),
        end.hour(),
        end.minute(),
        end.second()
    );
    let texts = CertificateTexts {
        subject: bounded(subject(certificate.subject())),
        san: san.and_then(bounded),
        fingerprint: bounded(hex(digest::digest(&SHA256, der).as_ref())),
        serial: bounded(hex(&serial[leading..])),
        not_after: bounded(not_after),
    };
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Some(ClientCertificate::new(der, texts, ends))
}

fn bounded(text: String) -> Option<Box<str>> {
    (!text.is_empty() && text.len() <= MAX_TEXT).then(|| text.into_boxed_str())
}

/// RFC 4514 section 2: the last part first. Bytes outside of visible ASCII are escaped, which it allows and which makes
/// a header of any name.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid: &Oid<'_> = attribute.attr_type();
    let dotted = oid.to_id_string();
    let name = TYPES.iter().find(|(oid, _)| *oid == dotted).map(|(_, name)| *name);
    match (name, attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped_value(value)),
        // Section 2.4: whatever has no text is told by its encoding.
        (name, _) => format!("{}=#{}", name.unwrap_or(&dotted), hex(&encoding(attribute))),
    }
}

fn encoding(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    use x509_parser::der_parser::asn1_rs::ToDer;
    // Of what was just decoded; an empty one says that there is something.
    attribute.attr_value().to_der_vec().unwrap_or_else(|_| Vec::new())
}

fn escaped_value(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'#' | b' ' if at == 0 => text.extend(['\\', char::from(byte)]),
            // Spelt out: a space at the end of a header is no part of its value.
            b' ' if at == last => escape(&mut text, byte),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => escape(&mut text, byte),
        }
    }
    text
}

/// Joined by commas: one within a name is escaped, or it could make two of one.
fn san(names: &[GeneralName<'_>]) -> Option<String> {
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{}", escaped_name(name))),
        GeneralName::URI(uri) => Some(format!("URI:{}", escaped_name(uri))),
        GeneralName::RFC822Name(address) => Some(format!("email:{}", escaped_name(address))),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address: IpAddr| format!("IP:{address}")),
        _ => None,
    };
    let names: Vec<_> = names.iter().filter_map(name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

fn escaped_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b',' | b'\\' => escape(&mut text, byte),
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => escape(&mut text, byte),
        }
    }
    text
}

fn escape(text: &mut String, byte: u8) {
    // Writing to memory does not fail.
    let _ = write!(text, "\\{byte:02X}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;
    use crate::config::CertificateFact;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("signed").der().to_vec()
    }

    fn said(der: &[u8], fact: CertificateFact) -> Option<String> {
        parse(der).expect("a certificate").text(fact).map(str::to_owned)
    }

    #[test]
    fn a_subject_is_told_last_part_first_and_escaped() {
        let der = made(|params| {
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "Müller, Söhne + Co");
            params.distinguished_name.push(DnType::CommonName, "#1 \"x\" ");
            params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3]), "y");
        });
        let expected = "1.2.3=#0c0179,CN=\\#1 \\\"x\\\"\\20,O=M\\C3\\BCller\\, S\\C3\\B6hne \\+ Co,C=DE";
        assert_eq!(said(&der, CertificateFact::Subject).as_deref(), Some(expected));
    }

    #[test]
    fn a_value_without_text_is_told_by_its_encoding() {
        let der = made(|params| {
            let value = DnValue::BmpString("ab".try_into().expect("two characters"));
            params.distinguished_name.push(DnType::CommonName, value);
        });
        assert_eq!(said(&der, CertificateFact::Subject).as_deref(), Some("CN=#1e0400610062"));
    }

    #[test]
    fn one_name_cannot_pass_for_two() {
        let text = |text: &str| Ia5String::try_from(text).expect("ASCII");
        let der = made(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName(text("a.test")),
                SanType::URI(text("spiffe://b/c,DNS:admin.test\\")),
                SanType::Rfc822Name(text("d@e.test")),
                SanType::IpAddress("::1".parse().expect("an address")),
            ];
        });
        let expected = "DNS:a.test,URI:spiffe://b/c\\2CDNS:admin.test\\5C,email:d@e.test,IP:::1";
        assert_eq!(said(&der, CertificateFact::San).as_deref(), Some(expected));
    }

    #[test]
    fn number_end_and_fingerprint_are_told() {
        let der = made(|params| {
            params.serial_number = Some(vec![0, 0xab, 1].into());
            params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        });
        assert_eq!(said(&der, CertificateFact::Serial).as_deref(), Some("ab01"));
        assert_eq!(said(&der, CertificateFact::NotAfter).as_deref(), Some("2031-02-03T00:00:00Z"));
        assert_eq!(said(&der, CertificateFact::Fingerprint), Some(hex(digest::digest(&SHA256, &der).as_ref())));
        assert_eq!(said(&der, CertificateFact::Subject), None);
        assert_eq!(said(&der, CertificateFact::San), None);
    }

    #[test]
    fn what_is_too_long_is_not_told() {
        let der = made(|params| params.distinguished_name.push(DnType::CommonName, "x".repeat(MAX_TEXT)));
        assert_eq!(said(&der, CertificateFact::Subject), None);
    }

    proptest! {
        #[test]
        fn escaped_text_is_visible_and_keeps_what_it_was(value in "\\PC{0,12}[,+ \\\\#\"\u{0}\n]{0,4}") {
            for (escaped, at_once) in [(escaped_value(&value), b"\"+,;<>\\# ".as_slice()), (escaped_name(&value), b"")] {
                prop_assert!(escaped.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                let mut plain = Vec::new();
                let mut rest = escaped.as_bytes();
                while let Some((first, behind)) = rest.split_first() {
                    rest = behind;
                    if *first != b'\\' {
                        plain.push(*first);
                    } else if at_once.contains(&rest[0]) {
                        plain.push(rest[0]);
                        rest = &rest[1..];
                    } else {
                        let digits = std::str::from_utf8(&rest[..2]).expect("ASCII");
                        plain.push(u8::from_str_radix(digits, 16).expect("two digits"));
                        rest = &rest[2..];
                    }
                }
                prop_assert_eq!(plain, value.as_bytes());
            }
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes).is_none());
        }
    }
}
