//! The kernel's watch over directories and files, as far as it is needed here: inotify(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};

/// For the events of one reading; the largest is 272 bytes long.
const BUFFER: usize = 4096;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Which names it has: they come, go, and are put in each other's place
    Directory,
    /// What is in it
    File,
}

/// One watcher of the kernel's. All it watches ends with it.
#[derive(Debug)]
pub(super) struct Inotify(OwnedFd);

impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }

    /// Watches what is at `path` now. It is known by a number; one that is watched already keeps its own.
    pub(super) fn watch(&self, path: &Path, mark: Mark) -> io::Result<i32> {
        // Opening is not asked for: our own reading would be told.
        let flags = match mark {
            Mark::Directory => {
                WatchFlags::CREATE
                    | WatchFlags::DELETE
                    | WatchFlags::MOVE
                    | WatchFlags::ATTRIB
                    | WatchFlags::DELETE_SELF
                    | WatchFlags::MOVE_SELF
                    | WatchFlags::ONLYDIR
            }
            Mark::File => WatchFlags::MODIFY | WatchFlags::ATTRIB,
        };
        Ok(inotify::add_watch(&self.0, path, flags | WatchFlags::DONT_FOLLOW)?)
    }

    /// Ends a watch. One whose file is gone has ended by itself.
    pub(super) fn forget(&self, watch: i32) {
        if let Err(error) = inotify::remove_watch(&self.0, watch) {
            log::debug!("watch {watch} has ended before: {error}");
        }
    }

    /// Reads what has been told, a buffer full, and says whether any of it `concerns`.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has.
    pub(super) fn any(&self, mut concerns: impl FnMut(&Told<'_>) -> bool) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut found = false;
        loop {
            found |= concerns(&Told::of(&reader.next()?));
            if reader.is_buffer_empty() {
                return Ok(found);
            }
        }
    }
}

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    /// Of a name in a directory
    Name(i32, &'a [u8]),
    /// Of what is watched itself
    Itself(i32),
    /// That it could not keep all that happened
    Overflow,
    /// That a watch has ended; why was told before
    Ended,
}

impl<'a> Told<'a> {
    fn of(event: &'a Event<'a>) -> Self {
        let events = event.events();
        match event.file_name() {
            _ if events.contains(ReadFlags::QUEUE_OVERFLOW) => Self::Overflow,
            _ if events.contains(ReadFlags::IGNORED) => Self::Ended,
            Some(name) => Self::Name(event.wd(), name.to_bytes()),
            None => Self::Itself(event.wd()),
        }
    }
}
