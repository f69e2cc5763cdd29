//! What the service manager is told (sd_notify(3)). Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Messages that wait; more are dropped.
const QUEUE: usize = 16;
/// How long a message is waited for without which the process must not go on.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager: a thread sends, since a manager that does not read would stop whoever tells it
/// something.
#[derive(Clone, Debug)]
pub(super) struct ServiceManager(mpsc::Sender<Message>);

#[derive(Debug)]
struct Message {
    text: String,
    sent: Option<oneshot::Sender<()>>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        if let Err(error) = std::thread::Builder::new().name("notify".to_owned()).spawn(move || send(receiver)) {
            log::error!("no thread to tell the service manager anything: {error}");
        }
        Self(sender)
    }

    /// Serving, or serving something new.
    pub(super) fn ready(&self, text: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(text)]);
    }

    /// What `systemctl status` shows.
    pub(super) fn status(&self, text: &str) {
        self.tell(&[NotifyState::Status(text)]);
    }

    /// Leaving, without a successor.
    pub(super) async fn stopping(&self) {
        self.insist(&[NotifyState::Stopping, NotifyState::Status("draining")]).await;
    }

    /// From now on `pid` is the main process. Only the main process may say so, and its successor must be ready.
    pub(super) async fn hand_over(&self, pid: u32) {
        self.insist(&[NotifyState::MainPid(pid), NotifyState::Ready]).await;
    }

    /// Shows that this process is alive, as often as the service manager wants to see it.
    pub(super) async fn watchdog(self) {
        let Some(patience) = sd_notify::watchdog_enabled() else {
            return;
        };
        let mut ticks = tokio::time::interval((patience / 2).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// Tells it something and waits until it has been sent, within a bound of time: for a place in the queue as well.
    async fn insist(&self, state: &[NotifyState<'_>]) {
        let (sent, told) = oneshot::channel();
        let message = Message { text: text(state), sent: Some(sent) };
        let sending = async { self.0.send(message).await.is_ok() && told.await.is_ok() };
        if timeout(PATIENCE, sending).await != Ok(true) {
            log::warn!("the service manager does not take its messages");
        }
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        // Full: what comes next says more. Without the thread there is nobody to tell it.
        drop(self.0.try_send(Message { text: text(state), sent: None }));
    }
}

fn text(state: &[NotifyState<'_>]) -> String {
    state.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn send(mut messages: mpsc::Receiver<Message>) {
    while let Some(Message { text, sent }) = messages.blocking_recv() {
        if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&text)]) {
            log::warn!("the service manager cannot be told: {error}");
        }
        if let Some(sent) = sent {
            // It may have been given up on.
            let _ = sent.send(());
        }
    }
}
