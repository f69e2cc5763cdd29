//! The life of a serving process: it says when it serves, does what it is asked, and knows when it may leave.
//!
//! Runs inside Pingora's wait for a shutdown signal and returns the fast one when the drain is over. So Pingora's own
//! hand-over (which drains whether or not anybody took the sockets) and its fixed grace sleep never happen.

#![expect(clippy::disallowed_methods, reason = "control owns the tasks that it starts")]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::launch::Candidate;
use super::message::{Answer, Offer, Report, Verb};
use super::resource::Resources;
use super::service_manager::ServiceManager;
use super::signals::{Signal, Signals};
use super::socket::{self, Command};
use super::successor::Predecessor;
use super::upgrade::{self, Launcher, Successor};
use super::watch::Watcher;
use super::{Drain, Phase, Reloader, Status, tasks, upstreams};
use crate::snapshot::Snapshot;
use crate::socket::{Channel, Sockets};
use crate::telemetry::{AccessLog, Metrics};

/// How long the channel to a successor is waited on at a time.
const SUCCESSOR_POLL: Duration = Duration::from_secs(3600);

/// How long a process that drains goes on when its successor has died and the service manager waits for it to leave: nobody
/// else is served before it has.
const HURRY: Duration = Duration::from_secs(5);

/// What a life needs.
#[derive(Debug)]
pub struct Parts {
    /// Changes the truth
    pub reloader: Reloader,
    /// Who is told that the process leaves
    pub drain: Drain,
    /// What the admin side shows
    pub status: Arc<Status>,
    /// What is counted
    pub metrics: Arc<Metrics>,
    /// To reopen its file
    pub access_log: AccessLog,
    /// Every listening socket, to be passed on
    pub sockets: Sockets,
    /// Where commands arrive
    pub control_socket: OwnedFd,
    /// Installed when the process started
    pub signals: Signals,
    /// How a successor is started
    pub launcher: Launcher,
    /// The process that is being succeeded
    pub predecessor: Option<Predecessor>,
    /// Becomes true when every listener accepts
    pub accepting: watch::Receiver<bool>,
    /// Where it is left why the process has never served
    pub failure: Arc<OnceLock<String>>,
}

/// Pingora's wait for a shutdown signal.
#[derive(Debug)]
pub struct Life(Mutex<Option<Parts>>);

/// Why a process drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It was told to leave
    Told,
    /// It has handed over
    HandedOver,
}

impl Life {
    /// Begins when Pingora's server runs.
    pub fn new(parts: Parts) -> Self {
        Self(Mutex::new(Some(parts)))
    }
}

#[async_trait]
impl ShutdownSignalWatch for Life {
    async fn recv(&self) -> ShutdownSignal {
        let parts = self.0.lock().take();
        match parts {
            Some(parts) => Living::new(parts).live().await,
            None => ShutdownSignal::FastShutdown,
        }
    }
}

/// What a process that drains hears of its successor.
enum News {
    /// Log files have been moved away
    Reopen,
    /// It has ended, and was not told to
    Died,
}

/// An operation that is under way: one at a time, while signals are still heard.
struct Operation {
    task: JoinHandle<Done>,
    reply: Option<oneshot::Sender<Answer>>,
    candidate: Candidate,
}

/// How an operation ended.
enum Done {
    /// Nothing, if files were looked at and had not changed
    Reload(Option<Result<String, String>>),
    HandOver(Result<Successor, String>),
}

struct Living {
    parts: Parts,
    manager: ServiceManager,
    /// Shared with the operation that passes them on
    sockets: Arc<Sockets>,
    operation: Option<Operation>,
    /// HUP or QUIT came while an operation was under way
    pending: Option<Signal>,
    /// Present while files are followed
    watcher: Option<Watcher>,
}

impl Living {
    fn new(mut parts: Parts) -> Self {
        let sockets = Arc::new(std::mem::take(&mut parts.sockets));
        Self { parts, manager: ServiceManager::new(), sockets, operation: None, pending: None, watcher: None }
    }

