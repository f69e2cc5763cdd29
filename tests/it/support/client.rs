//! An HTTP/1.1 client that takes an answer for whole only when it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use super::message::{Fields, Response, read_response};
use super::wire::Wire;

/// What to ask.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Fields,
    pub(crate) host: Option<String>,
    pub(crate) body: Option<Body>,
    address: Option<Address>,
}

/// How a body is sent.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Sized(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

/// Where to ask.
#[derive(Clone, Debug)]
struct Address {
    addr: SocketAddr,
    tls: Option<(String, Arc<ClientConfig>)>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Fields::default(),
            host: None,
            body: None,
            address: None,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Where [`Self::send`] connects to.
    #[must_use]
    pub(crate) fn to(mut self, addr: SocketAddr) -> Self {
        self.address = Some(Address { addr, tls: None });
        self
    }

    /// Where [`Self::send`] connects to, with TLS for the name `server`, which becomes the Host as well.
    #[must_use]
    pub(crate) fn over_tls(mut self, addr: SocketAddr, server: &str, config: Arc<ClientConfig>) -> Self {
        self.address = Some(Address { addr, tls: Some((server.to_owned(), config)) });
        self.host.get_or_insert_with(|| server.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    #[must_use]
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(Body::Sized(body.into()));
        self
    }

    #[must_use]
    pub(crate) fn chunks(mut self, chunks: &[&[u8]]) -> Self {
        self.body = Some(Body::Chunked(chunks.iter().map(|chunk| chunk.to_vec()).collect()));
        self
    }

    /// Its bytes; `host` is what is sent as Host unless the request has one.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let host = self.host.as_deref().unwrap_or(host);
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers.0 {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match &self.body {
            None => bytes.extend_from_slice(b"\r\n"),
            Some(Body::Sized(body)) => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
            Some(Body::Chunked(chunks)) => {
                bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }

    /// Asks on a connection of its own.
    #[track_caller]
    pub(crate) fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Asks on a connection of its own; anything but a whole answer is an error.
    pub(crate) fn try_send(self) -> io::Result<Response> {
        let address = self.address.as_ref().expect("a request with an address");
        let mut client = match &address.tls {
            None => Client::try_connect(address.addr)?,
            Some((server, config)) => Client::try_connect_tls(address.addr, server, Arc::clone(config))?,
        };
        client.try_send(&self)
    }
}

/// A connection on which one request follows another.
pub(crate) struct Client {
    wire: Wire,
    host: String,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).expect("connected")
    }

    pub(crate) fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { wire: Wire::connect(addr)?, host: addr.to_string() })
    }

    pub(crate) fn try_connect_tls(addr: SocketAddr, server: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        Ok(Self { wire: Wire::connect_tls(addr, server, config)?, host: server.to_owned() })
    }

    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        self.try_send(request).unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.target))
    }

    pub(crate) fn try_send(&mut self, request: &Request) -> io::Result<Response> {
        self.begin(request)?;
        self.finish(&request.method)
    }

    /// Sends a request and leaves its answer for [`Self::finish`].
    pub(crate) fn begin(&mut self, request: &Request) -> io::Result<()> {
        self.wire.send(request.bytes(&self.host))
    }

    /// The answer to a request that was sent.
    pub(crate) fn finish(&mut self, method: &str) -> io::Result<Response> {
        read_response(&mut self.wire.reader, method)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(&Request::get(target))
    }
}
