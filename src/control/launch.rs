//! Starting a successor by a process in between, which leaves when the successor is ready.
//!
//! So the successor becomes a child of process 1 at that moment, and not when its predecessor has drained: systemd is told
//! of the end of its own children alone, and would not see a main process die that is a child of another. Until then the
//! process in between knows how the successor ends, and ends it when that is asked for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use crate::socket::{Channel, LISTEN_PID};

/// Says to a process that its standard input is a channel from the process it succeeds.
pub(super) const MARK: &str = "TOLLGATE_SUCCEEDS";
/// The hidden verb of the process in between.
const VERB: &str = "launch";
/// What this process runs, also when it has been replaced or removed on the disk.
const THIS_BINARY: &str = "/proc/self/exe";
/// For messages that the other process takes at once.
const PROMPT: Duration = Duration::from_secs(5);
/// For two programs to be read from a disk and started.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a line on which nobody has to say anything is waited on at a time.
const POLL: Duration = Duration::from_secs(3600);

/// What the process in between is told. When the line closes it leaves, and the successor lives on by itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Start it; beside this comes what is to be its standard input
    Start,
    /// End it, and leave
    End,
}

/// What the process in between says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum News {
    /// It is there, as this process
    Started(u32),
    /// It could not be started, and why
    NotStarted(String),
    /// It has ended, and how
    Ended(String),
}

/// A successor that has not said READY yet. Ended with the hand-over if it never does, or when this process is told to
/// leave in the meantime: two processes that both believe to be the one must not go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidate(Arc<Mutex<Option<Between>>>);

/// The process in between, and the line to it.
#[derive(Debug)]
struct Between {
    process: Child,
    line: Arc<Channel>,
}

impl Candidate {
    /// Starts `program` with the configuration at `file` and with `channel` as its standard input: its process.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn begin(&self, program: &Path, file: &Path, channel: Channel) -> Result<u32, String> {
        let failed = |error: io::Error| format!("no process can be started that starts a successor: {error}");
        let (line, its_end) = Channel::pair().map_err(failed)?;
        let process = Command::new(THIS_BINARY)
            .arg(VERB)
            .args([program, file])
            .env(MARK, std::process::id().to_string())
            // It names this process; without it the successor takes the watchdog to be meant for itself.
            .env_remove("WATCHDOG_PID")
            // Sockets of the service manager come to it as all others do.
            .env_remove(LISTEN_PID)
            .stdin(Stdio::from(OwnedFd::from(its_end)))
            .spawn()
            .map_err(failed)?;
        let line = Arc::new(line);
        *self.0.lock() = Some(Between { process, line: Arc::clone(&line) });
        line.send(&Order::Start, &[channel.as_fd()], PROMPT).map_err(failed)?;
        drop(channel);
        match line.receive(PATIENCE).map_err(failed)? {
            Some((News::Started(pid), _)) => Ok(pid),
            Some((News::NotStarted(why) | News::Ended(why), _)) => Err(why),
            None => Err("the process that starts a successor has ended".to_owned()),
        }
    }

    /// It is ready and lives on without us, from now on as a child of process 1.
    pub(super) fn proven(&self) -> Result<(), String> {
        let Some(Between { mut process, line }) = self.0.lock().take() else {
            return Err("this process was told to leave".to_owned());
        };
        drop(line);
        // Who is whose child has changed before this returns; how it ended counts for nothing.
        let _ = process.wait();
        Ok(())
    }

    /// Why it is gone.
    pub(super) fn last_words(&self) -> String {
        let line = self.0.lock().as_ref().map(|between| Arc::clone(&between.line));
        match line.map(|line| line.receive(PROMPT)) {
            Some(Ok(Some((News::Ended(how), _)))) => format!("the successor ended before it was ready ({how})"),
            _ => "the successor ended before it was ready".to_owned(),
        }
    }

    /// Ends it, if it is still there.
    pub(super) fn end(&self) {
        if let Some(Between { mut process, line }) = self.0.lock().take() {
            // Both may have ended by themselves; what counts is that they have.
            let _ = line.send(&Order::End, &[], PROMPT);
            let _ = process.wait();
        }
    }
}

/// What the process in between does.
///
/// # Errors
/// It was not started by a process that hands over.
pub fn launch(program: &Path, file: &Path) -> io::Result<()> {
    let line = Arc::new(Channel::from(io::stdin().as_fd().try_clone_to_owned()?));
    let Some((Order::Start, sockets)) = line.receive(PATIENCE)? else { return Ok(()) };
    let channel = sockets.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    // This process lets go of the channel with the command: only one may hold it, or its closing would never be seen.
    let started = Command::new(program).args(["run", "--config"]).arg(file).stdin(Stdio::from(channel)).spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) => {
            let why = format!("{} cannot be started: {error}", program.display());
            return line.send(&News::NotStarted(why), &[], PROMPT);
        }
    };
    line.send(&News::Started(child.id()), &[], PROMPT)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let child = Arc::new(Mutex::new(child));
    let ended = thread::Builder::new().name("successor".to_owned()).spawn({
        let (line, child) = (Arc::clone(&line), Arc::clone(&child));
        move || {
            // Only seen here: until somebody takes leave of it, its number is nobody else's.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let how = child.lock().wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            // Whoever wanted to know has left.
            let _ = line.send(&News::Ended(how), &[], PROMPT);
        }
    })?;
    loop {
        match line.receive(POLL) {
            Ok(Some((Order::End, _))) => {
                // It may have ended by itself.
                let _ = child.lock().kill();
                let _ = ended.join();
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return Ok(()),
        }
    }
}
