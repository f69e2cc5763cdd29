//! Public keys in PEM: `PUBLIC KEY` (RFC 5280), `RSA PUBLIC KEY` (RFC 8017), or the key of a `CERTIFICATE`.

use x509_parser::der_parser::der::parse_der;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::key::{Key, MAX_TRIES};

/// Every key in the file, in its order: several, so that one can be rotated out.
///
/// Messages never quote the file: it might hold a private key by mistake.
pub(super) fn read(pem: &[u8]) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| "not PEM")?;
        if keys.len() == MAX_TRIES {
            return Err(format!("more than {MAX_TRIES} keys"));
        }
        let key = match block.label.as_str() {
            "PUBLIC KEY" => SubjectPublicKeyInfo::from_der(&block.contents)
                .map_err(|_| "a PUBLIC KEY that cannot be read")
                .and_then(|(_, info)| from_info(&info)),
            "RSA PUBLIC KEY" => from_rsa(&block.contents),
            "CERTIFICATE" => X509Certificate::from_der(&block.contents)
                .map_err(|_| "a CERTIFICATE that cannot be read")
                .and_then(|(_, certificate)| from_info(certificate.public_key())),
            label if label.ends_with("PRIVATE KEY") => {
                return Err("a private key: only the public one belongs here".into());
            }
            _ => return Err("a PEM block that is neither a public key nor a certificate".into()),
        };
        keys.push(key?);
    }
    if keys.is_empty() {
        return Err("no key in it: PEM with BEGIN PUBLIC KEY was expected".into());
    }
    Ok(keys)
}

fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, &'static str> {
    let material = &*info.subject_public_key.data;
    let algorithm = &info.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return from_rsa(material);
    }
    if *algorithm == OID_SIG_ED25519 {
        return Key::ed25519(material);
    }
    if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err("a key that is neither RSA, EC nor Ed25519");
    }
    match info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok()) {
        Some(curve) if curve == OID_EC_P256 => Key::p256(material),
        Some(curve) if curve == OID_NIST_EC_P384 => Key::p384(material),
        Some(curve) if curve == OID_NIST_EC_P521 => Key::p521(material),
        _ => Err("an EC key of a curve other than P-256, P-384 and P-521"),
    }
}

/// `SEQUENCE { modulus, publicExponent }`
fn from_rsa(der: &[u8]) -> Result<Key, &'static str> {
    let read = || {
        let (_, sequence) = parse_der(der).ok()?;
        let [modulus, exponent] = sequence.as_sequence().ok()?.as_slice() else { return None };
        Some((modulus.as_slice().ok()?.to_vec(), exponent.as_slice().ok()?.to_vec()))
    };
    let (modulus, exponent) = read().ok_or("an RSA public key that cannot be read")?;
    Key::rsa(&modulus, &exponent)
}
