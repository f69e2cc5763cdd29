//! A service behind the gateway, in threads, that does what a test tells it to: answer, count, hang, lie or die.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use rustls::ServerConfig;

use super::message::{Fields, Framing, framing, parse_head, read_body, read_head};
use super::wait::PATIENCE;
use super::wire::{Wire, reset_on_close};

/// A service on a port of its own. It ends with this value.
pub(crate) struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Up to and with the empty line
    pub(crate) head: Vec<u8>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// One connection, seen by a script.
pub(crate) struct Connection {
    wire: Wire,
    shared: Arc<Shared>,
    open: bool,
}

/// Holds scripts back until a test lets them go on. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// From now on everybody passes.
    pub(crate) fn open(&self) {
        *locked(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// From now on nobody does.
    pub(crate) fn shut(&self) {
        *locked(&self.0.0) = false;
    }

    /// Waits for the gate to be open. A test that has failed opens it never: that is not waited for.
    pub(crate) fn pass(&self) {
        let shut = |open: &mut bool| !*open;
        drop(self.0.1.wait_timeout_while(locked(&self.0.0), PATIENCE, shut).expect("nobody panics while holding it"));
    }
}

struct Shared {
    script: Box<dyn Fn(&mut Connection) + Send + Sync>,
    tls: Option<Arc<ServerConfig>>,
    stopped: AtomicBool,
    hits: AtomicUsize,
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    open: Mutex<Vec<TcpStream>>,
}

impl Origin {
    /// Answers every request with 200 and `body`.
    pub(crate) fn replying(body: &str) -> Self {
        let body = body.to_owned();
        Self::scripted(move |_, connection| connection.reply(200, &[], &body))
    }

    /// Answers every request with `status` and an empty body.
    pub(crate) fn answering(status: u16) -> Self {
        Self::scripted(move |_, connection| connection.reply(status, &[], ""))
    }

    /// Answers every request with its own head, as it arrived.
    pub(crate) fn echoing_heads() -> Self {
        Self::scripted(|request, connection| {
            connection.reply(200, &[("content-type", "text/plain")], request.text());
        })
    }

    /// Answers every request with its own body.
    pub(crate) fn echoing_bodies() -> Self {
        Self::scripted(|request, connection| connection.reply(200, &[], &request.body))
    }

    /// Answers every request with 200 and `body` once the gate is open.
    pub(crate) fn gated(body: &str) -> (Self, Gate) {
        let (gate, body) = (Gate::default(), body.to_owned());
        let origin = Self::scripted({
            let gate = gate.clone();
            move |_, connection| {
                gate.pass();
                connection.reply(200, &[], &body);
            }
        });
        (origin, gate)
    }

    /// Takes every request and never answers.
    pub(crate) fn hanging() -> Self {
        Self::scripted(|_, connection| connection.hang())
    }

    /// Runs `script` for every request, body and all. The connection stays open after it unless it says otherwise.
    pub(crate) fn scripted(script: impl Fn(&Request, &mut Connection) + Send + Sync + 'static) -> Self {
        Self::start(None, each_request(script))
    }

    /// The same behind TLS.
    pub(crate) fn scripted_tls(
        config: Arc<ServerConfig>,
        script: impl Fn(&Request, &mut Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(config), each_request(script))
    }

    /// Runs `script` for every connection; nothing is read or written but by it.
    pub(crate) fn raw(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        Self::start(None, script)
    }

    fn start(tls: Option<Arc<ServerConfig>>, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(super::ports::claim()).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            tls,
            stopped: AtomicBool::new(false),
            hits: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
            open: Mutex::default(),
        });
        let acceptor = Some(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, acceptor }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests whose head has arrived.
    pub(crate) fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// Connections that were ever accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every whole request, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        locked(&self.shared.requests).clone()
    }

    /// The only request there was.
    #[track_caller]
    pub(crate) fn request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "one request expected: {requests:?}");
        requests.into_iter().next().expect("one")
    }

    /// Stops listening and says goodbye on every connection.
    pub(crate) fn stop(&mut self) {
        self.end(|socket| drop(socket.shutdown(Shutdown::Both)));
    }

    /// Stops listening and resets every connection, as the kernel does for a process that was killed.
    pub(crate) fn kill(&mut self) {
        self.end(|socket| {
            reset_on_close(socket);
            // Wakes the connection's thread without a word to the other end; the reset follows when it lets go.
            drop(socket.shutdown(Shutdown::Read));
        });
    }

    /// Listens again, at the same address.
    pub(crate) fn start_again(&mut self) {
        assert!(self.acceptor.is_none(), "it still listens");
        let listener = super::wait::some("the old port to be free", || TcpListener::bind(self.addr).ok());
        self.shared.stopped.store(false, Ordering::SeqCst);
        self.acceptor = Some(accept(listener, Arc::clone(&self.shared)));
    }

    fn end(&mut self, end: impl Fn(&TcpStream)) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which looks before it serves.
        drop(TcpStream::connect(self.addr));
        acceptor.join().expect("the acceptor does not panic");
        for socket in locked(&self.shared.open).drain(..) {
            end(&socket);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.end(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for socket in listener.incoming() {
            if shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            // A connection that ended before it was accepted.
            let Ok(socket) = socket else { continue };
            let Ok(handle) = socket.try_clone() else { continue };
            locked(&shared.open).push(handle);
            shared.connections.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let peer = socket.peer_addr().ok();
                let wire = match &shared.tls {
                    None => Wire::accepted(socket),
                    Some(config) => Wire::accepted_tls(socket, Arc::clone(config)),
                };
                if let Ok(wire) = wire {
                    let mut connection = Connection { wire, shared: Arc::clone(&shared), open: true };
                    (shared.script)(&mut connection);
                }
                // The other handle would keep it open.
                locked(&shared.open).retain(|other| other.peer_addr().ok() != peer);
            });
        }
    })
}

