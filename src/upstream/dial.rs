//! Connecting by ourselves, where Pingora's way does not do: for what is said in front of everything else
//! ([`announce`](super::announce)), and for what is to be upgraded ([`upgrade`](super::upgrade)).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSocket, VirtualSocketStream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{BError, Error, ErrorType};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::announce::pool_key;
use super::group::seed;
use super::upgrade::Polite;

/// Makes `peer` one that `header` is said to first, and whose connection may be upgraded if it `upgrades`.
pub(super) fn adapt(peer: &mut HttpPeer, header: Option<Vec<u8>>, upgrades: bool) {
    if upgrades {
        // A new connection that is used once: nobody else has its key.
        peer.group_key = seed();
        peer.options.idle_timeout = Some(Duration::ZERO);
    } else if let Some(header) = &header {
        peer.group_key = pool_key(peer.group_key, header);
    }
    if upgrades || header.is_some() {
        peer.options.custom_l4 = Some(Arc::new(Dial { header: header.unwrap_or_default(), upgrades }));
    }
}

#[derive(Debug)]
struct Dial {
    header: Vec<u8>,
    upgrades: bool,
}

#[async_trait]
impl Connect for Dial {
    async fn connect(&self, addr: &SocketAddr) -> Result<Stream, BError> {
        match addr {
            SocketAddr::Inet(addr) => {
                let mut socket = TcpStream::connect(addr).await.map_err(failed)?;
                // Or the request would wait until the header is acknowledged.
                socket.set_nodelay(true).map_err(failed)?;
                self.announce(&mut socket).await?;
                Ok(if self.upgrades { polite(Polite::new(socket)) } else { socket.into() })
            }
            SocketAddr::Unix(addr) => {
                let path = addr.as_pathname().ok_or_else(|| Error::new(ErrorType::ConnectError))?;
                let mut socket = UnixStream::connect(path).await.map_err(failed)?;
                self.announce(&mut socket).await?;
                Ok(if self.upgrades { polite(Polite::new(socket)) } else { socket.into() })
            }
        }
    }
}

impl Dial {
    async fn announce(&self, socket: &mut (impl AsyncWrite + Unpin)) -> Result<(), BError> {
        socket.write_all(&self.header).await.map_err(failed)
    }
}

fn polite(socket: impl VirtualSocket + 'static) -> Stream {
    VirtualSocketStream::new(Box::new(socket)).into()
}

fn failed(error: io::Error) -> BError {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    };
    Error::because(kind, "while connecting", error)
}
