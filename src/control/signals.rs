//! Signals, from the first moment on: one that arrives before anybody listens must not kill the process.

use std::io;

use rustix::process::WaitOptions;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What an operator or a service manager asks for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// HUP: read the configuration again
    Reload,
    /// QUIT: hand over to a successor
    HandOver,
    /// TERM: drain and leave; the second one at once
    Terminate,
    /// INT: leave at once
    Interrupt,
    /// USR1: log files have been moved away
    ReopenLogs,
}

/// The signals of this process, in the order of their arrival.
#[derive(Debug)]
pub struct Signals(UnboundedReceiver<Signal>);

impl Signals {
    /// Installs the handlers, and a thread that waits for them.
    ///
    /// # Errors
    /// No descriptor or no thread left.
    pub fn install() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (ended, streams) = {
            let _context = runtime.enter();
            // The first process of a container inherits those whose parents are gone. It starts none itself.
            let ended = (std::process::id() == 1).then(|| signal(SignalKind::child())).transpose()?;
            let streams = [
                (signal(SignalKind::hangup())?, Signal::Reload),
                (signal(SignalKind::quit())?, Signal::HandOver),
                (signal(SignalKind::terminate())?, Signal::Terminate),
                (signal(SignalKind::interrupt())?, Signal::Interrupt),
                (signal(SignalKind::user_defined1())?, Signal::ReopenLogs),
            ];
            (ended, streams)
        };
        // Unbounded in name only: the kernel and tokio fold signals of one kind that nobody has seen yet into one.
        let (sender, receiver) = unbounded_channel();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let forward = |(mut stream, signal): (Stream, Signal)| {
                    let sender = sender.clone();
                    async move { while stream.recv().await.is_some() && sender.send(signal).is_ok() {} }
                };
                let reaping = async {
                    if let Some(ended) = ended {
                        reap(ended).await;
                    }
                };
                futures_util::future::join(reaping, futures_util::future::join_all(streams.map(forward))).await;
            });
        })?;
        Ok(Self(receiver))
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // The thread is gone, and with it every way to ask; the process goes on serving.
            None => std::future::pending().await,
        }
    }
}

/// Takes leave of every process that has ended, or they would stay in the table of processes for ever.
async fn reap(mut ended: Stream) {
    loop {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if ended.recv().await.is_none() {
            return;
        }
    }
}