    async fn live(mut self) -> ShutdownSignal {
        let watchdog = tokio::spawn(self.manager.clone().watchdog());
        if let Err(why) = self.begin().await {
            if let Some(predecessor) = &self.parts.predecessor {
                predecessor.abort(why.as_deref().unwrap_or("the successor was told to leave"));
            }
            if let Some(why) = why {
                // Nobody else sets it.
                let _ = self.parts.failure.set(why);
            }
            return ShutdownSignal::FastShutdown;
        }
        self.follow_files();
        if let Some(signal) = self.pending.take() {
            self.start(signal);
        }
        let (sender, mut commands) = mpsc::channel(1);
        match self.parts.control_socket.try_clone() {
            Ok(socket) => drop(tokio::spawn(socket::serve(socket, sender, self.parts.drain.clone()))),
            Err(error) => log::error!("the control socket cannot be used: {error}"),
        }
        loop {
            let idle = self.operation.is_none();
            tokio::select! {
                biased;
                signal = self.parts.signals.next() => match signal {
                    Signal::Interrupt => {
                        self.end_operation();
                        return ShutdownSignal::FastShutdown;
                    }
                    Signal::Terminate => {
                        // Who waits to be heard is told to ask elsewhere.
                        drop(commands);
                        return self.terminate().await;
                    }
                    Signal::ReopenLogs => self.reopen_logs(),
                    other if idle => self.start(other),
                    other => self.pending = Some(other),
                },
                done = finished(self.operation.as_mut()), if !idle => {
                    if let Some(successor) = self.finish(done) {
                        drop(commands);
                        // The service manager watches the main process alone, and complains of others.
                        watchdog.abort();
                        return self.succeeded(successor).await;
                    }
                }
                Some(command) = commands.recv(), if idle => self.obey(command),
                () = changed(self.watcher.as_mut()), if idle => self.look(),
            }
        }
    }

    /// Everything that must be there before the first request is called in.
    ///
    /// # Errors
    /// Why nobody will be served; nothing if the process was told to leave.
    async fn begin(&mut self) -> Result<(), Option<String>> {
        let snapshot = self.parts.reloader.live().load_full();
        self.settle(&snapshot).await?;
        if let Some(predecessor) = &self.parts.predecessor {
            if let Some(auth) = predecessor.lost_keys(&snapshot) {
                let why =
                    format!("auth {auth} has no keys that the running process has: try again when they can be fetched");
                return Err(Some(why));
            }
            predecessor.hand_down(&snapshot);
        }
        self.parts.drain.advance(Phase::Serving);
        // Its sender lives in the listeners; if it is gone, they have failed to start.
        if self.parts.accepting.wait_for(|accepting| *accepting).await.is_err() {
            return Err(Some("the listeners have not started".to_owned()));
        }
        self.parts.status.become_ready();
        if let Some(predecessor) = &self.parts.predecessor {
            if let Err(error) = predecessor.ready() {
                log::warn!("the predecessor has gone before it could be told to leave: {error}");
            }
        } else {
            self.manager.ready("serving");
        }
        log::info!("serving: configuration {}, process {}", snapshot.generation, std::process::id());
        Ok(())
    }

    /// Starts what runs in the background and waits for its first results, unless told to leave in the meantime.
    async fn settle(&mut self, snapshot: &Snapshot) -> Result<(), Option<String>> {
        let settled = tasks::follow(snapshot, None);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => return Ok(()),
                signal = self.parts.signals.next() => match signal {
                    Signal::Terminate | Signal::Interrupt => return Err(None),
                    Signal::ReopenLogs => self.parts.access_log.reopen(),
                    Signal::Reload | Signal::HandOver => self.pending = Some(signal),
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let Command { verb, reply, channel } = command;
        match verb {
            Verb::Reload => self.reload(Some(reply)),
            Verb::Upgrade => self.hand_over(None, Some(reply)),
            Verb::TakeOver => self.hand_over(Some(channel), Some(reply)),
            Verb::Limits => {
                let snapshot = self.parts.reloader.live().load_full();
                let resources = Resources::of(&snapshot, &self.parts.drain, &self.parts.access_log);
                let text = serde_json::to_string(&resources).map_err(|error| error.to_string());
                // As below.
                drop(reply.send(Answer::new(text)));
            }
            Verb::Status => {
                let generation = self.parts.reloader.live().load_full().generation;
                let text = format!("process {} serves configuration {generation}", std::process::id());
                // Whoever asked has left: there is nobody to tell.
                drop(reply.send(Answer::new(Ok(text))));
            }
            Verb::Upstreams => {
                let text = upstreams::list(&self.parts.reloader.live().load_full());
                drop(reply.send(Answer::new(Ok(text))));
            }
            Verb::Drain(endpoint) => {
                let done = upstreams::drain(&self.parts.reloader.live().load_full(), &endpoint, true);
                drop(reply.send(Answer::new(done)));
            }
            Verb::Undrain(endpoint) => {
                let done = upstreams::drain(&self.parts.reloader.live().load_full(), &endpoint, false);
                drop(reply.send(Answer::new(done)));
            }
        }
    }

    fn start(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => self.reload(None),
            Signal::HandOver => self.hand_over(None, None),
            Signal::Terminate | Signal::Interrupt | Signal::ReopenLogs => {}
        }
    }

