//! Certificates: an authority, what it signs, and who trusts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A certificate authority that nobody trusts but the tests.
pub(crate) struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// For a server with these names or addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Identity {
        let mut params = params(names[0], names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// For a server, but no longer.
    pub(crate) fn expired_server(&self, names: &[&str]) -> Identity {
        let mut params = params(names[0], names);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.sign(&params)
    }

    /// For a server that is the client of others like it.
    pub(crate) fn peer(&self, names: &[&str]) -> Identity {
        let mut params = params(names[0], names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// For a client that calls itself `name`.
    pub(crate) fn client(&self, name: &str) -> Identity {
        let mut params = params(name, &[name]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// For a client that calls itself all that, until that many seconds after 1970.
    pub(crate) fn client_until(&self, names: &[SanType], unix: u64) -> Identity {
        let mut params = params("Alice, of Orders", &[]);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(vec![0x0a, 0xb1].into());
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Identity { cert, key: key.serialize_pem() }
    }

    /// Writes the authority's certificate into `directory`, and says where.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> PathBuf {
        write(directory, name, &self.pem)
    }

    /// A client that trusts this authority alone and offers `protocols` (ALPN).
    pub(crate) fn trusting(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        Arc::new(self.client_config(provider(), rustls::DEFAULT_VERSIONS, protocols, None))
    }

    /// The same, showing a certificate of its own.
    pub(crate) fn trusting_as(&self, protocols: &[&str], identity: &Identity) -> Arc<ClientConfig> {
        Arc::new(self.client_config(provider(), rustls::DEFAULT_VERSIONS, protocols, Some(identity)))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own PEM")).expect("a root");
        roots
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client_config(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        identity: Option<&Identity>,
    ) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider's versions")
            .with_root_certificates(self.roots());
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.parsed();
                config.with_client_auth_cert(chain, key).expect("a key that fits its certificate")
            }
        };
        config.alpn_protocols = alpn(protocols);
        config
    }
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key` into `directory`.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        (write(directory, &format!("{name}.pem"), &self.cert), write(directory, &format!("{name}.key"), &self.key))
    }

    /// A server that shows it and speaks `protocols` (ALPN).
    pub(crate) fn serving(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        self.server_config(protocols, None)
    }

    /// The same, for clients alone that show a certificate of `ca`.
    pub(crate) fn serving_clients_of(&self, ca: &Ca, protocols: &[&str]) -> Arc<ServerConfig> {
        self.server_config(protocols, Some(ca))
    }

    fn server_config(&self, protocols: &[&str], clients: Option<&Ca>) -> Arc<ServerConfig> {
        let (chain, key) = self.parsed();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider's versions");
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider()).build();
                config.with_client_cert_verifier(verifier.expect("one root"))
            }
        };
        let mut config = config.with_single_cert(chain, key).expect("a key that fits its certificate");
        config.alpn_protocols = alpn(protocols);
        Arc::new(config)
    }

    /// Its certificate, as it is sent.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("our own PEM")
    }

    fn parsed(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.der()], PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own PEM"))
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names and addresses");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("written");
    path
}

fn alpn(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
