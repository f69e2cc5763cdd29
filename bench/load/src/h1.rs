//! HTTP/1.1, one request after another on a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::wire::{self, Duplex, Tls};

/// More than any head that is meant well.
const MAX_HEAD: usize = 64 << 10;

/// How long what has arrived between two requests may take to turn out as an end.
const GLANCE: Duration = Duration::from_millis(20);

/// A connection.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Duplex>>,
    /// Sees what has arrived without the runtime, which learns of it later
    socket: std::net::TcpStream,
    /// The other end has said that it will close
    last: bool,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr, tls: Option<&Tls>) -> io::Result<Self> {
        let (stream, socket) = wire::connect(addr, tls).await?;
        Ok(Self { stream: BufReader::new(stream), socket, last: false })
    }

    /// Whether another request may be sent: the other end has neither announced its end nor closed.
    pub(crate) async fn is_open(&mut self) -> bool {
        if self.last {
            return false;
        }
        match self.socket.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(_) | Ok(0) => false,
            // Records of TLS: its goodbye, or a session ticket, which is nothing to read.
            Ok(_) => timeout(GLANCE, self.stream.fill_buf()).await.is_err(),
        }
    }

    /// Sends `request` and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.get_mut().write_all(request).await?;
        self.stream.get_mut().flush().await?;
        let mut line = Vec::new();
        self.line(&mut line, "before an answer").await?;
        let status = std::str::from_utf8(&line)
            .ok()
            .and_then(|text| text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
            .ok_or_else(|| invalid(&line))?;
        let (mut length, mut chunked, mut read) = (None, false, line.len());
        loop {
            self.line(&mut line, "in an answer's head").await?;
            read += line.len();
            let text = std::str::from_utf8(&line).map_err(|_| invalid(&line))?.trim_end();
            if text.is_empty() {
                break;
            }
            let (name, value) = text.split_once(':').filter(|_| read <= MAX_HEAD).ok_or_else(|| invalid(&line))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse().map_err(|_| invalid(&line))?),
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => self.last |= value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        let mut body = Vec::new();
        match length {
            Some(length) => self.exactly(length, &mut body).await?,
            None if chunked => loop {
                self.line(&mut line, "between chunks").await?;
                let text = std::str::from_utf8(&line).map_err(|_| invalid(&line))?;
                let size = u64::from_str_radix(text.trim_end(), 16).map_err(|_| invalid(&line))?;
                self.exactly(size, &mut body).await?;
                self.line(&mut line, "after a chunk").await?;
                if size == 0 {
                    break;
                }
            },
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that does not say where it ends"));
            }
        }
        Ok(Answer { status, body })
    }

    async fn line(&mut self, line: &mut Vec<u8>, place: &str) -> io::Result<()> {
        line.clear();
        (&mut self.stream).take(MAX_HEAD as u64).read_until(b'\n', line).await?;
        if line.ends_with(b"\r\n") { Ok(()) } else { Err(cut(place)) }
    }

    async fn exactly(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.stream).take(length).read_to_end(body).await? as u64;
        if read == length { Ok(()) } else { Err(cut("in an answer's body")) }
    }
}

fn cut(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed {place}"))
}

fn invalid(line: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {}", line.escape_ascii()))
}
