//! Where a change can make a configuration mean something else.
//!
//! A file is more than its bytes: editors rename a new one over it, Kubernetes swaps the link `..data` that it is reached
//! through, certbot the link itself. So its path is walked as the kernel walks it, and every directory on the way is watched
//! for the one name that the way takes there. The file itself is watched too, for those who write into it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::inotify::{Mark, Told};
use crate::config::{Reading, Surroundings, System};

/// Links on one way; the kernel does not follow more.
const MAX_LINKS: usize = 40;
/// Directories and files that are watched: patterns can reach far.
const MAX_WATCHES: usize = 20_000;

/// What is watched, and what of it matters.
#[derive(Clone, Debug, Default)]
pub(super) struct Ground {
    /// By the number of the watch
    matters: BTreeMap<i32, Names>,
    /// What should be watched and is not
    unwatched: BTreeMap<PathBuf, String>,
}

/// The names in a directory that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    These(BTreeSet<OsString>),
    Any,
}

impl Ground {
    /// Everything that `reading` depends on, where it is now. Each directory is watched before it is looked into, so nothing
    /// that happens meanwhile is missed.
    pub(super) fn survey(reading: &Reading, watch: impl FnMut(&Path, Mark) -> io::Result<i32>) -> Self {
        let mut survey = Survey { watch, ground: Self::default(), watches: BTreeMap::new() };
        for file in reading.files() {
            survey.walk(file);
        }
        for pattern in reading.patterns() {
            survey.pattern(Path::new(pattern));
        }
        survey.ground
    }

    /// Whether this is about what is followed.
    pub(super) fn concerns(&self, told: &Told<'_>) -> bool {
        match told {
            Told::Overflow => true,
            Told::Ended => false,
            Told::Itself(watch) => self.matters.contains_key(watch),
            Told::Name(watch, name) => match self.matters.get(watch) {
                Some(Names::These(names)) => names.contains(OsStr::from_bytes(name)),
                Some(Names::Any) => true,
                None => false,
            },
        }
    }

    /// Whether anything is watched here that was not before.
    pub(super) fn reaches_beyond(&self, before: &Self) -> bool {
        self.without(before).next().is_some()
    }

    /// What is watched here and not in `other`.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = i32> + 'a {
        self.matters.keys().filter(|watch| !other.matters.contains_key(watch)).copied()
    }

    /// Says what cannot be watched, unless that has been said before.
    pub(super) fn tell(&self, before: &Self) {
        let Some((path, why)) = self.unwatched.iter().next() else {
            return;
        };
        if self.unwatched != before.unwatched {
            let more = match self.unwatched.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let path = path.display();
            log::warn!("server.watch: {path}{more} cannot be watched: {why}. A change there waits for the next reload");
        }
    }
}

struct Survey<W> {
    watch: W,
    ground: Ground,
    /// By path; none where it could not be
    watches: BTreeMap<PathBuf, Option<i32>>,
}

impl<W: FnMut(&Path, Mark) -> io::Result<i32>> Survey<W> {
    /// Goes where `path` leads, as far as it does. The directory at its end, if it is one.
    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        // Fails without a working directory; then nothing relative can be read either.
        let path = std::path::absolute(path).ok()?;
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        let mut ahead = steps(&path);
        while let Some(step) = ahead.pop() {
            if step == "/" {
                at = PathBuf::from("/");
                continue;
            }
            // Where a link has led is known, so that this is its real parent.
            if step == ".." {
                at.pop();
                continue;
            }
            self.name(&at, &step);
            let next = at.join(&step);
            let kind = fs::symlink_metadata(&next).ok()?.file_type();
            if kind.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                ahead.extend(steps(&fs::read_link(&next).ok()?));
            } else if kind.is_dir() {
                at = next;
            } else {
                if ahead.is_empty() {
                    self.file(&next);
                }
                return None;
            }
        }
        Some(at)
    }

    /// A pattern changes its meaning when a name comes or goes in any directory that it reaches.
    fn pattern(&mut self, pattern: &Path) {
        let steps: Vec<_> = pattern.components().collect();
        let is_wild = |step: &Component<'_>| step.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte));
        let Some(first) = steps.iter().position(is_wild) else {
            self.walk(pattern);
            return;
        };
        for length in first..steps.len() {
            let before: PathBuf = steps[..length].iter().collect();
            let directories = if length == first {
                // Of a relative pattern, this may be nothing: the directory that the process runs in.
                vec![Path::new(".").join(before)]
            } else {
                // What cannot be listed was a problem when it was read.
                before.to_str().and_then(|before| System.matching(before).ok()).unwrap_or_default()
            };
            for directory in directories {
                if let Some(directory) = self.walk(&directory) {
                    self.any_name(&directory);
                }
            }
        }
    }

    fn name(&mut self, directory: &Path, name: &OsStr) {
        let Some(watch) = self.watched(directory, Mark::Directory) else {
            return;
        };
        match self.ground.matters.entry(watch).or_insert_with(|| Names::These(BTreeSet::new())) {
            Names::These(names) => drop(names.insert(name.to_owned())),
            Names::Any => {}
        }
    }

    fn any_name(&mut self, directory: &Path) {
        if let Some(watch) = self.watched(directory, Mark::Directory) {
            self.ground.matters.insert(watch, Names::Any);
        }
    }

    fn file(&mut self, file: &Path) {
        if let Some(watch) = self.watched(file, Mark::File) {
            self.ground.matters.insert(watch, Names::Any);
        }
    }

    fn watched(&mut self, path: &Path, mark: Mark) -> Option<i32> {
        if let Some(known) = self.watches.get(path) {
            return *known;
        }
        let watch = if self.watches.len() < MAX_WATCHES {
            (self.watch)(path, mark)
        } else {
            Err(io::Error::other(format!("{MAX_WATCHES} others are watched already")))
        };
        if let Err(error) = &watch
            && !is_none_of_ours(error, mark)
        {
            self.ground.unwatched.insert(path.to_owned(), explained(error));
        }
        let watch = watch.ok();
        self.watches.insert(path.to_owned(), watch);
        watch
    }
}

/// What is gone is missed by the directory above. A file that may not be read is a problem of the configuration, and its
/// directory tells when that changes.
fn is_none_of_ours(error: &io::Error, mark: Mark) -> bool {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => true,
        ErrorKind::PermissionDenied => mark == Mark::File,
        _ => false,
    }
}

fn explained(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::StorageFull => "the limit of watches is reached, raise fs.inotify.max_user_watches".to_owned(),
        _ => error.to_string(),
    }
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter(|step| *step != Component::CurDir);
    let mut steps: Vec<_> = steps.map(|step| step.as_os_str().to_owned()).collect();
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests;
