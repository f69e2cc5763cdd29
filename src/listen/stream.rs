//! A client's connection as Pingora sees it: buffered both ways, cut at the end of each message, bound by a deadline.
//!
//! Pingora's own buffered stream cannot be built from outside its crate, and an unbuffered one sends the head and the
//! body of a response in two system calls. This one also keeps the bytes behind a message to itself: Pingora is given a
//! head that was checked and exactly the body that belongs to it, so what a client sends ahead of time (pipelining, or
//! an attempt to smuggle) never meets its parser early.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_core::upstreams::peer::ALPN;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::alarm::Alarm;
use super::body::Progress;
use super::close;
use super::crowd::Member;
use super::flood::Allowance;
use super::head::Head;
use super::transport::Transport;
use super::worker::Served;
use crate::control::ConnectionGuard;
use crate::http::Connection;
use crate::telemetry::OpenConnection;

/// Bytes of a response gathered before they are sent; more than this leaves at once.
const WRITE_BUFFER: usize = 16 * 1024;
/// What one read takes from the socket while nobody waits for a body. On the stack, so that an idle connection holds
/// no buffer.
const READ_AHEAD: usize = 8 * 1024;

/// What holds a connection's place: in the cap, in the drain and in the gauge.
#[derive(Debug)]
pub(super) struct Place {
    /// In the cap
    pub(super) permit: OwnedSemaphorePermit,
    /// Among those of its worker
    pub(super) served: Served,
    /// Among those a drain waits for
    pub(super) drain: ConnectionGuard,
    /// In the gauge
    pub(super) gauge: OpenConnection,
    /// Among those of its address, where they are counted
    pub(super) member: Option<Member>,
}

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
    /// We said that we will send no more
    shut: bool,
    alarm: Alarm,
    /// With h2 only: what its frames may still ask for, and who is told once that is too much
    allowance: Option<Box<(Allowance, Arc<Notify>)>>,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    place: Option<Place>,
}

impl Stream {
    /// Wraps an accepted (and, with TLS, shaken) connection.
    pub(super) fn new(
        transport: Transport,
        connection: Arc<Connection>,
        digest: Arc<ProxyDigest>,
        place: Place,
    ) -> Self {
        Self {
            transport: Some(transport),
            input: BytesMut::new(),
            given: 0,
            progress: Progress::Done,
            upgrade: false,
            output: BytesMut::new(),
            ended: false,
            shut: false,
            alarm: Alarm::default(),
            allowance: None,
            connection,
            digest,
            place: Some(place),
        }
    }

    /// For h2, which has framing of its own: every byte is passed on.
    pub(super) fn opaque(mut self) -> Self {
        self.progress = Progress::Opaque;
        self
    }

    /// From now on frames are counted. Once the client's allowance is spent nothing more is read, and `spent` is told.
    pub(super) fn allow_frames(&mut self, spent: Arc<Notify>) {
        self.allowance = Some(Box::new((Allowance::new(Instant::now()), spent)));
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
        std::future::poll_fn(|cx| self.poll_ahead::<READ_AHEAD>(cx)).await
    }

