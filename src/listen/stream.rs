//! A client's connection as Pingora sees it: buffered both ways, cut at the end of each message, bound by a deadline.
//!
//! Pingora's own buffered stream cannot be built from outside its crate, and an unbuffered one sends the head and the
//! body of a response in two system calls. This one also keeps the bytes behind a message to itself: Pingora is given a
//! head that was checked and exactly the body that belongs to it, so what a client sends ahead of time (pipelining, or
//! an attempt to smuggle) never meets its parser early.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_core::upstreams::peer::ALPN;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::body::Progress;
use super::head::Head;
use super::transport::Transport;
use crate::http::Connection;

/// Bytes of a response gathered before they are sent; more than this leaves at once.
const WRITE_BUFFER: usize = 16 * 1024;
/// How long a connection that we closed is still read, so that a reset does not overtake our last answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much is read and thrown away in that time.
const LINGER_BYTES: usize = 1024 * 1024;

/// The stream handed to Pingora.
#[derive(Debug)]
pub(super) struct Stream {
    /// `None` only while being dropped
    transport: Option<Transport>,
    /// Read, but not yet given to Pingora
    input: BytesMut,
    /// How much of `input` belongs to the current message
    given: usize,
    /// Where in its body the current message is, counted behind `given`
    progress: Progress,
    /// The client asked to upgrade and has not been answered
    upgrade: bool,
    /// Written by Pingora, but not yet sent
    output: BytesMut,
    /// The client will send no more
    ended: bool,
    /// Something was sent to the client
    answered: bool,
    timer: Option<Pin<Box<Sleep>>>,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
}

impl Stream {
    /// Wraps an accepted (and, with TLS, shaken) connection.
    pub(super) fn new(transport: Transport, connection: Arc<Connection>, digest: Arc<ProxyDigest>) -> Self {
        Self {
            transport: Some(transport),
            input: BytesMut::new(),
            given: 0,
            progress: Progress::Done,
            upgrade: false,
            output: BytesMut::new(),
            ended: false,
            answered: false,
            timer: None,
            connection,
            digest,
        }
    }

    /// For h2, which has framing of its own: every byte is passed on.
    pub(super) fn opaque(mut self) -> Self {
        self.progress = Progress::Opaque;
        self
    }