    fn reload(&mut self, reply: Option<oneshot::Sender<Answer>>) {
        let reloader = self.parts.reloader.clone();
        let task = tokio::spawn(async move { Done::Reload(Some(reloader.reload().await)) });
        self.operation = Some(Operation { task, reply, candidate: Candidate::default() });
    }

    /// Files have changed, or may have.
    fn look(&mut self) {
        let reloader = self.parts.reloader.clone();
        let task = tokio::spawn(async move { Done::Reload(reloader.catch_up().await) });
        self.operation = Some(Operation { task, reply: None, candidate: Candidate::default() });
    }

    /// As the configuration that serves has it.
    fn follow_files(&mut self) {
        if !self.parts.reloader.live().load_full().config.server.watch {
            self.watcher = None;
        } else if self.watcher.is_none() {
            match Watcher::start(self.parts.reloader.readings()) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(why) => log::error!("server.watch: files are not followed until the next reload: {why}"),
            }
        }
    }

    fn hand_over(&mut self, to: Option<Arc<Channel>>, reply: Option<oneshot::Sender<Answer>>) {
        let (launcher, sockets) = (self.parts.launcher.clone(), Arc::clone(&self.sockets));
        let offer = Offer::of(&self.parts.reloader.live().load_full(), self.parts.reloader.ticket_keys());
        let candidate = Candidate::default();
        let handed_over = apart("hand-over", {
            let candidate = candidate.clone();
            move || match to {
                Some(channel) => upgrade::give_way(channel, &sockets, &offer),
                None => launcher.hand_over(&sockets, &offer, &candidate),
            }
        });
        let task = tokio::spawn(async move {
            let ended = handed_over.await.unwrap_or_else(|_| Err("no thread could be had for it".to_owned()));
            Done::HandOver(ended)
        });
        self.operation = Some(Operation { task, reply, candidate });
    }

    /// An operation has ended; a successor ends this loop.
    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) -> Option<Successor> {
        let reply = self.operation.take().and_then(|operation| operation.reply);
        let (result, successor) = match done {
            Ok(Done::Reload(result)) => {
                self.follow_files();
                (result, None)
            }
            Ok(Done::HandOver(Ok(successor))) => {
                let text = format!("process {} has taken over from process {}", successor.pid, std::process::id());
                (Some(Ok(text)), Some(successor))
            }
            Ok(Done::HandOver(Err(why))) => {
                self.parts.metrics.upgraded(false);
                log::error!("nothing was handed over, this process serves on: {why}");
                (Some(Err(why)), None)
            }
            Err(panic) => (Some(Err(format!("a defect of this program: {panic}"))), None),
        };
        if successor.is_some() {
            self.stop_for_successor();
        }
        if let (Some(Ok(text)), None) = (&result, &successor) {
            self.manager.status(text);
        }
        if let Some((reply, result)) = reply.zip(result) {
            // Whoever asked has left: there is nobody to tell.
            drop(reply.send(Answer::new(result)));
        }
        if successor.is_none()
            && let Some(signal) = self.pending.take()
        {
            self.start(signal);
        }
        successor
    }

    /// Before anybody is told that it is done: then whoever asks next finds the successor alone.
    fn stop_for_successor(&mut self) {
        self.parts.metrics.upgraded(true);
        self.parts.status.hand_over();
        self.watcher = None;
        self.parts.drain.advance(Phase::Draining);
    }

    async fn succeeded(mut self, successor: Successor) -> ShutdownSignal {
        self.manager.hand_over(successor.pid).await;
        log::info!("process {} has taken over; draining {} connections", successor.pid, self.parts.drain.connections());
        drop(std::mem::take(&mut self.sockets));
        self.tell_predecessor(Predecessor::leaving);
        let news = watch_successor(successor.channel);
        self.drain(news, Cause::HandedOver).await
    }

    async fn terminate(mut self) -> ShutdownSignal {
        self.manager.stopping().await;
        self.tell_predecessor(Predecessor::leaving);
        let snapshot = self.parts.reloader.live().load_full();
        let delay = snapshot.config.server.drain_delay;
        self.end_operation();
        self.watcher = None;
        self.parts.drain.advance(Phase::Leaving);
        if !delay.is_zero() {
            log::info!("leaving: still accepting for {delay:?}");
            let over = tokio::time::sleep(delay);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    signal = self.parts.signals.next() => match signal {
                        Signal::Terminate | Signal::Interrupt => return ShutdownSignal::FastShutdown,
                        Signal::ReopenLogs => self.reopen_logs(),
                        Signal::Reload | Signal::HandOver => ignored(signal),
                    }
                }
            }
        }
        self.parts.drain.advance(Phase::Draining);
        log::info!("draining {} connections", self.parts.drain.connections());
        // Kept any longer, they would take connections that nobody serves.
        drop(std::mem::take(&mut self.sockets));
        let file = socket::path(&snapshot.config.server.runtime_dir);
        remove(&file);
        let (_never, news) = mpsc::channel(1);
        self.drain(news, Cause::Told).await
    }

    /// Waits for the last connection, at most `drain_timeout`.
    async fn drain(mut self, mut news: mpsc::Receiver<News>, cause: Cause) -> ShutdownSignal {
        let timeout = self.parts.reloader.live().load_full().config.server.drain_timeout;
        let drain = self.parts.drain.clone();
        let (over, emptied) = (tokio::time::sleep(timeout), drain.emptied());
        tokio::pin!(over, emptied);
        let (mut died, mut told) = (false, false);
        loop {
            tokio::select! {
                () = &mut emptied => {
                    log::info!("drained: nobody is left");
                    break;
                }
                () = &mut over => {
                    log::warn!("the drain is over: {} connections are cut", drain.connections());
                    break;
                }
                Some(news) = news.recv() => match news {
                    News::Reopen => self.parts.access_log.reopen(),
                    News::Died => died = true,
                },
                signal = self.parts.signals.next() => match signal {
                    // systemd stops all processes of the unit, and once more what is left when the main process has ended:
                    // what clients have begun is finished here as well.
                    Signal::Terminate if cause == Cause::HandedOver => {
                        log::info!("told to leave: it drains already");
                        told = true;
                    }
                    Signal::Terminate | Signal::Interrupt => {
                        log::warn!("told again to leave: {} connections are cut", drain.connections());
                        break;
                    }
                    Signal::ReopenLogs => self.reopen_logs(),
                    Signal::Reload | Signal::HandOver => ignored(signal),
                }
            }
            let soon = tokio::time::Instant::now() + HURRY;
            if died && told && over.deadline() > soon {
                log::warn!(
                    "the successor has died, and another is started when this process has left: within {HURRY:?}"
                );
                over.as_mut().reset(soon);
            }
        }
        ShutdownSignal::FastShutdown
    }

    fn end_operation(&mut self) {
        if let Some(operation) = self.operation.take() {
            operation.candidate.end();
            operation.task.abort();
        }
    }

    fn reopen_logs(&self) {
        self.parts.access_log.reopen();
        self.tell_predecessor(Predecessor::reopen_logs);
    }

    fn tell_predecessor(&self, what: fn(&Predecessor)) {
        if let Some(predecessor) = self.parts.predecessor.clone() {
            // It may be gone, or slow to read: not on a thread that others wait for.
            tokio::task::spawn_blocking(move || what(&predecessor));
        }
    }
}

