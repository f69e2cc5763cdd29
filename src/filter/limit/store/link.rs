//! The connection to a store: one for all limits that name it, kept by a task and used by every worker.
//!
//! While there is none, nobody waits: whoever asks is told so at once, and the task alone tries again. The first
//! question without a good answer in time ends the connection, so that those after it do not wait as long.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Opened, Way, told};
use super::script::{Broken, Scripts, Seed};
use super::terms::{Answer, Terms};
use crate::config::{Problem, RedisServer};

/// To be connected and to have been greeted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses between two tries double from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lasted as long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(10);
/// What a try takes, to see that the server can do what it will be asked: far from any limit.
const PROBE: Terms = Terms::Rate { interval: 1_000_000, burst: 1_000_000_000 };
const PROBE_KEY: &[u8] = b"tollgate:_probe";

/// The one connection to one store.
pub(super) struct Link {
    way: Way,
    scripts: Scripts,
    /// Present while the store answers
    connection: ArcSwapOption<MultiplexedConnection>,
    /// Why it was given up, for the log
    why: Mutex<String>,
    given_up: Arc<Notify>,
    started: AtomicBool,
    /// Whether it was tried once
    tried: watch::Sender<bool>,
}

/// Why there is no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Known before: not asked
    Down,
    /// Not in time
    TimedOut,
    /// An error, or nonsense
    Refused,
}

impl Link {
    /// # Errors
    /// An authority that cannot be one.
    pub(super) fn build(server: &RedisServer) -> Result<Self, Problem> {
        Ok(Self {
            way: Way::build(server)?,
            scripts: Scripts::new(),
            connection: ArcSwapOption::empty(),
            why: Mutex::default(),
            given_up: Arc::default(),
            started: AtomicBool::new(false),
            tried: watch::Sender::new(false),
        })
    }

    pub(super) fn server(&self) -> &RedisServer {
        self.way.server()
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.load().is_some()
    }

    /// Takes up to `wanted`, `least` at least or none.
    pub(super) async fn take(&self, key: &[u8], terms: Terms, wanted: u32, least: u32) -> Result<Answer, Failure> {
        let ask = |mut connection| async move { self.scripts.take(&mut connection, key, terms, wanted, least).await };
        self.ask(ask).await
    }

    /// Gives back what was taken and not spent, of a quota in the period that `ends` then.
    pub(super) async fn give_back(&self, key: &[u8], terms: Terms, unspent: u32, ends: u64) -> Result<(), Failure> {
        let ask =
            |mut connection| async move { self.scripts.give_back(&mut connection, key, terms, unspent, ends).await };
        self.ask(ask).await
    }

    /// What all who ask for this key know, and nobody else.
    pub(super) async fn seed(&self, key: &[u8], proposed: &Seed, life: Duration) -> Result<Seed, Failure> {
        let ask = |mut connection| async move { self.scripts.seed(&mut connection, key, proposed, life).await };
        self.ask(ask).await
    }

    async fn ask<T, F: Future<Output = Result<T, Broken>>>(
        &self,
        ask: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Failure> {
        let connection = self.connection.load_full().ok_or(Failure::Down)?;
        let (failure, why) = match timeout(self.server().timeout, ask((*connection).clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(broken)) => (Failure::Refused, told(&broken)),
            Err(_) => (Failure::TimedOut, format!("no answer within {:?}", self.server().timeout)),
        };
        // Only the first to find out gives it up: by now there may be another.
        let found = self.connection.compare_and_swap(&Some(Arc::clone(&connection)), None);
        if found.as_ref().is_some_and(|found| Arc::ptr_eq(found, &connection)) {
            *self.why.lock() = why;
            self.given_up.notify_one();
        }
        Err(failure)
    }

    /// Keeps the connection, until nobody needs it; `None` when it is being kept already.
    pub(super) fn task(self: &Arc<Self>) -> Option<impl Future<Output = ()> + Send + use<>> {
        let is_first = !self.started.swap(true, Ordering::Relaxed);
        is_first.then(|| keep(Arc::downgrade(self)))
    }

    /// Waits for the first try, but not for long.
    pub(super) async fn settled(&self) {
        // Too late, or nobody left to try: then `on_store_failure` decides.
        let _ = timeout(CONNECT_TIMEOUT, self.tried.subscribe().wait_for(|tried| *tried)).await;
    }

    /// Whether the server does what it will be asked: one that is full, or a replica, would only read.
    async fn probe(&self, mut connection: MultiplexedConnection) -> Result<(), String> {
        let probe = self.scripts.take(&mut connection, PROBE_KEY, PROBE, 1, 1);
        match timeout(self.server().timeout, probe).await {
            Ok(answer) => answer.map(drop).map_err(|broken| told(&broken)),
            Err(_) => Err(format!("no answer within {:?}", self.server().timeout)),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.given_up.notify_one();
    }
}

/// Neither where it is going by whose name, nor what has been said, but where alone.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, up: {})", self.server().address, self.is_up())
    }
}

async fn keep(link: Weak<Link>) {
    let (mut pause, mut said_down) = (FIRST_PAUSE, false);
    loop {
        let Some(strong) = link.upgrade() else { return };
        let address = strong.server().address.clone();
        let given_up = Arc::clone(&strong.given_up);
        let begin = Instant::now();
        let opened = match timeout(CONNECT_TIMEOUT, strong.way.open()).await {
            Ok(Ok(mut opened)) => {
                let probe = strong.probe(opened.connection.clone());
                opened.ask(probe).await.map(|()| opened)
            }
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no connection within {CONNECT_TIMEOUT:?}")),
        };
        let why = match opened {
            Ok(Opened { connection, driver, at }) => {
                log::info!("limits: the store at {at} answers");
                said_down = false;
                strong.connection.store(Some(Arc::new(connection)));
                strong.tried.send_replace(true);
                drop(strong);
                let (mut driver, mut has_ended) = (driver, false);
                let strong = loop {
                    has_ended |= matches!(select(driver.as_mut(), pin!(given_up.notified())).await, Either::Left(_));
                    let Some(strong) = link.upgrade() else { return };
                    // An earlier connection may have been given up just as it ended: that is no news of this one.
                    if has_ended || !strong.is_up() {
                        break strong;
                    }
                };
                strong.connection.store(None);
                let why = std::mem::take(&mut *strong.why.lock());
                if has_ended && why.is_empty() { "it closed the connection".to_owned() } else { why }
            }
            Err(why) => {
                strong.tried.send_replace(true);
                why
            }
        };
        if !said_down {
            log::warn!(
                "limits: the store at {address} does not answer ({why}): on_store_failure decides until it does"
            );
            said_down = true;
        }
        if begin.elapsed() >= GOOD {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
