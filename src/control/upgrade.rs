//! Handing over, seen by the process that leaves: it serves until its successor has said that it can.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::launch::Candidate;
use super::message::{Offer, Report};
use crate::socket::{Channel, Sockets};

/// From the start of a successor to its READY: it reads files, resolves names and fetches keys in this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// For messages that the other process takes at once.
const PROMPT: Duration = Duration::from_secs(5);

/// How a successor is started: the binary that was started first, wherever a package manager has put a new one.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Resolved when the process started: after an update of the package `/proc/self/exe` is a deleted file
    program: PathBuf,
    /// The configuration file, as it was named
    file: PathBuf,
}

/// A successor that serves.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) pid: u32,
    pub(super) channel: Arc<Channel>,
}

impl Launcher {
    /// The binary of this process, with the configuration at `file`.
    ///
    /// # Errors
    /// The system does not say where its binary is.
    pub fn of_this_process(file: &Path) -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, file: file.to_owned() })
    }

    /// Starts a successor and hands over to it. Blocks; the successor is killed if it does not get ready.
    ///
    /// # Errors
    /// Why nothing has changed, for a person.
    pub(super) fn hand_over(
        &self,
        sockets: &Sockets,
        offer: &Offer,
        candidate: &Candidate,
    ) -> Result<Successor, String> {
        if std::process::id() == 1 {
            return Err(
                "this is process 1 of a container, which ends with it: start a new container instead".to_owned()
            );
        }
        let (ours, theirs) = Channel::pair().map_err(|error| format!("no channel to a successor: {error}"))?;
        let begun = candidate.begin(&self.program, &self.file, theirs);
        let failed = match begun.map(|pid| (pid, hand_out(&ours, sockets, offer))) {
            Ok((pid, Ok(()))) => return candidate.proven().map(|()| Successor { pid, channel: Arc::new(ours) }),
            Ok((_, Err(Failure::Aborted(why)))) | Err(why) => why,
            Ok((_, Err(Failure::Gone))) => candidate.last_words(),
            Ok((_, Err(Failure::Silent(error)))) => {
                format!("the successor said nothing for too long and was ended: {error}")
            }
        };
        candidate.end();
        Err(failed)
    }
}

/// Hands over to a process that has asked for it on `channel`.
///
/// # Errors
/// Why nothing has changed, for a person.
pub(super) fn give_way(channel: Arc<Channel>, sockets: &Sockets, offer: &Offer) -> Result<Successor, String> {
    let (pid, _) = channel.peer().map_err(|error| error.to_string())?;
    match hand_out(&channel, sockets, offer) {
        Ok(()) => Ok(Successor { pid, channel }),
        Err(Failure::Aborted(why)) => Err(why),
        Err(Failure::Gone) => Err(format!("process {pid} ended before it was ready")),
        Err(Failure::Silent(error)) => Err(format!("process {pid} said nothing for too long: {error}")),
    }
}

enum Failure {
    Aborted(String),
    Gone,
    Silent(io::Error),
}

/// Passes everything on and waits for READY.
fn hand_out(channel: &Channel, sockets: &Sockets, offer: &Offer) -> Result<(), Failure> {
    channel.send(offer, &[], PROMPT).and_then(|()| sockets.send(channel, PROMPT))?;
    match channel.receive::<Report>(PATIENCE)? {
        Some((Report::Ready, _)) => Ok(()),
        Some((Report::Abort(why), _)) => Err(Failure::Aborted(why)),
        Some((Report::Reopen | Report::Leaving, _)) => {
            Err(Failure::Aborted("the successor spoke out of turn".to_owned()))
        }
        None => Err(Failure::Gone),
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The second is of one that has ended before it read what it was sent.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Silent(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_without_reading_is_gone_and_not_silent() {
        let (ours, theirs) = Channel::pair().expect("a channel");
        ours.send(&Report::Ready, &[], PROMPT).expect("it is taken");
        drop(theirs);
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
            let error = ours.send(&Report::Ready, &[], PROMPT).expect_err("nobody is there");
            assert_eq!(error.kind(), kind);
            assert!(matches!(error.into(), Failure::Gone));
        }
    }

    #[test]
    fn who_says_nothing_is_silent() {
        let (ours, _theirs) = Channel::pair().expect("a channel");
        let error = ours.receive::<Report>(Duration::from_millis(10)).expect_err("nothing comes");
        assert!(matches!(error.into(), Failure::Silent(_)));
    }
}