fn ignored(signal: Signal) {
    log::info!("{signal:?} is ignored: this process is leaving");
}

fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file) {
        log::debug!("{} stays behind: {error}", file.display());
    }
}

/// Resolves with the result of the operation; there is one whenever this is awaited.
async fn finished(operation: Option<&mut Operation>) -> Result<Done, tokio::task::JoinError> {
    match operation {
        Some(operation) => (&mut operation.task).await,
        None => std::future::pending().await,
    }
}

/// Resolves when files that are followed may have changed.
async fn changed(watcher: Option<&mut Watcher>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// A thread that listens to the successor, until it is gone or this process ends.
fn watch_successor(channel: Arc<Channel>) -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(1);
    drop(apart("successor", move || {
        let mut leaving = false;
        loop {
            match channel.receive::<Report>(SUCCESSOR_POLL) {
                Ok(Some((Report::Reopen, _))) => drop(sender.try_send(News::Reopen)),
                Ok(Some((Report::Leaving, _))) => leaving = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ if leaving => return,
                // This process may have left.
                _ => return drop(sender.blocking_send(News::Died)),
            }
        }
    }));
    receiver
}

/// Does `work` on a thread of its own, which does not keep the process from leaving: the end of a runtime waits for its
/// blocking tasks.
fn apart<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Whoever waited has left.
        drop(sender.send(work()));
    });
    if let Err(error) = thread {
        log::error!("no thread for {name}: {error}");
    }
    receiver
}
