//! A stream to the store: TCP, TLS that is always verified, or a Unix socket.

use std::io;
use std::sync::Arc;

use redis::RedisConnectionInfo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::{FileContent, Problem, RedisAddress, RedisServer};

/// What the client needs of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How to get there.
#[derive(Debug)]
pub(super) struct Way {
    address: RedisAddress,
    /// For `rediss://` alone: the name that the certificate has to have, and whose is believed, if not the system's
    tls: Option<(ServerName<'static>, Option<RootCertStore>)>,
}

impl Way {
    /// # Errors
    /// An authority that cannot be one.
    pub(super) fn build(server: &RedisServer) -> Result<Self, Problem> {
        let tls = match &server.address {
            RedisAddress::Tcp { host, tls: true, .. } => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Problem::new("redis_url", "no certificate can be for this host"))?;
                Some((name, server.ca.as_ref().map(authorities).transpose()?))
            }
            RedisAddress::Tcp { .. } | RedisAddress::Unix(_) => None,
        };
        Ok(Self { address: server.address.clone(), tls })
    }

    pub(super) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let (host, port) = match &self.address {
            RedisAddress::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            RedisAddress::Tcp { host, port, .. } => (host.as_str(), *port),
        };
        let tcp = TcpStream::connect((host, port)).await?;
        // A decision is one small segment that somebody waits for.
        tcp.set_nodelay(true)?;
        let Some((name, roots)) = &self.tls else { return Ok(Box::new(tcp)) };
        let roots = match roots {
            Some(roots) => roots.clone(),
            // Reads files: not on a thread that has others to serve.
            None => tokio::task::spawn_blocking(native_roots).await.map_err(io::Error::other)??,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name.clone(), tcp).await?))
    }
}

/// What is said first: who asks, and for which database.
pub(super) fn greeting(server: &RedisServer) -> RedisConnectionInfo {
    // The library's name is of no use to the server, and an ACL may not allow to say it.
    let mut info = RedisConnectionInfo::default().set_db(i64::from(server.db)).set_skip_set_lib_name();
    if let Some(user) = &server.user {
        info = info.set_username(user);
    }
    if let Some(password) = &server.password {
        // It was made from text.
        info = info.set_password(String::from_utf8_lossy(password.expose()));
    }
    info
}

fn authorities(file: &FileContent) -> Result<RootCertStore, Problem> {
    let wrong = |why: String| Problem::new("redis_ca_file", why);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(file.content.expose()) {
        let certificate = certificate.map_err(|error| wrong(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("not an authority's: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it: PEM with BEGIN CERTIFICATE was expected".into()));
    }
    Ok(roots)
}

fn native_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this system has no root certificates"));
    }
    Ok(roots)
}
