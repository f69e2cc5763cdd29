//! The window with which a client of HTTP/2 lets the streams of its connection begin.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A window that is smaller is closed: hardly any answer fits.
const CLOSED: u32 = 1024;

/// Whether it is closed, as the client has said last. It is open until something is said (RFC 9113 section 6.9.2).
#[derive(Debug, Default)]
pub struct Window {
    closed: AtomicBool,
    opened: Notify,
}

impl Window {
    /// It is so many bytes from now on.
    pub fn set(&self, bytes: u32) {
        let closed = bytes < CLOSED;
        if self.is_closed() != closed {
            self.closed.store(closed, Ordering::Relaxed);
            self.opened.notify_waiters();
        }
    }

    /// Whether of an answer hardly anything but its head can be sent.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Resolves when it is not closed.
    pub async fn opened(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }
}
