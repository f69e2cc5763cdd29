//! Certificates: load them, pick one by SNI. Never logs a key.

mod certificate;
mod resolver;

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

pub use certificate::Certificate;
pub use resolver::Certificates;

use crate::config::{self, Problem, Protocol};

/// Everything a listener needs to shake hands.
#[derive(Debug)]
pub struct ServerTls {
    /// Chosen by SNI; the first is the default
    pub certificates: Arc<Certificates>,
    /// Ready to accept with
    pub config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Parses the certificates and keys of a listener.
    ///
    /// # Errors
    /// A chain or key that cannot be read, or a key that does not belong to its certificate; paths are relative to the
    /// listener's table.
    pub fn build(spec: &config::Tls, protocols: &[Protocol], provider: &Arc<CryptoProvider>) -> Result<Self, Problem> {
        let certificates = Arc::new(Certificates::build(&spec.certificates, provider)?);
        let versions: &[&rustls::SupportedProtocolVersion] =
            if spec.min_version == rustls::ProtocolVersion::TLSv1_3 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .map_err(|error| Problem::new("tls.min_version", error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
        config.alpn_protocols = protocols.iter().map(|protocol| alpn(*protocol).to_vec()).collect();
        Ok(Self { certificates, config: Arc::new(config) })
    }
}

/// The registered ALPN name.
fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        // Never beside TLS.
        Protocol::Http2 | Protocol::Http2Cleartext => b"h2",
    }
}
