//! Our own accept loop: caps, deadlines, TLS and the strict reading of request heads.
//!
//! It stands around Pingora's `HttpProxy` because Pingora's own listeners have no deadline for a head, no cap on
//! connections, no PROXY protocol on plaintext, and cannot say when they accept. A connection goes through `accept`
//! (cap, TLS) and `arrival` (PROXY protocol, cap per address), then `http1` (which reads heads with `head` and `body`) or `http2`, and reaches Pingora as a `stream`.
//! What must not reach it is answered by `refusal`; `close` sees to it that the last answer arrives.

mod accept;
mod alarm;
mod arrival;
mod body;
mod close;
mod crowd;
mod head;
mod http1;
mod http2;
mod proxy_protocol;
mod refusal;
mod stream;
mod transport;

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::HttpServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use crowd::Crowd;

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

/// All listeners, as one of Pingora's services: its threads are the workers.
#[derive(Debug)]
pub struct Listeners<A> {
    app: Arc<A>,
    sockets: Vec<(std::net::TcpListener, Arc<Listening>)>,
    threads: usize,
    accepting: watch::Sender<bool>,
}

impl<A> Listeners<A> {
    /// `sockets` are bound, listening and non-blocking.
    pub fn new(app: Arc<A>, sockets: Vec<(std::net::TcpListener, Arc<Listening>)>, threads: usize) -> Self {
        Self { app, sockets, threads, accepting: watch::Sender::new(false) }
    }

    /// Turns true when every socket is being accepted from. If one cannot be, the sender is gone before that.
    pub fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for Listeners<A> {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let mut loops = JoinSet::new();
        if let Some((_, listening)) = self.sockets.first() {
            listening.drain.serving().await;
        }
        for (socket, listening) in self.sockets.drain(..) {
            let socket = match TcpListener::from_std(socket) {
                Ok(socket) => Arc::new(socket),
                Err(error) => {
                    log::error!("listener {}: the socket cannot be used: {error}", listening.name);
                    // Whoever waits for all listeners learns that they will not be.
                    self.accepting = watch::Sender::new(false);
                    continue;
                }
            };
            for _ in 0..self.threads {
                let (app, socket) = (Arc::clone(&self.app), Arc::clone(&socket));
                loops.spawn(accept::accept(app, socket, Arc::clone(&listening), shutdown.clone()));
            }
        }
        self.accepting.send_replace(true);
        while loops.join_next().await.is_some() {}
    }

    fn name(&self) -> &'static str {
        "tollgate"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}
