//! One certificate chain with its key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{self, Problem};

/// A chain and its key, ready to serve.
#[derive(Debug)]
pub struct Certificate {
    /// What rustls serves
    pub key: Arc<CertifiedKey>,
    /// The subject alternative names: `host`, `*.host` or an address; lower case
    pub names: Arc<[String]>,
    /// When it ends
    pub not_after: SystemTime,
}

impl Certificate {
    /// Parses PEM.
    ///
    /// # Errors
    /// What cannot be read or does not fit together; paths are `cert_file` and `key_file`.
    pub fn build(spec: &config::Certificate, provider: &CryptoProvider) -> Result<Self, Problem> {
        let chain = certificates(&spec.cert, "cert_file")?;
        let (names, not_after) = facts(&chain[0])?;
        let key = private_key(&spec.key)?;
        let signing_key = provider.key_provider.load_private_key(key).map_err(|_| {
            Problem::new("key_file", "the key is of a kind that cannot sign: use RSA, ECDSA or Ed25519")
        })?;
        let key = CertifiedKey::new(chain, signing_key);
        key.keys_match()
            .map_err(|_| Problem::new("key_file", "the key does not belong to the certificate in cert_file"))?;
        Ok(Self { key: Arc::new(key), names: names.into(), not_after })
    }
}

/// All certificates of a file, which is the value of `key`.
pub(super) fn certificates(file: &config::FileContent, key: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(file.content.expose())
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::new(key, format!("not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(Problem::new(key, "no certificate in it: PEM with BEGIN CERTIFICATE was expected"));
    }
    Ok(chain)
}

fn private_key(file: &config::FileContent) -> Result<PrivateKeyDer<'static>, Problem> {
    // The parser's own error could quote the file; a key must not get into a message.
    PrivateKeyDer::from_pem_slice(file.content.expose())
        .map_err(|_| Problem::new("key_file", "no private key in it: PEM with BEGIN PRIVATE KEY was expected"))
}

fn facts(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime), Problem> {
    let (_, leaf) = X509Certificate::from_der(leaf)
        .map_err(|error| Problem::new("cert_file", format!("the certificate cannot be parsed: {error}")))?;
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok((names.collect(), SystemTime::UNIX_EPOCH + Duration::from_secs(end)))
}

/// The address in a subject alternative name.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}
