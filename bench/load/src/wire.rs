//! A connection to the gateway, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What bytes go over.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Which certificate is expected, and what else is offered (ALPN).
#[derive(Clone, Debug)]
pub struct Tls {
    /// The name it must have
    pub server: String,
    /// Whom to trust
    pub config: Arc<ClientConfig>,
}

/// Connects, and shakes hands if there is TLS. With it comes a handle that sees the socket itself.
pub(crate) async fn connect(addr: SocketAddr, tls: Option<&Tls>) -> io::Result<(Box<dyn Duplex>, std::net::TcpStream)> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    let handle = std::net::TcpStream::from(rustix::io::dup(&socket)?);
    let Some(tls) = tls else { return Ok((Box::new(socket), handle)) };
    let name = ServerName::try_from(tls.server.clone()).map_err(io::Error::other)?;
    Ok((Box::new(TlsConnector::from(Arc::clone(&tls.config)).connect(name, socket).await?), handle))
}
