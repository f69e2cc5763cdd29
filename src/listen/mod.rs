//! Our own accept loop: caps, deadlines, TLS and the strict reading of request heads.
//!
//! It stands around Pingora's `HttpProxy` because Pingora's own listeners have no deadline for a head, no cap on
//! connections, no PROXY protocol on plaintext, and cannot say when they accept. A connection goes through `accept`
//! (cap, TLS), then `http1` (which reads heads with `head` and `body`) or `http2`, and reaches Pingora as a `stream`.

mod accept;
mod body;
mod head;
mod http1;
mod http2;
mod stream;
mod transport;

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::HttpServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

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
}

/// All listeners, as one of Pingora's services: its threads are the workers.
#[derive(Debug)]
pub struct Listeners<A> {
    app: Arc<A>,
    sockets: Vec<(std::net::TcpListener, Arc<Listening>)>,
    threads: usize,
}

impl<A> Listeners<A> {
    /// `sockets` are bound, listening and non-blocking.
    pub fn new(app: Arc<A>, sockets: Vec<(std::net::TcpListener, Arc<Listening>)>, threads: usize) -> Self {
        Self { app, sockets, threads }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for Listeners<A> {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let mut accepting = tokio::task::JoinSet::new();
        for (socket, listening) in self.sockets.drain(..) {
            let socket = match TcpListener::from_std(socket) {
                Ok(socket) => Arc::new(socket),
                Err(error) => {
                    log::error!("listener {}: the socket cannot be used: {error}", listening.name);
                    continue;
                }
            };
            for _ in 0..self.threads {
                let (app, socket) = (Arc::clone(&self.app), Arc::clone(&socket));
                accepting.spawn(accept::accept(app, socket, Arc::clone(&listening), shutdown.clone()));
            }
        }
        while accepting.join_next().await.is_some() {}
    }

    fn name(&self) -> &'static str {
        "tollgate"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}