fn each_request(script: impl Fn(&Request, &mut Connection) + Send + Sync) -> impl Fn(&mut Connection) + Send + Sync {
    move |connection| {
        while connection.open {
            let Ok(Some(request)) = connection.request() else { return };
            // What came while it was killed finds nobody: a socket that is shut for reading still takes what arrives.
            if connection.shared.stopped.load(Ordering::SeqCst) {
                return;
            }
            script(&request, connection);
        }
    }
}

impl Request {
    /// Its head, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

impl Connection {
    /// The next request, whole, or `None` when the other end has closed.
    pub(crate) fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(mut request) = self.head()? else { return Ok(None) };
        let framing = framing(&request.headers)?.unwrap_or(Framing::None);
        if request.header("expect").is_some() {
            self.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        (request.body, request.trailers) = read_body(&mut self.wire.reader, framing)?;
        locked(&self.shared.requests).push(request.clone());
        Ok(Some(request))
    }

    /// The next request's head; its body is left on the wire.
    pub(crate) fn head(&mut self) -> io::Result<Option<Request>> {
        let head = read_head(&mut self.wire.reader)?;
        if head.is_empty() {
            return Ok(None);
        }
        self.shared.hits.fetch_add(1, Ordering::SeqCst);
        let (line, headers) = parse_head(&head)?;
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        let (body, trailers) = (Vec::new(), Fields::default());
        Ok(Some(Request { head, method, target, version, headers, body, trailers }))
    }

    /// A response with a Content-Length. That it cannot be sent is the other end's business.
    pub(crate) fn reply(&mut self, status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut bytes = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len()).into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.open &= self.send(bytes).is_ok();
    }

    /// The head of a chunked response; [`Self::chunk`] and [`Self::last_chunk`] follow.
    pub(crate) fn begin_chunked(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\ntransfer-encoding: chunked\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.open &= self.send(head).is_ok();
    }

    pub(crate) fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.open &= self.send(chunk).is_ok();
    }

    pub(crate) fn last_chunk(&mut self) {
        self.open &= self.send("0\r\n\r\n").is_ok();
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// For a script that speaks another protocol.
    pub(crate) fn stream(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Ends the connection after this request.
    pub(crate) fn close(&mut self) {
        self.open = false;
    }

    /// Ends the connection with a reset, after this request.
    pub(crate) fn reset(&mut self) {
        reset_on_close(self.wire.socket());
        self.open = false;
    }

    /// Waits until the other end, or the origin, gives up.
    pub(crate) fn hang(&mut self) {
        let _ = self.wire.socket().set_read_timeout(None);
        let _ = io::copy(&mut self.wire.reader, &mut io::sink());
        self.open = false;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}