    /// Facts of the connection, shared with its requests.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Bytes that arrived and belong to no message yet.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.input[self.given..]
    }

    /// Drops bytes in front of a message (an empty line, RFC 9112 section 2.2).
    pub(super) fn skip(&mut self, count: usize) {
        debug_assert_eq!(self.given, 0, "between messages");
        self.input.advance(count);
    }

    /// Reads what arrives into [`Self::waiting`]; 0 is the end.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let transport = self.transport.as_mut().expect("present until dropped");
        let read = transport.read_buf(&mut self.input).await?;
        self.ended = read == 0;
        Ok(read)
    }

    /// The current message is over; gives back buffers that an idle connection need not hold.
    pub(super) fn rest(&mut self) {
        self.given = 0;
        self.upgrade = false;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.output = BytesMut::new();
    }

    /// Whether the message that Pingora was given has been read to its end.
    pub(super) fn at_message_end(&self) -> bool {
        self.given == 0 && self.progress == Progress::Done && !self.ended
    }

    /// Starts the message whose checked head stands at the front of the input.
    ///
    /// # Errors
    /// The first bytes of a chunked body already violate the coding.
    pub(super) fn begin(&mut self, head: &Head) -> io::Result<()> {
        self.progress = Progress::new(head.body);
        self.upgrade = head.upgrade;
        let body = self.progress.advance(&self.input[head.len..]).map_err(|_| broken_coding())?;
        self.given = head.len + body;
        Ok(())
    }

    /// Fails once the connection's deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = self.connection.deadline.at() else {
            return Ok(());
        };
        let deadline = Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // The timer may be set for an earlier request: it is moved only when it fires too early, or would be late.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            timer.as_mut().reset(deadline);
        }
        Ok(())
    }

    /// At the end of a message nothing is read for Pingora; only an error of the connection is of interest to it.
    /// A client that has half-closed still wants its answer, so an end is remembered but not passed on.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || !self.input.is_empty() {
            return Poll::Pending;
        }
        let mut byte = [0; 1];
        let mut probe = ReadBuf::new(&mut byte);
        let transport = self.transport.as_mut().expect("present until dropped");
        ready!(Pin::new(transport).poll_read(cx, &mut probe))?;
        self.ended = probe.filled().is_empty();
        self.input.extend_from_slice(probe.filled());
        Poll::Pending
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let transport = self.transport.as_mut().expect("present until dropped");
        ready!(Pin::new(transport).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        self.ended = new.is_empty();
        let taken = self.progress.advance(new).map_err(|_| broken_coding())?;
        self.input.extend_from_slice(&new[taken..]);
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = self.transport.as_mut().expect("present until dropped");
        while !self.output.is_empty() {
            let sent = ready!(Pin::new(&mut *transport).poll_write(cx, &self.output))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

fn broken_coding() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunked coding is violated")
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        if this.given > 0 {
            let count = this.given.min(buf.remaining());
            buf.put_slice(&this.input[..count]);
            this.input.advance(count);
            this.given -= count;
            return Poll::Ready(Ok(()));
        }
        match this.progress {
            Progress::Done => this.poll_quiet(cx),
            Progress::Opaque if !this.input.is_empty() => {
                let count = this.input.len().min(buf.remaining());
                buf.put_slice(&this.input[..count]);
                this.input.advance(count);
                Poll::Ready(Ok(()))
            }
            Progress::Opaque | Progress::Length(_) | Progress::Chunked(_) => this.poll_body(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        this.answered = true;
        // What the client is told decides, not what was intended: from a 101 on, bytes are no longer HTTP.
        if this.upgrade && data.starts_with(b"HTTP/1.1 101 ") {
            this.upgrade = false;
            this.progress = Progress::Opaque;
        }
        if this.output.len() + data.len() <= WRITE_BUFFER {
            this.output.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        if this.output.is_empty() {
            let transport = this.transport.as_mut().expect("present until dropped");
            return Pin::new(transport).poll_write(cx, data);
        }
        let transport = this.transport.as_mut().expect("present until dropped");
        let pieces = [io::IoSlice::new(&this.output), io::IoSlice::new(data)];
        let sent = ready!(Pin::new(transport).poll_write_vectored(cx, &pieces))?;
        let buffered = this.output.len();
        this.output.advance(sent.min(buffered));
        if sent > buffered {
            return Poll::Ready(Ok(sent - buffered));
        }
        ready!(this.poll_drain(cx))?;
        let count = data.len().min(WRITE_BUFFER);
        this.output.extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        ready!(this.poll_drain(cx))?;
        Pin::new(this.transport.as_mut().expect("present until dropped")).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(this.transport.as_mut().expect("present until dropped")).poll_shutdown(cx)
    }
}

impl Drop for Stream {
    /// A response that broke off ends in a reset. Any other answer is followed by a lingering close (RFC 9112 section
    /// 9.6): closing with unread bytes would reset the connection, and the client might lose the answer.
    fn drop(&mut self) {
        let Some(transport) = self.transport.take() else {
            return;
        };
        if self.connection.is_aborted() {
            transport.reset_on_close();
        } else if self.answered && !self.ended && self.progress != Progress::Opaque {
            let output = std::mem::take(&mut self.output);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(linger(transport, output));
            }
        }
    }
}

async fn linger(mut transport: Transport, output: BytesMut) {
    let close = async {
        transport.write_all(&output).await?;
        transport.shutdown().await?;
        let mut sink = [0; 4096];
        let mut left = LINGER_BYTES;
        loop {
            match transport.read(&mut sink).await? {
                0 => return io::Result::Ok(()),
                count if count >= left => return Ok(()),
                count => left -= count,
            }
        }
    };
    // However it ends, the connection is gone and nobody waits for it.
    drop(tokio::time::timeout(LINGER, close).await);
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        if let Err(error) = AsyncWriteExt::shutdown(self).await {
            log::debug!("closing the connection of {}: {error}", self.connection.peer);
        }
    }
}

impl UniqueID for Stream {
    fn id(&self) -> UniqueIDType {
        self.transport.as_ref().expect("present until dropped").raw_id()
    }
}

impl Ssl for Stream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.connection.tls.as_ref().map(|tls| if tls.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Stream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Stream {}
