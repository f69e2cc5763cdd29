//! Whom this process believes when it is the client: the system's authorities, or those the operator names.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::FileContent;

/// The system's authorities. Reads files: not for a thread that has others to serve.
pub(super) fn native_roots() -> io::Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry a certificate or two that cannot be read; that is no reason to trust none.
    let (usable, _) = roots.add_parsable_certificates(loaded.certs);
    if usable == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this system has no root certificates"));
    }
    Ok(roots)
}

/// [`native_roots`], on a thread that has nobody to serve.
pub(super) async fn system() -> io::Result<RootCertStore> {
    tokio::task::spawn_blocking(native_roots).await.map_err(io::Error::other)?
}

/// The authorities of a PEM file, or what is wrong with it.
pub(super) fn named(file: &FileContent) -> Result<RootCertStore, String> {
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

/// A client that believes these alone.
pub(super) fn client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
