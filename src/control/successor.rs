//! Handing over, seen by the process that comes: it takes the sockets, and says READY when it can serve.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Answer, Offer, Report, VERSION, Verb};
use super::{launch, socket};
use crate::config::Name;
use crate::snapshot::Snapshot;
use crate::socket::{Channel, Sockets};
use crate::tls::TicketKey;

/// For messages that the other process sends or takes at once.
const PROMPT: Duration = Duration::from_secs(10);
/// A process that is asked to give way may be in the middle of a reload.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that is being succeeded. Dropped before it was told READY, it serves on.
#[derive(Clone, Debug)]
pub struct Predecessor {
    channel: Arc<Channel>,
    offer: Arc<Offer>,
}

/// What it passes on.
#[derive(Debug, Default)]
pub struct Estate {
    /// Every listening socket
    pub sockets: Sockets,
    /// What opens the session tickets of its clients, and ours from now on
    pub ticket_keys: Vec<TicketKey>,
}

impl Predecessor {
    /// The process that has started this one as its successor, if one has; with what it passes on.
    ///
    /// # Errors
    /// It is gone, or of a version that cannot be succeeded.
    pub fn that_started_us() -> Result<Option<(Self, Estate)>, String> {
        // Set for this process alone by the one that started it: no setting of an operator's.
        #[expect(clippy::disallowed_methods, reason = "the mark is not configuration")]
        let mark = std::env::var_os(launch::MARK);
        if mark.is_none() {
            return Ok(None);
        }
        let channel = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        // Only one descriptor may hold this end, or its closing would never be seen.
        let null = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| error.to_string())?;
        Self::accept(Channel::from(channel), PROMPT).map(Some)
    }

    /// The process that runs with this runtime directory, which is asked to give way.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub fn that_runs(runtime_dir: &Path) -> Result<(Self, Estate), String> {
        let file = socket::path(runtime_dir);
        let channel = socket::request(runtime_dir, &Verb::TakeOver)
            .map_err(|error| format!("no running process to take over from at {}: {error}", file.display()))?;
        Self::accept(channel, PATIENCE)
    }

    fn accept(channel: Channel, patience: Duration) -> Result<(Self, Estate), String> {
        let said = channel.receive::<Said>(patience).map_err(|error| format!("the predecessor is silent: {error}"))?;
        let mut offer = match said {
            Some((Said::Offer(offer), _)) => offer,
            Some((Said::Answer(answer), _)) => return Err(answer.text),
            None => return Err("the predecessor is gone".to_owned()),
        };
        let version = offer.version;
        // Not to be kept beyond their time by somebody who only remembers the offer.
        let ticket_keys = std::mem::take(&mut offer.ticket_keys);
        let predecessor = Self { channel: Arc::new(channel), offer: Arc::new(offer) };
        if version != VERSION {
            let why = format!("the hand-over speaks version {VERSION}, the running process version {version}");
            predecessor.abort(&why);
            return Err(why);
        }
        let sockets = Sockets::receive(&predecessor.channel, PROMPT)
            .map_err(|error| format!("the predecessor's sockets did not arrive: {error}"))?;
        Ok((predecessor, Estate { sockets, ticket_keys }))
    }

    /// Which generation of the configuration ours follows.
    pub fn generation(&self) -> u64 {
        self.offer.generation
    }

    /// A way of knowing callers that it has keys for, and we have not.
    pub(super) fn lost_keys(&self, snapshot: &Snapshot) -> Option<Name> {
        let with_keys = snapshot.auth_with_keys();
        let lost = |name: &&Name| {
            self.offer.auth_with_keys.iter().any(|theirs| **theirs == ***name) && !with_keys.contains(name)
        };
        snapshot.authenticators.keys().find(lost).cloned()
    }

    /// What an operator has drained stays drained.
    pub(super) fn hand_down(&self, snapshot: &Snapshot) {
        for which in &self.offer.drained {
            // An endpoint that is gone needs no draining.
            if let Err(why) = super::upstreams::drain(snapshot, which, true) {
                log::debug!("{why}");
            }
        }
    }

    /// We serve: it stops accepting, drains and leaves.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn ready(&self) -> io::Result<()> {
        self.channel.send(&Report::Ready, &[], PROMPT)
    }

    /// We will not serve, and why: it serves on.
    pub fn abort(&self, why: &str) {
        self.tell(&Report::Abort(why.to_owned()));
    }

    /// Log files have been moved away: it may still write to them.
    pub(super) fn reopen_logs(&self) {
        self.tell(&Report::Reopen);
    }

    /// That we end is no accident.
    pub(super) fn leaving(&self) {
        self.tell(&Report::Leaving);
    }

    fn tell(&self, report: &Report) {
        if let Err(error) = self.channel.send(report, &[], PROMPT) {
            log::debug!("the predecessor is gone: {error}");
        }
    }
}

/// The first thing a predecessor says.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Said {
    Offer(Offer),
    Answer(Answer),
}
