//! The gateway itself: this binary, as a process of its own.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Failure;

/// From its start to ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than its drain takes.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked at while something is waited for.
const POLL: Duration = Duration::from_millis(50);

/// Ended when dropped, at once; [`stop`](Self::stop) lets it finish first.
///
/// It has a process group of its own, for two reasons: a Ctrl-C in the terminal must not reach it before us, and the
/// successors that `tollgate upgrade` makes are found by it.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    /// None once nobody is in it
    group: Option<Pid>,
    log: PathBuf,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(file: &Path, directory: &Path, admin: SocketAddr) -> Result<Self, Failure> {
        let log = directory.join("gateway.log");
        let output = File::create(&log)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            // Were the demo run by a service manager, the gateway's READY would not be the demo's.
            .env_remove("NOTIFY_SOCKET")
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let mut gateway = Self { child, group, log };
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(admin).await {
            if gateway.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("the gateway did not start:\n{}", gateway.last_words()).into());
            }
            sleep(POLL).await;
        }
        Ok(gateway)
    }

    /// Resolves when it has ended without having been told to; not when it was succeeded.
    pub(super) async fn ended(&mut self) -> Failure {
        let ended = self.child.wait().await;
        while self.is_alive() {
            sleep(POLL).await;
        }
        self.group = None;
        let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("the gateway has ended ({how}):\n{}", self.last_words()).into()
    }

    /// Lets it finish what it has begun, and ends it if that takes too long.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let gone = async {
            // Only the first process is ours to wait for; a successor is looked for.
            let _ = self.child.wait().await;
            while self.is_alive() {
                sleep(POLL).await;
            }
        };
        if timeout(STOP_TIMEOUT, gone).await.is_ok() {
            self.group = None;
        }
    }

    fn is_alive(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended a moment ago.
            let _ = kill_process_group(group, signal);
        }
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("and its log cannot be read: {error}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        io::Result::Ok(status)
    };
    matches!(timeout(START_TIMEOUT, ask).await, Ok(Ok(status)) if status == *b"HTTP/1.1 200")
}
