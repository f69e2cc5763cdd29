//! The control plane's own listener: health, readiness, metrics, and what the gateway is doing at this moment.
//!
//! It has a thread and a runtime of its own, so that a slow reader or a large scrape costs requests nothing. It only
//! reads: changes go through the control socket, whose peer the system vouches for. `gate` decides who may see what,
//! `answer` says it, and what is said comes from `scrape` (numbers) and `report` (words, as JSON or through `html`).

mod answer;
mod describe;
mod gate;
mod html;
mod limits;
mod report;
mod scrape;
mod serve;

use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::task::JoinSet;

use self::gate::Door;
use crate::control::{Drain, Phase, Status};
use crate::snapshot::Live;
use crate::telemetry::{AccessLog, Metrics};

/// What the admin side reads.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Another process answers until this one serves
    pub succeeds: bool,
    /// The configuration that serves, and what it holds
    pub live: Arc<Live>,
    /// Where the process is in its life
    pub drain: Drain,
    /// Whether it is ready, and how the last reload went
    pub status: Arc<Status>,
    /// What is counted per request
    pub metrics: Arc<Metrics>,
    /// How many lines it lost
    pub access_log: AccessLog,
}

impl Sources {
    /// Where the process is in its life: a word for it, and what it means.
    fn phase(&self) -> (&'static str, &'static str) {
        match self.drain.phase() {
            Phase::Starting => ("starting", "what serving needs is still on its way"),
            Phase::Serving if !self.status.is_ready() => ("starting", "not every listener accepts yet"),
            Phase::Serving => ("serving", "every listener accepts"),
            Phase::Leaving => ("leaving", "the process is about to stop accepting"),
            Phase::Draining => ("draining", "what clients have begun is finished, and nothing new is accepted"),
        }
    }

    /// Whether a load balancer should send requests here.
    fn is_ready(&self) -> bool {
        self.status.is_ready() && self.drain.phase() == Phase::Serving
    }
}

/// The admin side, as one of Pingora's services.
#[derive(Debug)]
pub struct Admin {
    sources: Arc<Sources>,
    sockets: Vec<(TcpListener, Door)>,
}

impl Admin {
    /// `socket` is that of `[admin] address`, `health` that of `health_address`; both are bound, listening and
    /// non-blocking.
    pub fn new(sources: Sources, socket: TcpListener, health: Option<TcpListener>) -> Self {
        let sockets = std::iter::once((socket, Door::Main)).chain(health.map(|socket| (socket, Door::Health)));
        Self { sources: Arc::new(sources), sockets: sockets.collect() }
    }
}

#[async_trait]
impl Service for Admin {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let mut serving = JoinSet::new();
        if self.sources.succeeds {
            self.sources.drain.serving().await;
        }
        for (socket, door) in self.sockets.drain(..) {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    serving.spawn(serve::serve(socket, door, Arc::clone(&self.sources), shutdown.clone()));
                }
                Err(error) => log::error!("the admin side: a socket cannot be used: {error}"),
            }
        }
        while serving.join_next().await.is_some() {}
    }

    fn name(&self) -> &'static str {
        "tollgate-admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests;
