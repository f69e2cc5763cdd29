//! The control socket: what `tollgate reload`, `upgrade` and `status` talk to.
//!
//! Only the user that runs the process and root may: the file's mode says so, and the peer's user is checked.

#![expect(clippy::disallowed_methods, reason = "control owns the tasks that it starts")]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Drain;
use super::message::{Answer, Outcome, Request, VERSION, Verb};
use crate::socket::Channel;

/// How long either end waits for a message that the other should send at once.
const PROMPT: Duration = Duration::from_secs(5);
/// How long a request may take: a hand-over, and a reload in front of it.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two attempts to find the successor of a process that leaves.
const RETRY: Duration = Duration::from_millis(50);
/// Requests that wait at the same time.
const MAX_REQUESTS: usize = 16;

/// Where the socket of a running process is.
pub fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// A request, and where its answer goes. Dropping it unanswered sends the asker to the successor.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) verb: Verb,
    pub(super) reply: oneshot::Sender<Answer>,
    /// For a hand-over on the asker's own channel
    pub(super) channel: Arc<Channel>,
}

/// Passes requests on until a successor listens in our place.
pub(super) async fn serve(socket: OwnedFd, commands: mpsc::Sender<Command>, drain: Drain) {
    // The type says "stream", but accepting is the same for packets, and what is accepted becomes a channel at once.
    let socket = match tokio::net::UnixListener::from_std(UnixListener::from(socket)) {
        Ok(socket) => socket,
        Err(error) => {
            log::error!("the control socket cannot be used: {error}");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_REQUESTS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.stopping() => return,
            accepted = socket.accept() => accepted,
        };
        let channel = accepted.and_then(|(stream, _)| blocking(stream));
        match (channel, Arc::clone(&places).try_acquire_owned()) {
            (Ok(channel), Ok(place)) => {
                let (commands, drain) = (commands.clone(), drain.clone());
                tokio::spawn(async move {
                    attend(Arc::new(channel), commands, &drain).await;
                    drop(place);
                });
            }
            (Ok(_), Err(_)) => log::warn!("too many requests wait on the control socket: one was turned away"),
            (Err(error), _) => {
                log::warn!("a request on the control socket was lost: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn blocking(stream: tokio::net::UnixStream) -> io::Result<Channel> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(Channel::from(OwnedFd::from(stream)))
}

async fn attend(channel: Arc<Channel>, commands: mpsc::Sender<Command>, drain: &Drain) {
    let asked = tokio::task::spawn_blocking({
        let channel = Arc::clone(&channel);
        move || receive(&channel)
    });
    let verb = match asked.await {
        Ok(Ok(verb)) => verb,
        Ok(Err(why)) => {
            log::warn!("a request on the control socket was refused: {why}");
            return answer(&channel, Answer::new(Err(why))).await;
        }
        Err(_panicked) => return,
    };
    // A process that ends before its answer has left would be asked for the same again, as its successor.
    let _unanswered = drain.acceptor();
    let (reply, answered) = oneshot::channel();
    let hands_over = verb == Verb::TakeOver;
    let command = Command { verb, reply, channel: Arc::clone(&channel) };
    let reply = match commands.send(command).await {
        Ok(()) => answered.await.unwrap_or_else(|_| Answer::ask_successor()),
        Err(_) => Answer::ask_successor(),
    };
    // A hand-over has said everything on this channel already.
    if !hands_over || reply.outcome != Outcome::Done {
        answer(&channel, reply).await;
    }
}

async fn answer(channel: &Arc<Channel>, answer: Answer) {
    let channel = Arc::clone(channel);
    let sent = tokio::task::spawn_blocking(move || channel.send(&answer, &[], PROMPT)).await;
    if let Ok(Err(error)) = sent {
        log::warn!("who asked on the control socket did not wait for the answer: {error}");
    }
}

fn receive(channel: &Channel) -> Result<Verb, String> {
    let (pid, user) = channel.peer().map_err(|error| error.to_string())?;
    let own = rustix::process::geteuid().as_raw();
    if user != own && user != 0 {
        return Err(format!("user {user} (process {pid}) may not control this process"));
    }
    match channel.receive::<Request>(PROMPT) {
        Ok(Some((request, _))) if request.version == VERSION => Ok(request.verb),
        Ok(Some(_)) => Err("this process speaks another version of the control protocol".to_owned()),
        Ok(None) => Err("nothing was asked".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens a channel to the process whose runtime directory this is, and asks.
pub(super) fn request(runtime_dir: &Path, verb: &Verb) -> io::Result<Channel> {
    let channel = Channel::connect(&path(runtime_dir))?;
    channel.send(&Request { version: VERSION, verb: verb.clone() }, &[], PROMPT)?;
    Ok(channel)
}

/// Asks the process whose runtime directory this is, and waits for its answer. While one process hands over to
/// another, it is the successor that is asked.
///
/// # Errors
/// Why there is no answer, for a person.
pub fn ask(runtime_dir: &Path, verb: &Verb) -> Result<Answer, String> {
    let until = Instant::now() + PATIENCE;
    let file = path(runtime_dir);
    loop {
        let channel = request(runtime_dir, verb)
            .map_err(|error| format!("no running process answers at {}: {error}", file.display()))?;
        match channel.receive::<Answer>(until.saturating_duration_since(Instant::now()).max(PROMPT)) {
            Ok(Some((answer, _))) if answer.outcome != Outcome::AskSuccessor => return Ok(answer),
            // It has left, or is about to.
            Ok(Some(_) | None) if Instant::now() < until => std::thread::sleep(RETRY),
            Ok(_) => return Err(format!("nobody has taken over {}", file.display())),
            Err(error) => return Err(format!("no answer from {}: {error}", file.display())),
        }
    }
}