    /// Reads at most `MOST` bytes behind what is there already.
    fn poll_ahead<const MOST: usize>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); MOST];
        let mut read = ReadBuf::uninit(&mut space);
        let transport = self.transport.as_mut().expect("present until dropped");
        ready!(Pin::new(transport).poll_read(cx, &mut read))?;
        self.ended = read.filled().is_empty();
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// The current message is over, and with it its bounds; gives back buffers that an idle connection need not hold.
    pub(super) fn rest(&mut self) {
        self.connection.deadline.lift();
        self.connection.end_with_client(false);
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
        match self.alarm.poll(&self.connection.deadline, Duration::ZERO, cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// At the end of a message nothing is read for Pingora; only an error of the connection is of interest to it.
    /// A client that has half-closed still wants its answer, so an end is remembered but passed on only where it can
    /// mean nothing else than that the client has left.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended && self.input.is_empty() {
            ready!(self.poll_ahead::<1>(cx))?;
        }
        if self.ended && self.connection.ends_with_client() { Poll::Ready(Ok(())) } else { Poll::Pending }
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

    fn poll_message(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given > 0 {
            let count = self.given.min(buf.remaining());
            buf.put_slice(&self.input[..count]);
            self.input.advance(count);
            self.given -= count;
            return Poll::Ready(Ok(()));
        }
        match self.progress {
            Progress::Done => self.poll_quiet(cx),
            Progress::Opaque if !self.input.is_empty() => {
                let count = self.input.len().min(buf.remaining());
                buf.put_slice(&self.input[..count]);
                self.input.advance(count);
                Poll::Ready(Ok(()))
            }
            Progress::Opaque | Progress::Length(_) | Progress::Chunked(_) => self.poll_body(cx, buf),
        }
    }

    fn spend(&mut self, count: impl FnOnce(&mut Allowance)) {
        if let Some((allowance, spent)) = self.allowance.as_deref_mut() {
            count(allowance);
            self.connection.window.set(allowance.window());
            if allowance.is_spent() {
                spent.notify_one();
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let transport = self.transport.as_mut().expect("present until dropped");
            let sent = ready!(Pin::new(transport).poll_write(cx, &self.output))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(sent);
            self.connection.deadline.moved(Instant::now());
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what was gathered and `data` in one call; returns how much of `data` was taken.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let transport = self.transport.as_mut().expect("present until dropped");
        let sent = if self.output.is_empty() {
            ready!(Pin::new(transport).poll_write(cx, data))?
        } else {
            let pieces = [io::IoSlice::new(&self.output), io::IoSlice::new(data)];
            ready!(Pin::new(transport).poll_write_vectored(cx, &pieces))?
        };
        self.connection.deadline.moved(Instant::now());
        let gathered = self.output.len();
        self.output.advance(sent.min(gathered));
        if sent > gathered {
            return Poll::Ready(Ok(sent - gathered));
        }
        ready!(self.poll_drain(cx))?;
        let count = data.len().min(WRITE_BUFFER);
        self.output.extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }
}

fn broken_coding() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunked coding is violated")
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        let Some((allowance, _)) = this.allowance.as_deref() else {
            return this.poll_message(cx, buf);
        };
        if allowance.is_spent() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(this.poll_message(cx, buf))?;
        this.spend(|allowance| allowance.received(&buf.filled()[before..], Instant::now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        // What the client is told decides, not what was intended: from a 101 on, bytes are no longer HTTP.
        if this.upgrade && data.starts_with(b"HTTP/1.1 101 ") {
            this.upgrade = false;
            this.progress = Progress::Opaque;
        }
        let taken = if this.output.len() + data.len() <= WRITE_BUFFER {
            this.output.extend_from_slice(data);
            data.len()
        } else {
            ready!(this.poll_send(cx, data))?
        };
        this.spend(|allowance| allowance.sent(&data[..taken], Instant::now));
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        ready!(this.poll_drain(cx))?;
        Pin::new(this.transport.as_mut().expect("present until dropped")).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_deadline(cx)?;
        ready!(this.poll_drain(cx))?;
        ready!(Pin::new(this.transport.as_mut().expect("present until dropped")).poll_shutdown(cx))?;
        this.shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    /// A response that broke off ends in a reset; anything else is closed so that nothing of it is lost.
    fn drop(&mut self) {
        let (Some(transport), Some(place)) = (self.transport.take(), self.place.take()) else {
            return;
        };
        if self.connection.is_aborted() {
            transport.reset_on_close();
            return;
        }
        let spent = self.allowance.as_deref().is_some_and(|(allowance, _)| allowance.is_spent());
        let unread = spent || !self.input.is_empty() || !matches!(self.progress, Progress::Done | Progress::Opaque);
        let output = std::mem::take(&mut self.output);
        close::begin(close::Closing { transport, place, output, unread, ended: self.ended, shut: self.shut });
    }
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
        self.connection.tls.as_ref().map(|_| if self.connection.http2 { ALPN::H2 } else { ALPN::H1 })
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
