//! The TLS handshake of an accepted connection, and what it settled.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{Error, PeerIncompatible, ProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::transport::Transport;
use crate::http::TlsFacts;
use crate::telemetry::{HandshakeFailure, ListenerMetrics};
use crate::tls::{ServerTls, is_resumed};

/// How long a TLS handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Shakes hands, and counts how that went.
pub(super) async fn shake_hands(
    tls: &ServerTls,
    tcp: TcpStream,
    metrics: &ListenerMetrics,
) -> io::Result<(Transport, TlsFacts)> {
    let shaken = shake(tls, tcp).await;
    match &shaken {
        Ok((_, facts, is_resumed)) => metrics.shaken(facts.version, *is_resumed),
        Err(error) => metrics.handshake_failed(failure(error)),
    }
    shaken.map(|(transport, facts, _)| (transport, facts))
}

async fn shake(tls: &ServerTls, tcp: TcpStream) -> io::Result<(Transport, TlsFacts, bool)> {
    let accept = TlsAcceptor::from(Arc::clone(&tls.config)).accept(tcp);
    let stream = tokio::time::timeout(TIMEOUT, accept).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let (_, session) = stream.get_ref();
    let client = tls.client(session).map_err(io::Error::other)?;
    let sni = session.server_name().map(str::to_ascii_lowercase);
    let facts = TlsFacts {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or(""),
        http2: session.alpn_protocol() == Some(b"h2"),
        names: Arc::clone(&tls.certificates.pick(sni.as_deref()).names),
        sni,
        client,
    };
    let is_resumed = is_resumed(session);
    Ok((Transport::Tls(Box::new(stream)), facts, is_resumed))
}

/// What kind of failure this is.
fn failure(error: &io::Error) -> HandshakeFailure {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match of_tls {
        None if error.kind() == io::ErrorKind::TimedOut => HandshakeFailure::Timeout,
        None => HandshakeFailure::Closed,
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => HandshakeFailure::Malformed,
        Some(Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic,
        )) => HandshakeFailure::Version,
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => HandshakeFailure::Incompatible,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => HandshakeFailure::ClientCertificate,
        Some(Error::AlertReceived(_)) => HandshakeFailure::Alert,
        Some(
            Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError,
        ) => HandshakeFailure::Misbehaved,
        Some(_) => HandshakeFailure::Internal,
    }
}
