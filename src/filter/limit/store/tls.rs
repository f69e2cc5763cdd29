//! TLS to a store: its certificate is always verified, and ours is shown where there is one.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Certificate, FileContent, Problem, RedisServer};

/// Whose certificates are believed, and what is shown.
pub(super) struct Tls {
    /// Default: those the system trusts
    roots: Option<RootCertStore>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Tls {
    /// # Errors
    /// A file that is not what it should be.
    pub(super) fn build(server: &RedisServer) -> Result<Self, Problem> {
        let tls = Self {
            roots: server.ca.as_ref().map(authorities).transpose()?,
            client: server.client.as_ref().map(identity).transpose()?,
        };
        // A key that does not fit is a problem now, not an outage later.
        tls.config(RootCertStore::empty()).map_err(|error| {
            Problem::new("redis_client_key_file", format!("it does not go with the certificate: {error}"))
        })?;
        Ok(tls)
    }

    pub(super) async fn connect(&self, name: ServerName<'static>, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            // Reads files: not on a thread that has others to serve.
            None => tokio::task::spawn_blocking(native_roots).await.map_err(io::Error::other)??,
        };
        let config = self.config(roots).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    fn config(&self, roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match &self.client {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()),
        }
    }
}

fn authorities(file: &FileContent) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, "redis_ca_file")? {
        roots
            .add(certificate)
            .map_err(|error| Problem::new("redis_ca_file", format!("not an authority's: {error}")))?;
    }
    Ok(roots)
}

fn identity(client: &Certificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
    let chain = certificates(&client.cert, "redis_client_cert_file")?;
    // Why it is none might hold a part of it.
    let key = PrivateKeyDer::from_pem_slice(client.key.content.expose())
        .map_err(|_| Problem::new("redis_client_key_file", "no private key in it: PEM was expected"))?;
    Ok((chain, key))
}

/// At least one.
fn certificates(file: &FileContent, path: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.content.expose()).collect();
    let found = found.map_err(|error| Problem::new(path, format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(Problem::new(path, "no certificate in it: PEM with BEGIN CERTIFICATE was expected"));
    }
    Ok(found)
}

fn native_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this system has no root certificates"));
    }
    Ok(roots)
}
