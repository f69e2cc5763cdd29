//! Certificates: load them, pick one by SNI, know clients by theirs; and what a session is resumed with. Never logs a
//! key.

mod certificate;
mod client;
mod resolver;
mod ticket;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

pub use certificate::Certificate;
pub use client::parse as parse_client_certificate;
pub use resolver::Certificates;
pub use ticket::{TicketKey, TicketKeys};

use self::client::Clients;
use self::ticket::Ticketer;
use crate::config::{self, Problem, Protocol};
use crate::http::ClientCertificate;

/// Everything a listener needs to shake hands.
#[derive(Debug)]
pub struct ServerTls {
    /// Chosen by SNI; the first is the default
    pub certificates: Arc<Certificates>,
    /// Ready to accept with
    pub config: Arc<ServerConfig>,
    /// Present = clients are asked for a certificate
    clients: Option<Clients>,
}

/// What all listeners share.
#[derive(Clone, Debug)]
pub struct TlsTools {
    /// Who does the cryptography
    pub provider: Arc<CryptoProvider>,
    /// What sessions are resumed with
    pub ticket_keys: Arc<TicketKeys>,
}

impl TlsTools {
    /// aws-lc-rs, and these keys.
    pub fn new(ticket_keys: TicketKeys) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Self { provider, ticket_keys: Arc::new(ticket_keys) }
    }
}

impl ServerTls {
    /// Parses the certificates and keys of the listener `name`.
    ///
    /// # Errors
    /// A chain or key that cannot be read, or a key that does not belong to its certificate; paths are relative to the
    /// listener's table.
    pub fn build(name: &str, spec: &config::Tls, protocols: &[Protocol], tools: &TlsTools) -> Result<Self, Problem> {
        let provider = &tools.provider;
        let certificates = Arc::new(Certificates::build(&spec.certificates, provider)?);
        let clients = spec.clients.as_ref().map(|clients| Clients::build(clients, provider)).transpose()?;
        let versions: &[&rustls::SupportedProtocolVersion] =
            if spec.min_version == rustls::ProtocolVersion::TLSv1_3 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .map_err(|error| Problem::new("tls.min_version", error.to_string()))?;
        let config = match &clients {
            None => config.with_no_client_auth(),
            Some(clients) => config.with_client_cert_verifier(clients.verifier()),
        };
        let mut config = config.with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
        config.alpn_protocols = protocols.iter().map(|protocol| alpn(*protocol).to_vec()).collect();
        config.ticketer = Arc::new(Ticketer::new(&tools.ticket_keys, name, spec.clients.as_ref()));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { certificates, config: Arc::new(config), clients })
    }

    /// Who is at the other end of a connection that was shaken just now, as far as the listener asks.
    ///
    /// # Errors
    /// Nobody who may be there.
    pub fn client(&self, session: &ServerConnection) -> Result<Option<ClientCertificate>, rustls::Error> {
        let Some(clients) = &self.clients else {
            return Ok(None);
        };
        let shown: Option<&[CertificateDer<'_>]> = session.peer_certificates();
        clients.identify(shown, is_resumed(session), UnixTime::now())
    }
}

/// Whether a session goes on. A kind of handshake that is yet to be invented counts as that, to be looked at twice.
pub fn is_resumed(session: &ServerConnection) -> bool {
    !matches!(session.handshake_kind(), Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest))
}

/// The registered ALPN name.
fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        // Never beside TLS.
        Protocol::Http2 | Protocol::Http2Cleartext => b"h2",
    }
}
