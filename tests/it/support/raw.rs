//! Bytes in, bytes out.

use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use super::message::{Response, read_response};
use super::wire::Wire;

/// A connection on which a test says each byte itself.
pub(crate) struct Raw(Wire);

impl Raw {
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self(Wire::connect(addr).expect("connected"))
    }

    /// With TLS for the name `server`.
    #[track_caller]
    pub(crate) fn connect_tls(addr: SocketAddr, server: &str, config: Arc<ClientConfig>) -> Self {
        Self(Wire::connect_tls(addr, server, config).expect("a TLS connection"))
    }

    /// The same, with `header` in front of the handshake.
    #[track_caller]
    pub(crate) fn connect_tls_behind(addr: SocketAddr, header: &[u8], server: &str, config: Arc<ClientConfig>) -> Self {
        Self(Wire::connect_tls_behind(addr, header, server, config).expect("a TLS connection"))
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.send(bytes).expect("sent");
        self
    }

    /// Like [`Self::send`], for bytes that the other end may refuse to take.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.send(bytes)
    }

    /// The next response, to a request that was not a HEAD.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response("GET").expect("a whole response")
    }

    /// The next response to a request of `method`.
    pub(crate) fn try_response(&mut self, method: &str) -> io::Result<Response> {
        read_response(&mut self.0.reader, method)
    }

    /// Everything up to and with `end`.
    #[track_caller]
    pub(crate) fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            let mut byte = [0];
            let count = self.0.reader.read(&mut byte).expect("read in time");
            assert!(count > 0, "closed before {:?}: {:?}", end.escape_ascii().to_string(), text(&read));
            read.push(byte[0]);
        }
        read
    }

    /// Exactly `count` bytes.
    #[track_caller]
    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut read = vec![0; count];
        self.0.reader.read_exact(&mut read).expect("read in time");
        read
    }

    /// Everything until the other end closes. A reset is an error.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        self.0.reader.read_to_end(&mut read)?;
        Ok(read)
    }

    /// Waits for the other end to close, by goodbye or reset, and fails on bytes before that.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        match self.0.reader.fill_buf() {
            Ok([]) => {}
            Ok(bytes) => panic!("not closed, but {:?}", text(bytes)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("not closed: {error}"),
        }
    }

    /// Whether the other end has neither closed nor sent anything that is still unread. Does not wait.
    pub(crate) fn is_quiet(&self) -> bool {
        let socket = self.0.socket();
        socket.set_nonblocking(true).expect("a socket");
        let peeked = socket.peek(&mut [0]);
        socket.set_nonblocking(false).expect("a socket");
        self.0.reader.buffer().is_empty() && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent, and still reads.
    #[track_caller]
    pub(crate) fn finish_sending(&mut self) -> &mut Self {
        self.0.finish_sending().expect("half closed");
        self
    }

    /// Ends it with a reset instead of a goodbye.
    pub(crate) fn reset(self) {
        self.0.reset();
    }

    /// This end's address.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.0.socket().local_addr().expect("connected")
    }
}

/// Sends `bytes` on a connection of their own and returns all that comes back until the other end closes it.
pub(crate) fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(addr);
    raw.send(bytes);
    text(&raw.rest().expect("an end in time"))
}

/// Sends `bytes` on a connection of their own that the other end closes without a word, be it as soon as it is there.
#[track_caller]
pub(crate) fn expect_no_answer(addr: SocketAddr, bytes: impl AsRef<[u8]>) {
    let mut raw = match Wire::connect(addr) {
        Ok(wire) => Raw(wire),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
        Err(error) => panic!("not even connected: {error}"),
    };
    // It may be gone already.
    drop(raw.try_send(bytes));
    raw.expect_closed();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
