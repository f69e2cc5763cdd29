//! Connections for requests that ask to upgrade.
//!
//! Pingora sends the end of a request's (empty) body to the half of it that talks to the upstream by a channel, and
//! that half reads the channel and the socket in random order. When an upstream's 101 is read first, the end of the
//! body that comes behind it is taken for the end of the upgraded stream (cloudflare/pingora#946). So on these
//! connections the first read after a write waits for one more turn of the task: by then the channel has been read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Lets others go first when a read follows a write.
#[derive(Debug)]
pub(super) struct Polite<T> {
    socket: T,
    written: bool,
}

impl<T> Polite<T> {
    pub(super) fn new(socket: T) -> Self {
        Self { socket, written: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Polite<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.written) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Polite<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.written = true;
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl VirtualSocket for Polite<TcpStream> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        use rustix::net::sockopt;
        let socket = &self.socket;
        match option {
            VirtualSockOpt::NoDelay => socket.set_nodelay(true),
            VirtualSockOpt::KeepAlive(keepalive) => {
                sockopt::set_socket_keepalive(socket, true)?;
                sockopt::set_tcp_keepidle(socket, keepalive.idle)?;
                sockopt::set_tcp_keepintvl(socket, keepalive.interval)?;
                let count = u32::try_from(keepalive.count).unwrap_or(u32::MAX);
                Ok(sockopt::set_tcp_keepcnt(socket, count)?)
            }
            // Pingora sets no other.
            _ => Ok(()),
        }
    }
}

impl VirtualSocket for Polite<UnixStream> {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_read_after_a_write_waits_for_one_turn() {
        let (here, mut there) = tokio::io::duplex(64);
        let mut polite = Polite::new(here);
        there.write_all(b"ab").await.expect("room");
        assert_eq!(polite.read_u8().await.expect("there"), b'a');
        polite.write_all(b"x").await.expect("room");
        let mut byte = [0];
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut polite).poll_read(cx, &mut ReadBuf::new(&mut byte)))).await;
        assert!(first.is_pending());
        assert_eq!(polite.read_u8().await.expect("there"), b'b');
    }
}
