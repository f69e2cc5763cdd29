//! Our own accept loop: caps, deadlines, TLS and the strict reading of request heads.
//!
//! It stands around Pingora's `HttpProxy` because Pingora's own listeners have no deadline for a head, no cap on
//! connections, no PROXY protocol on plaintext, and cannot say when they accept. Each `worker` is a thread that shares
//! nothing with the others. A connection goes through `accept` (cap, TLS) and `arrival` (PROXY protocol, cap for each
//! address), then `http1` (which reads heads with `head` and `body`) or `http2`, and reaches Pingora as a `stream`.
//! What must not reach it is answered by `refusal`; `close` sees to it that the last answer arrives.

mod accept;
mod alarm;
mod arrival;
mod body;
mod close;
mod crowd;
mod flood;
mod frames;
mod handshake;
mod head;
mod http1;
mod http2;
mod proxy_protocol;
mod refusal;
mod stream;
mod transport;
mod turn;
mod worker;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::HttpServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::sync::{Semaphore, watch};

pub use self::crowd::Crowd;
pub use self::worker::Threads;
use self::worker::{Tether, Worker, Workers};

use crate::config::Name;
use crate::control::Drain;
use crate::snapshot::Live;
use crate::telemetry::ListenerMetrics;

/// What the connections of one listener share.
#[derive(Debug)]
pub struct Listening {
    /// The listener's name
    pub name: Name,
    /// Where its certificates and deadlines are found, as of each connection
    pub live: Arc<Live>,
    /// When to stop
    pub drain: Drain,
    /// What is counted
    pub metrics: ListenerMetrics,
    /// Connections at once, over all listeners
    pub capacity: Arc<Semaphore>,
    /// Connections of each address, over all listeners
    pub crowd: Arc<Crowd>,
}

/// A socket, and the listener it belongs to.
type Share = (TcpListener, Arc<Listening>);

/// All listeners, as one of Pingora's services. It starts the workers, whose threads are not Pingora's: those of one
/// service share a runtime.
pub struct Listeners<F> {
    make: F,
    /// For each address, its sockets: one for each worker, or more when an earlier process had more workers
    sockets: Vec<(Vec<TcpListener>, Arc<Listening>)>,
    threads: usize,
    /// Held until the threads hold it
    tether: Option<Tether>,
    accepting: watch::Sender<bool>,
}

impl<A, F: Fn() -> A> Listeners<F> {
    /// `make` makes the proxy of each worker; `sockets` are bound, listening and non-blocking.
    pub fn new(make: F, sockets: Vec<(Vec<TcpListener>, Arc<Listening>)>, threads: usize) -> (Self, Threads) {
        let (handle, tether) = Threads::new();
        (Self { make, sockets, threads, tether: Some(tether), accepting: watch::Sender::new(false) }, handle)
    }

    /// Turns true when every socket is being accepted from. If one cannot be, the sender is gone before that.
    pub fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }

    /// The sockets of each worker. All are used, whatever their number: connections wait in the queue of each.
    fn shares(&mut self) -> io::Result<Vec<Vec<Share>>> {
        let mut shares: Vec<Vec<_>> = (0..self.threads).map(|_| Vec::new()).collect();
        for (sockets, listening) in self.sockets.drain(..) {
            // A worker without one shares that of another.
            let missing = sockets.len()..self.threads;
            let copies: Vec<_> = missing.map(|at| sockets[at % sockets.len()].try_clone()).collect::<Result<_, _>>()?;
            for (at, socket) in sockets.into_iter().chain(copies).enumerate() {
                shares[at % self.threads].push((socket, Arc::clone(&listening)));
            }
        }
        Ok(shares)
    }
}

impl<A, F> Listeners<F>
where
    A: HttpServerApp + Send + Sync + 'static,
    F: Fn() -> A + Send + Sync,
{
    async fn start(&mut self, shutdown: &ShutdownWatch) -> io::Result<()> {
        let tether = self.tether.take().ok_or_else(|| io::Error::other("they were started before"))?;
        let (workers, arrivals) = Workers::new(self.threads);
        for (index, (sockets, arrivals)) in self.shares()?.into_iter().zip(arrivals).enumerate() {
            let worker = Worker {
                index,
                app: Arc::new((self.make)()),
                workers: Arc::clone(&workers),
                arrivals,
                sockets,
                shutdown: shutdown.clone(),
                tether: tether.clone(),
            };
            worker.start().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl<A, F> Service for Listeners<F>
where
    A: HttpServerApp + Send + Sync + 'static,
    F: Fn() -> A + Send + Sync,
{
    async fn start_service(&mut self, _: Option<ListenFds>, mut shutdown: ShutdownWatch, _: usize) {
        if let Some((_, listening)) = self.sockets.first() {
            listening.drain.serving().await;
        }
        match self.start(&shutdown).await {
            Ok(()) => drop(self.accepting.send_replace(true)),
            Err(error) => {
                log::error!("a worker cannot start: {error}");
                // Whoever waits for all listeners learns that they will not be.
                self.accepting = watch::Sender::new(false);
            }
        }
        // Until then whoever asks is told that they are accepting. The sender may be gone: that is the end too.
        let _ = shutdown.changed().await;
    }

    fn name(&self) -> &'static str {
        "listeners"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
