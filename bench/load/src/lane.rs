//! One kind of client, many times.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::h2::Trouble;
use crate::tally::Tally;
use crate::wire::Tls;
use crate::{h1, h2};

/// An answer that takes longer than this beyond its delay is no answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Streams that share a connection of HTTP/2.
const STREAMS: usize = 8;
/// 10.0.0.0/8, where the addresses of a crowd are taken from.
const TEN: u32 = 10 << 24;
/// How often a connection that said goodbye before it looked at a request is replaced for it.
const REOPENINGS: usize = 3;

/// What speaks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2, by prior knowledge where there is no TLS
    Http2,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A closed loop: as soon as the one before has its answer
    Closed,
    /// An open loop: so many a second over the whole lane, however long answers take. Latency counts from the moment a
    /// request was due.
    Rate(f64),
}

/// One kind of client.
#[derive(Clone, Debug)]
pub struct Lane {
    /// For reports
    pub name: String,
    /// Where to
    pub target: SocketAddr,
    /// With TLS or without
    pub tls: Option<Tls>,
    /// What is spoken
    pub protocol: Protocol,
    /// Requests at the same time
    pub workers: usize,
    /// A connection for each request, instead of one that is kept
    pub fresh: bool,
    /// When to send
    pub pace: Pace,
    /// How long the service waits before it answers
    pub delay: Duration,
    /// Bytes that follow the id in an answer, and in the body of a POST
    pub bytes: usize,
    /// Every so many requests is a POST; 0 is never
    pub post_every: u64,
    /// So many addresses, one after another, are those of whom it says that it asks for them; 0 is of none. Of HTTP/1.1.
    pub addresses: u32,
}

impl Lane {
    /// Kept connections of HTTP/1.1 in a closed loop, a third of it POST.
    pub fn new(name: &str, target: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            target,
            tls: None,
            protocol: Protocol::Http1,
            workers: 8,
            fresh: false,
            pace: Pace::Closed,
            delay: Duration::ZERO,
            bytes: 200,
            post_every: 3,
            addresses: 0,
        }
    }
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) ids: AtomicU64,
    pub(crate) stopping: AtomicBool,
}

/// Runs a lane until it is told to stop, and then until every request has its answer.
pub(crate) async fn run(lane: Lane, shared: Arc<Shared>, tally: Arc<Tally>) {
    let lane = Arc::new(lane);
    let mut workers = JoinSet::new();
    let mut connection = Arc::new(tokio::sync::Mutex::new(None));
    for index in 0..lane.workers {
        if index % STREAMS == 0 {
            connection = Arc::new(tokio::sync::Mutex::new(None));
        }
        let worker = Worker {
            lane: Arc::clone(&lane),
            shared: Arc::clone(&shared),
            tally: Arc::clone(&tally),
            kept: None,
            connection: Arc::clone(&connection),
        };
        workers.spawn(worker.run(index));
    }
    while workers.join_next().await.is_some() {}
}

struct Worker {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    kept: Option<h1::Connection>,
    /// Of HTTP/2, shared by several workers, and how often it was opened
    connection: Arc<tokio::sync::Mutex<Option<(u64, h2::Connection)>>>,
}

impl Worker {
    async fn run(mut self, index: usize) {
        let step = match self.lane.pace {
            Pace::Closed => None,
            Pace::Rate(rate) => Some(Duration::from_secs_f64(self.lane.workers as f64 / rate)),
        };
        // Workers begin one after another, so that their beats do not fall together.
        let mut due = Instant::now() + step.unwrap_or_default().mul_f64(index as f64 / self.lane.workers as f64);
        while !self.shared.stopping.load(Ordering::Relaxed) {
            match step {
                None => due = Instant::now(),
                Some(_) => sleep_until(due.into()).await,
            }
            let id = self.shared.ids.fetch_add(1, Ordering::Relaxed);
            let is_post = self.lane.post_every > 0 && id.is_multiple_of(self.lane.post_every);
            let answered = timeout(self.lane.delay + PATIENCE, self.ask(id, is_post)).await;
            match answered {
                Ok(Ok(())) => self.tally.answered(id, is_post, due.elapsed()),
                Ok(Err(what)) => self.tally.failed(id, is_post, what),
                Err(_) => {
                    self.kept = None;
                    self.tally.failed(id, is_post, "no answer in time".to_owned());
                }
            }
            due += step.unwrap_or_default();
        }
    }

