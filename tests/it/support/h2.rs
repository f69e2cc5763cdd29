//! HTTP/2, both ends: a client that multiplexes and a service with trailers and streams, as gRPC needs them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::{Body, Request};
use super::message::{Fields, Response};
use super::wait::PATIENCE;

/// What drives connections while tests block.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// Runs `future` with a deadline.
#[track_caller]
fn wait<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(async { timeout(PATIENCE, future).await }).expect("done in time")
}

/// One connection.
pub(crate) struct H2Client {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    authority: String,
    scheme: &'static str,
}

async fn connect(addr: SocketAddr, header: &[u8]) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.write_all(header).await?;
    Ok(socket)
}

/// One request of a connection, while it is going on.
pub(crate) struct Exchange {
    /// `None` once its body is sent by itself
    sender: Option<SendStream<Bytes>>,
    response: Option<ResponseFuture>,
    receiver: Option<RecvStream>,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl H2Client {
    /// Without TLS, by prior knowledge.
    #[track_caller]
    pub(crate) fn cleartext(addr: SocketAddr) -> Self {
        Self::cleartext_behind(addr, b"")
    }

    /// The same, with `header` in front of everything.
    #[track_caller]
    pub(crate) fn cleartext_behind(addr: SocketAddr, header: &[u8]) -> Self {
        let socket = wait(connect(addr, header)).expect("connected");
        Self::over(Box::new(socket), addr.to_string(), "http").expect("an HTTP/2 connection")
    }

    /// With TLS for the name `server`; `config` has to offer `h2`.
    #[track_caller]
    pub(crate) fn connect_tls(addr: SocketAddr, server: &str, config: Arc<ClientConfig>) -> Self {
        Self::connect_tls_behind(addr, b"", server, config)
    }

    /// The same, with `header` in front of the handshake.
    #[track_caller]
    pub(crate) fn connect_tls_behind(addr: SocketAddr, header: &[u8], server: &str, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(server.to_owned()).expect("a name");
        let tls = wait(async {
            let socket = connect(addr, header).await?;
            TlsConnector::from(config).connect(name, socket).await
        })
        .expect("a TLS connection");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the other end speaks HTTP/2");
        Self::over(Box::new(tls), server.to_owned(), "https").expect("an HTTP/2 connection")
    }

    fn over(stream: Box<dyn Duplex>, authority: String, scheme: &'static str) -> Result<Self, h2::Error> {
        let (sender, connection) = wait(h2::client::handshake(stream))?;
        Ok(Self { sender, connection: RUNTIME.spawn(connection), authority, scheme })
    }

    /// Asks, and waits for the whole answer.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        self.try_send(request).unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.target))
    }

    pub(crate) fn try_send(&mut self, request: &Request) -> Result<Response, h2::Error> {
        let body = match &request.body {
            None => return self.begin(request, true)?.finish(),
            Some(Body::Sized(body)) => body.clone(),
            Some(Body::Chunked(chunks)) => chunks.concat(),
        };
        let mut exchange = self.begin(request, false)?;
        let mut sender = exchange.sender.take().expect("just begun");
        // The other end may answer before it has read everything, and must not have to wait.
        let sending = RUNTIME.spawn(async move { send_all(&mut sender, body.into(), true).await });
        let response = exchange.finish();
        sending.abort();
        response
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// Sends a head; `end` says that no body follows.
    pub(crate) fn begin(&mut self, request: &Request, end: bool) -> Result<Exchange, h2::Error> {
        let authority = request.host.as_ref().unwrap_or(&self.authority);
        let mut head = http::Request::builder()
            .method(request.method.as_str())
            .uri(format!("{}://{authority}{}", self.scheme, request.target))
            .version(http::Version::HTTP_2);
        for (name, value) in &request.headers.0 {
            head = head.header(name, value);
        }
        let head = head.body(()).expect("a head that can be written");
        wait(async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, sender) = sender.send_request(head, end)?;
            Ok(Exchange { sender: Some(sender), response: Some(response), receiver: None })
        })
    }

    /// Waits for the other end to end the connection, and says how it did.
    #[track_caller]
    pub(crate) fn closed(self) -> Result<(), h2::Error> {
        drop(self.sender);
        wait(self.connection).expect("it does not panic")
    }
}

