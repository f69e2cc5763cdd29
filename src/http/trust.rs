//! Whom this process believes when it is the client: the system's authorities, or those the operator names.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::FileContent;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those of the system's authorities, as they are at the time
    System,
    /// Those of these authorities alone
    Named(Arc<RootCertStore>),
}

impl Trust {
    /// The authorities in a PEM file, if there is one; the system's otherwise.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn build(ca: Option<&FileContent>) -> Result<Self, String> {
        ca.map_or(Ok(Self::System), |file| named(file).map(|roots| Self::Named(Arc::new(roots))))
    }

    /// A client that believes them.
    pub(super) async fn config(&self) -> io::Result<ClientConfig> {
        let roots = match self {
            Self::System => tokio::task::spawn_blocking(native_roots).await.map_err(io::Error::other)??,
            Self::Named(roots) => RootCertStore::clone(roots),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Ok(config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The system's authorities. Reads files: not for a thread that has others to serve.
fn native_roots() -> io::Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry a certificate or two that cannot be read; that is no reason to trust none.
    let (usable, _) = roots.add_parsable_certificates(loaded.certs);
    if usable == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this system has no root certificates"));
    }
    Ok(roots)
}

/// The authorities of a PEM file, or what is wrong with it.
fn named(file: &FileContent) -> Result<RootCertStore, String> {
    let shown = file.path.display();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(file.content.expose()) {
        let certificate = certificate.map_err(|error| format!("{shown} is not PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("{shown} holds a certificate that cannot be trusted: {error}"))?;
    }
    if roots.is_empty() { Err(format!("{shown} holds no certificate in PEM")) } else { Ok(roots) }
}
