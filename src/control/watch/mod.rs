//! `server.watch`: the files that the configuration was read from are followed, and a change of them asks for a reload.
//!
//! Nothing polls. The kernel tells of changes by name ([`Inotify`]); [`Ground`] is what it is asked to tell of, and what of
//! that matters; a [`Burst`] of changes is one. Whether there is anything new in the files is for the
//! [`Reloader`](super::Reloader) to see, which reads them anyway.

#![expect(clippy::disallowed_methods, reason = "control owns the tasks that it starts")]

mod burst;
mod ground;
mod inotify;

use std::io;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::burst::Burst;
use self::ground::Ground;
use self::inotify::Inotify;
use crate::config::Reading;

/// Follows files until dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    task: JoinHandle<()>,
    looks: mpsc::Receiver<()>,
}

impl Watcher {
    /// Follows what was read last, always.
    ///
    /// # Errors
    /// The kernel has no watcher left, and what to do about it.
    pub(super) fn start(readings: watch::Receiver<Arc<Reading>>) -> Result<Self, String> {
        #[expect(
            deprecated,
            reason = "unsound only for types that change their descriptor; the new way needs unsafe code"
        )]
        let watch = |inotify| AsyncFd::with_interest(Arc::new(inotify), Interest::READABLE);
        let inotify = Inotify::new().and_then(watch);
        let inotify = inotify.map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::MFILE.raw_os_error() => {
                format!("{error}: raise fs.inotify.max_user_instances, or the limit of open files")
            }
            _ => error.to_string(),
        })?;
        // One that waits to be heard stands for all.
        let (sender, looks) = mpsc::channel(1);
        Ok(Self { task: tokio::spawn(follow(inotify, readings, sender)), looks })
    }

    /// Resolves when files may have changed. Cancelling loses nothing.
    pub(super) async fn changed(&mut self) {
        if self.looks.recv().await.is_none() {
            // It has said why it ended.
            std::future::pending().await
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(inotify: AsyncFd<Arc<Inotify>>, readings: watch::Receiver<Arc<Reading>>, looks: mpsc::Sender<()>) {
    if let Err(error) = follow_on(&inotify, readings, looks).await {
        log::error!("server.watch: files are no longer followed: {error}");
    }
}

/// Ends when nobody reads any more.
async fn follow_on(
    inotify: &AsyncFd<Arc<Inotify>>,
    mut readings: watch::Receiver<Arc<Reading>>,
    looks: mpsc::Sender<()>,
) -> io::Result<()> {
    let (mut ground, mut burst) = (Ground::default(), Burst::default());
    readings.mark_changed();
    loop {
        tokio::select! {
            changed = readings.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let reading = Arc::clone(&readings.borrow_and_update());
                let before = ground.clone();
                ground = survey(inotify.get_ref(), reading, before.clone()).await?;
                // What is watched from now on may have changed after it was read.
                if ground.reaches_beyond(&before) {
                    burst.note();
                }
            }
            matters = matters(inotify, &ground) => {
                if matters? {
                    burst.note();
                }
            }
            () = burst.over() => {
                // Before the files are read: a link may lead elsewhere now, and what happens there from here on is told.
                let reading = Arc::clone(&readings.borrow());
                ground = survey(inotify.get_ref(), reading, ground).await?;
                // Full, somebody is about to look anyway.
                let _ = looks.try_send(());
            }
        }
    }
}

/// Not on a thread that others wait for: it asks the disk.
async fn survey(inotify: &Arc<Inotify>, reading: Arc<Reading>, before: Ground) -> io::Result<Ground> {
    let inotify = Arc::clone(inotify);
    let surveyed = tokio::task::spawn_blocking(move || {
        let ground = Ground::survey(&reading, |path, mark| inotify.watch(path, mark));
        ground.tell(&before);
        before.without(&ground).for_each(|watch| inotify.forget(watch));
        ground
    });
    surveyed.await.map_err(io::Error::other)
}

/// Waits for events, and says whether one of them is about what is followed.
async fn matters(inotify: &AsyncFd<Arc<Inotify>>, ground: &Ground) -> io::Result<bool> {
    let mut ready = inotify.readable().await?;
    let read = ready.try_io(|inotify| inotify.get_ref().any(|event| ground.concerns(event)));
    read.unwrap_or(Ok(false))
}