    async fn ask(&mut self, id: u64, is_post: bool) -> Result<(), String> {
        let method = if is_post { "POST" } else { "GET" };
        let target = format!("/work/{id}/{}/{}", self.lane.delay.as_millis(), self.lane.bytes);
        let address = id.checked_rem(self.lane.addresses.into()).map(|which| Ipv4Addr::from_bits(TEN | which as u32));
        let answer = match self.lane.protocol {
            Protocol::Http1 => self.ask_http1(method, &target, is_post, address).await?,
            Protocol::Http2 => self.ask_http2(method, &target, is_post).await?,
        };
        let text = id.to_string();
        if answer.status != 200 {
            let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
            return Err(format!("status {} {body}", answer.status));
        }
        if !answer.body.starts_with(text.as_bytes()) || answer.body.len() != text.len() + self.lane.bytes {
            return Err(format!("an answer to something else, of {} bytes", answer.body.len()));
        }
        Ok(())
    }

    fn body(&self) -> Vec<u8> {
        vec![b'.'; self.lane.bytes]
    }

    async fn ask_http1(
        &mut self,
        method: &str,
        target: &str,
        is_post: bool,
        address: Option<Ipv4Addr>,
    ) -> Result<h1::Answer, String> {
        let mut kept = self.kept.take();
        if let Some(connection) = &mut kept
            && !connection.is_open().await
        {
            self.tally.reconnected();
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => h1::Connection::open(self.lane.target, self.lane.tls.as_ref())
                .await
                .map_err(|error| format!("connecting: {error}"))?,
        };
        let host = self.lane.tls.as_ref().map_or_else(|| self.lane.target.to_string(), |tls| tls.server.clone());
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        if self.lane.fresh {
            request.extend_from_slice(b"connection: close\r\n");
        }
        if let Some(address) = address {
            request.extend_from_slice(format!("x-forwarded-for: {address}\r\n").as_bytes());
        }
        if is_post {
            request.extend_from_slice(format!("content-length: {}\r\n\r\n", self.lane.bytes).as_bytes());
            request.extend_from_slice(&self.body());
        } else {
            request.extend_from_slice(b"\r\n");
        }
        let answer = connection.ask(&request).await.map_err(|error| error.to_string())?;
        if !self.lane.fresh {
            self.kept = Some(connection);
        }
        Ok(answer)
    }

    async fn ask_http2(&mut self, method: &str, target: &str, is_post: bool) -> Result<h1::Answer, String> {
        let mut gone = None;
        for _ in 0..REOPENINGS {
            let (opened, mut connection) = self.connection(gone).await?;
            match connection.ask(method, target, is_post.then(|| self.body())).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Failed(what)) => {
                    // Whatever happened to it, the next request opens another.
                    drop(self.connection.lock().await.take_if(|(count, _)| *count == opened));
                    return Err(what);
                }
                Err(Trouble::Gone) => gone = Some(opened),
                Err(Trouble::Unprocessed) => {
                    self.tally.sent_again();
                    gone = Some(opened);
                }
            }
        }
        Err("one connection after the other says goodbye".to_owned())
    }

    /// The connection, or a new one if it is the one that is `gone`.
    async fn connection(&mut self, gone: Option<u64>) -> Result<(u64, h2::Connection), String> {
        let open = || async {
            h2::Connection::open(self.lane.target, self.lane.tls.as_ref())
                .await
                .map_err(|error| format!("connecting: {error}"))
        };
        if self.lane.fresh {
            return Ok((0, open().await?));
        }
        let mut current = self.connection.lock().await;
        let count = match &*current {
            Some((count, connection)) if gone != Some(*count) => return Ok((*count, connection.share())),
            Some((count, _)) => {
                self.tally.reconnected();
                count + 1
            }
            None => gone.map_or(0, |count| count + 1),
        };
        let connection = open().await?;
        let shared = connection.share();
        *current = Some((count, connection));
        Ok((count, shared))
    }
}
