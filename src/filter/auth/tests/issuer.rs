//! A small issuer: a TCP server whose answers the test writes, and which counts how often it was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the issuer does with a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// These bytes, then the end of the connection
    Bytes(String),
    /// Nothing, for ever
    Hang,
    /// A head that promises a body, and no body
    HangInBody,
    /// A body without end
    Endless,
}

impl Answer {
    pub(super) fn json(body: &str) -> Self {
        Self::with("200 OK", "Content-Type: application/json\r\n", body)
    }

    pub(super) fn with(status: &str, headers: &str, body: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
    }
}

#[derive(Debug)]
struct Shared {
    answer: Mutex<Answer>,
    /// Where another answer is given than everywhere else
    elsewhere: Mutex<BTreeMap<String, Answer>>,
    asked: AtomicUsize,
    heads: Mutex<Vec<String>>,
    /// A hit has come in
    hit: Notify,
    /// Held back while it is locked
    gate: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct Issuer {
    shared: Arc<Shared>,
    uri: Uri,
    task: JoinHandle<()>,
}

impl Issuer {
    pub(super) async fn answering(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let uri = format!("http://{}/jwks.json", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            elsewhere: Mutex::default(),
            asked: AtomicUsize::new(0),
            heads: Mutex::default(),
            hit: Notify::new(),
            gate: tokio::sync::Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { shared, uri: uri.parse().expect("a URI"), task }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock() = answer;
    }

    /// The address of another page.
    pub(super) fn at(&self, path: &str) -> Uri {
        self.uri.to_string().replace("/jwks.json", path).parse().expect("a URI")
    }

    pub(super) fn answer_at(&self, path: &str, answer: Answer) {
        self.shared.elsewhere.lock().insert(path.to_owned(), answer);
    }

    pub(super) fn hits(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().clone()
    }

    /// Until it has been asked so often.
    pub(super) async fn asked(&self, times: usize) {
        loop {
            let hit = self.shared.hit.notified();
            if self.hits() >= times {
                return;
            }
            hit.await;
        }
    }

    /// Answers wait until what this returns is dropped.
    pub(super) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.gate.lock().await
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        tokio::spawn(reply(stream, Arc::clone(&shared)));
    }
}

async fn reply(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    shared.heads.lock().push(String::from_utf8_lossy(&head).into_owned());
    shared.asked.fetch_add(1, Ordering::SeqCst);
    shared.hit.notify_waiters();
    drop(shared.gate.lock().await);
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let elsewhere = shared.elsewhere.lock().get(path).cloned();
    let answer = elsewhere.unwrap_or_else(|| shared.answer.lock().clone());
    // A client that leaves in the middle is part of what is tested.
    let _ = match answer {
        Answer::Bytes(bytes) => stream.write_all(bytes.as_bytes()).await,
        Answer::Hang => std::future::pending().await,
        Answer::HangInBody => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").await;
            std::future::pending().await
        }
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n").await;
            loop {
                if let Err(error) = stream.write_all(&[b' '; 8192]).await {
                    break Err(error);
                }
            }
        }
    };
    let _ = stream.shutdown().await;
}