impl Exchange {
    pub(crate) fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), h2::Error> {
        self.send_data(bytes.into(), false)
    }

    pub(crate) fn send_last(&mut self, bytes: impl Into<Bytes>) -> Result<(), h2::Error> {
        self.send_data(bytes.into(), true)
    }

    pub(crate) fn send_trailers(&mut self, trailers: &[(&str, &str)]) -> Result<(), h2::Error> {
        self.sender().send_trailers(header_map(trailers))
    }

    /// Gives it up.
    pub(crate) fn cancel(&mut self) {
        self.sender().send_reset(h2::Reason::CANCEL);
    }

    fn send_data(&mut self, bytes: Bytes, end: bool) -> Result<(), h2::Error> {
        wait(send_all(self.sender(), bytes, end))
    }

    fn sender(&mut self) -> &mut SendStream<Bytes> {
        self.sender.as_mut().expect("only whole requests are sent by themselves")
    }

    /// Waits for the head of the answer.
    pub(crate) fn head(&mut self) -> Result<http::response::Parts, h2::Error> {
        let response = self.response.take().expect("the head is read once");
        let (parts, receiver) = wait(response)?.into_parts();
        self.receiver = Some(receiver);
        Ok(parts)
    }

    /// The next piece of the answer's body; `None` at its end.
    pub(crate) fn data(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let receiver = self.receiver.as_mut().expect("after the head");
        wait(async {
            let Some(bytes) = receiver.data().await.transpose()? else { return Ok(None) };
            receiver.flow_control().release_capacity(bytes.len())?;
            Ok(Some(bytes))
        })
    }

    /// What follows the body.
    pub(crate) fn trailers(&mut self) -> Result<Fields, h2::Error> {
        let receiver = self.receiver.as_mut().expect("after the head");
        Ok(wait(receiver.trailers())?.map(|trailers| fields(&trailers)).unwrap_or_default())
    }

    /// Everything that is left of the answer.
    pub(crate) fn finish(mut self) -> Result<Response, h2::Error> {
        let parts = self.head()?;
        let mut body = Vec::new();
        while let Some(bytes) = self.data()? {
            body.extend_from_slice(&bytes);
        }
        Ok(Response {
            status: parts.status.as_u16(),
            version: "HTTP/2".to_owned(),
            headers: fields(&parts.headers),
            body,
            trailers: self.trailers()?,
            interim: Vec::new(),
        })
    }
}

/// A service that speaks HTTP/2, with or without TLS. It ends with this value.
pub(crate) struct H2Origin {
    addr: SocketAddr,
    hits: Arc<AtomicUsize>,
    acceptor: AbortHandle,
}

/// What a script returns.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<(), h2::Error>> + Send>>;

impl H2Origin {
    /// Answers every request with 200, its own body and a trailer `grpc-status: 0`, piece by piece as it arrives.
    pub(crate) fn echoing() -> Self {
        Self::scripted(None, |request, respond| Box::pin(echo(request, respond)))
    }

    /// The same behind TLS; `config` has to offer `h2`.
    pub(crate) fn echoing_tls(config: Arc<ServerConfig>) -> Self {
        Self::scripted(Some(config), |request, respond| Box::pin(echo(request, respond)))
    }

    /// Runs `script` for every request.
    pub(crate) fn scripted(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(http::Request<RecvStream>, SendResponse<Bytes>) -> Answering + Send + Sync + 'static,
    ) -> Self {
        let listener = wait(TcpListener::bind(super::ports::claim())).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let hits = Arc::new(AtomicUsize::new(0));
        let (counter, script) = (Arc::clone(&hits), Arc::new(script));
        let acceptor = RUNTIME.spawn(async move {
            // Connections end with the acceptor.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, counter, script) = (tls.clone(), Arc::clone(&counter), Arc::clone(&script));
                connections.spawn(async move {
                    let stream: Box<dyn Duplex> = match tls {
                        None => Box::new(socket),
                        Some(config) => match TlsAcceptor::from(config).accept(socket).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        counter.fetch_add(1, Ordering::SeqCst);
                        // How an exchange ended is the client's to judge.
                        drop(RUNTIME.spawn(script(request, respond)));
                    }
                });
            }
        });
        Self { addr, hits, acceptor: acceptor.abort_handle() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests whose head has arrived.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Ends it and all its connections.
    pub(crate) fn kill(&self) {
        self.acceptor.abort();
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn echo(mut request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = http::Response::new(());
    if let Some(kind) = request.headers().get(http::header::CONTENT_TYPE) {
        head.headers_mut().insert(http::header::CONTENT_TYPE, kind.clone());
    }
    let mut sender = respond.send_response(head, false)?;
    let body = request.body_mut();
    while let Some(bytes) = body.data().await.transpose()? {
        body.flow_control().release_capacity(bytes.len())?;
        send_all(&mut sender, bytes, false).await?;
    }
    let mut trailers = body.trailers().await?.unwrap_or_default();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    sender.send_trailers(trailers)
}

/// Sends as the window allows.
pub(crate) async fn send_all(sender: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        sender.reserve_capacity(bytes.len());
        let capacity = std::future::poll_fn(|context| sender.poll_capacity(context)).await.transpose()?;
        let piece = bytes.split_to(capacity.unwrap_or_default().min(bytes.len()));
        let last = bytes.is_empty();
        sender.send_data(piece, end && last)?;
        if last {
            return Ok(());
        }
    }
    if end { sender.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// Lets a script wait.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

fn header_map(fields: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    fields.iter().map(pair).collect()
}

fn fields(headers: &HeaderMap) -> Fields {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Fields(headers.iter().map(pair).collect())
}
