//! A connection to an upstream that counts what is read from it, and reads no more at once than it may.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType, tls,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::pool::Home;
use super::{Ahead, Budget, FULL};

/// Heads are read in pieces of this size, bodies in larger ones.
const HEAD: usize = 16 * 1024;
/// Turns of the task within which a piece comes to a filter, unless one before it is still being written: Pingora's two
/// halves of a request take turns in being first.
const TURNS: u8 = 2;
const PRESENT: &str = "present until dropped";

/// One connection, as long as it lives.
#[derive(Debug)]
pub(super) struct Wire {
    inner: Stream,
    /// Whom it leads to
    address: SocketAddr,
    ahead: Arc<Ahead>,
    digest: Arc<ProxyDigest>,
    /// How many turns the next read has waited
    waited: u8,
    /// Where somebody's patience has an end
    timer: Option<Pin<Box<Sleep>>>,
}

/// A connection for one request: what Pingora holds.
#[derive(Debug)]
pub(super) struct Counted {
    /// `None` only while being dropped
    wire: Option<Box<Wire>>,
    home: Home,
    /// Whether its response is over, and the next request may use it
    rests: bool,
}

impl Wire {
    pub(super) fn new(inner: Stream, address: SocketAddr, budget: Arc<Budget>) -> Box<Self> {
        let ahead = Ahead::new(budget);
        // Pingora shows a connection's digest to the request that takes it: so the two find each other.
        let unused = Box::new(ResponseHeader::build(200, Some(0)).expect("a status"));
        let digest = Arc::new(ProxyDigest::new(unused, Some(Box::new(Arc::clone(&ahead)))));
        Box::new(Self { inner, address, ahead, digest, waited: 0, timer: None })
    }

    pub(super) fn leads_to(&self, address: &SocketAddr) -> bool {
        self.address == *address
    }

    /// Whether the upstream has neither closed it nor sent anything that nobody has asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        tokio::task::unconstrained(self.inner.read(&mut byte)).now_or_never().is_none()
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

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_patience(cx)?;
        if buf.remaining() <= HEAD {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let most = self.ahead.next();
        // Rather than little at once, more when what has come is on its way.
        if most < FULL && self.waited < TURNS && self.ahead.is_coming() {
            self.waited += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if most >= buf.remaining() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        } else {
            ready!(Pin::new(&mut (&mut self.inner).take(most as u64)).poll_read(cx, buf))?;
        }
        self.waited = 0;
        self.ahead.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl Counted {
    /// For one request, after which `wire` goes to its home.
    pub(super) fn new(wire: Box<Wire>, home: Home) -> Self {
        Self { wire: Some(wire), home, rests: false }
    }

    fn wire(&self) -> &Wire {
        self.wire.as_deref().expect(PRESENT)
    }

    /// To read or write: it does not rest.
    fn used(&mut self) -> &mut Wire {
        self.rests = false;
        self.wire.as_deref_mut().expect(PRESENT)
    }
}

/// Whether this is Pingora's test of a connection whose response is over and which may be used again: it reads a single
/// byte, into one that has a value. All else reads into larger buffers, and ones without.
fn is_test(buf: &ReadBuf<'_>) -> bool {
    buf.capacity() == 1 && buf.initialized().len() == 1
}

impl Drop for Counted {
    /// What may be used again goes home.
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take().filter(|_| self.rests) {
            self.home.receive(wire);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let wire = this.used();
        if !is_test(buf) {
            return wire.poll_read(cx, buf);
        }
        match Pin::new(&mut wire.inner).poll_read(cx, buf) {
            // It is good. Pingora is told that it is not, and lets go of it.
            Poll::Pending => {
                // It would hold the task of this request until it fires.
                wire.timer = None;
                this.rests = true;
                Poll::Ready(Err(io::ErrorKind::WouldBlock.into()))
            }
            found => found,
        }
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.used().inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.used().inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire().inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.used().inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.used().inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Counted {
    async fn shutdown(&mut self) {
        self.used().inner.shutdown().await;
    }
}

impl UniqueID for Counted {
    fn id(&self) -> UniqueIDType {
        self.wire().inner.id()
    }
}

impl Ssl for Counted {
    fn get_ssl(&self) -> Option<&tls::TlsRef> {
        self.wire().inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<tls::SslDigest>> {
        self.wire().inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.wire().inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Counted {
    /// Nobody asks for it, and it would be made for each request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }

    fn get_read_pending_time(&self) -> std::time::Duration {
        self.wire().inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> std::time::Duration {
        self.wire().inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Counted {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.wire().digest))
    }
}

impl GetSocketDigest for Counted {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.wire().inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Counted {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.used().inner.try_peek(buf).await
    }
}
