//! What the service manager is told (sd_notify(3)). Without one, nothing happens.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Messages that wait; more are dropped.
const QUEUE: usize = 16;
/// How long a message is waited for without which the process must not go on.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager: a thread sends, since a manager that does not read would stop whoever tells it
/// something.
#[derive(Clone, Debug)]
pub(super) struct ServiceManager(SyncSender<Message>);

#[derive(Debug)]
struct Message {
    text: String,
    sent: Option<oneshot::Sender<()>>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        if let Err(error) = std::thread::Builder::new().name("notify".to_owned()).spawn(move || send(&receiver)) {
            log::error!("no thread to tell the service manager anything: {error}");
        }
        Self(sender)
    }

    /// Serving, or serving something new.
    pub(super) fn ready(&self, text: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(text)], None);
    }

    /// What `systemctl status` shows.
    pub(super) fn status(&self, text: &str) {
        self.tell(&[NotifyState::Status(text)], None);
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
            self.tell(&[NotifyState::Watchdog], None);
        }
    }

    /// Tells it something and waits until it has been sent, within a bound of time.
    async fn insist(&self, state: &[NotifyState<'_>]) {
        let (sent, told) = oneshot::channel();
        self.tell(state, Some(sent));
        if timeout(PATIENCE, told).await.is_err() {
            log::warn!("the service manager does not take its messages");
        }
    }

    fn tell(&self, state: &[NotifyState<'_>], sent: Option<oneshot::Sender<()>>) {
        let lines: Vec<_> = state.iter().map(ToString::to_string).collect();
        // Full, or the thread could not be started: whoever waits for the message notices.
        drop(self.0.try_send(Message { text: lines.join("\n"), sent }));
    }
}

fn send(messages: &Receiver<Message>) {
    while let Ok(Message { text, sent }) = messages.recv() {
        if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&text)]) {
            log::warn!("the service manager cannot be told: {error}");
        }
        if let Some(sent) = sent {
            // It may have been given up on.
            let _ = sent.send(());
        }
    }
}
