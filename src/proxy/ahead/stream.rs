//! A connection to an upstream that counts what is read from it, and reads no more at once than it may.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType, tls,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::{Ahead, Budget, FULL};

/// Heads are read in pieces of this size, bodies in larger ones.
const HEAD: usize = 16 * 1024;
/// Turns of the task within which a piece comes to a filter, unless one before it is still being written: Pingora's two
/// halves of a request take turns in being first.
const TURNS: u8 = 2;

#[derive(Debug)]
pub(super) struct Counted {
    inner: Stream,
    ahead: Arc<Ahead>,
    digest: Arc<ProxyDigest>,
    /// How many turns the next read has waited
    waited: u8,
    /// Where somebody's patience has an end
    timer: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    pub(super) fn new(inner: Stream, budget: Arc<Budget>) -> Self {
        let ahead = Ahead::new(budget);
        // Pingora shows a connection's digest to the request that takes it: so the two find each other.
        let unused = Box::new(ResponseHeader::build(200, Some(0)).expect("a status"));
        let digest = Arc::new(ProxyDigest::new(unused, Some(Box::new(Arc::clone(&ahead)))));
        Self { inner, ahead, digest, waited: 0, timer: None }
    }

    /// Fails when it is time to give up, and wakes the task when that may be so.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(at) = self.ahead.patience.at() else {
            self.timer = None;
            return Ok(());
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if timer.deadline().into_std() != at {
            timer.as_mut().reset(at.into());
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_patience(cx)?;
        if buf.remaining() <= HEAD {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let most = this.ahead.next();
        // Rather than little at once, more when what has come is on its way.
        if most < FULL && this.waited < TURNS && this.ahead.is_coming() {
            this.waited += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if most >= buf.remaining() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            ready!(Pin::new(&mut (&mut this.inner).take(most as u64)).poll_read(cx, buf))?;
        }
        this.waited = 0;
        this.ahead.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Counted {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Counted {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Counted {
    fn get_ssl(&self) -> Option<&tls::TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<tls::SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Counted {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> std::time::Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> std::time::Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Counted {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Counted {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Counted {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}
