//! A client of TLS that remembers its sessions, and tells how it was let in.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, StreamOwned};

use super::certs::{Ca, Identity, provider};
use super::client::Request;
use super::message::{Response, read_response};
use super::wait::PATIENCE;

/// One handshake and one request.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) kind: HandshakeKind,
    pub(crate) version: ProtocolVersion,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) response: Response,
}

impl Visit {
    pub(crate) fn is_resumed(&self) -> bool {
        self.kind == HandshakeKind::Resumed
    }
}

/// Somebody who comes again. Sessions are remembered by the name of the server, whatever its address.
#[derive(Clone)]
pub(crate) struct Visitor(Arc<ClientConfig>);

impl Visitor {
    /// Speaks `version` alone.
    pub(crate) fn new(ca: &Ca, version: ProtocolVersion, identity: Option<&Identity>) -> Self {
        Self::of(ca, provider(), version, identity)
    }

    /// Knows these groups alone, the best first.
    pub(crate) fn with_groups(ca: &Ca, groups: &[&'static dyn SupportedKxGroup]) -> Self {
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..CryptoProvider::clone(&provider()) };
        Self::of(ca, Arc::new(provider), ProtocolVersion::TLSv1_3, None)
    }

    fn of(ca: &Ca, provider: Arc<CryptoProvider>, version: ProtocolVersion, identity: Option<&Identity>) -> Self {
        let versions = if version == ProtocolVersion::TLSv1_3 { [&TLS13] } else { [&TLS12] };
        Self(Arc::new(ca.client_config(provider, &versions, &[], identity)))
    }

    pub(crate) fn visit(&self, addr: SocketAddr, request: &Request) -> io::Result<Visit> {
        self.visit_as("gateway.test", addr, request)
    }

    pub(crate) fn visit_as(&self, server: &str, addr: SocketAddr, request: &Request) -> io::Result<Visit> {
        let mut socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(server.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(&self.0), name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let (kind, version) = (tls.handshake_kind().expect("settled"), tls.protocol_version().expect("settled"));
        let group = tls.negotiated_key_exchange_group().map(|group| group.name());
        let mut stream = BufReader::new(StreamOwned::new(tls, socket));
        io::Write::write_all(stream.get_mut(), &request.bytes(server))?;
        // The tickets of TLS 1.3 arrive before it.
        let response = read_response(&mut stream, &request.method)?;
        Ok(Visit { kind, version, group, response })
    }
}
