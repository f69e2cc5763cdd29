//! The TLS handshake of an accepted connection, and what it settled.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::transport::Transport;
use crate::http::TlsFacts;
use crate::tls::ServerTls;

/// How long a TLS handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn shake_hands(tls: &ServerTls, tcp: TcpStream) -> io::Result<(Transport, TlsFacts)> {
    let accept = TlsAcceptor::from(Arc::clone(&tls.config)).accept(tcp);
    let stream = tokio::time::timeout(TIMEOUT, accept).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let (_, session) = stream.get_ref();
    let sni = session.server_name().map(str::to_ascii_lowercase);
    let facts = TlsFacts {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        },
        cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or(""),
        http2: session.alpn_protocol() == Some(b"h2"),
        names: Arc::clone(&tls.certificates.pick(sni.as_deref()).names),
        sni,
    };
    Ok((Transport::Tls(Box::new(stream)), facts))
}
