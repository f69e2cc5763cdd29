//! A file of endpoints, read again when it has changed.
//!
//! Its place is looked at each second rather than watched: that costs a system call, follows links that are swapped and
//! works on every file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::Owner;
use crate::config::{EndpointsFile, Surroundings, System};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the last look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Look {
    #[default]
    Never,
    /// None: no file
    At(Option<Mark>),
}

/// By what a changed file is known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Reads `file` again whenever it has changed, until the owner is gone. One that cannot be used changes nothing, and is
/// told once.
pub(in crate::upstream) async fn follow(owner: Owner, file: EndpointsFile) {
    let mut listed = file;
    // The first look reads it: it may have changed since the configuration was read.
    let mut seen = Look::default();
    loop {
        let path = listed.path.clone();
        let looked = tokio::task::spawn_blocking(move || look(&path, seen)).await;
        let Some(upstream) = owner.upstream() else { return };
        if let Ok((now, read)) = looked {
            seen = now;
            match read {
                Some(Ok(next)) if next != listed => {
                    let (name, count) = (upstream.name(), next.endpoints.len());
                    log::info!("upstream {name}: {} lists {count} endpoints now", next.path.display());
                    upstream.listed(&next.endpoints);
                    listed = next;
                }
                Some(Err(why)) => {
                    log::error!("upstream {}: the endpoints listed before stay: {why}", upstream.name());
                }
                Some(Ok(_)) | None => {}
            }
        }
        drop(upstream);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the file holds, if it is not the one that was seen before.
fn look(path: &Path, seen: Look) -> (Look, Option<Result<EndpointsFile, String>>) {
    // Taken before the content: a change in between is seen by the next look.
    let now = Look::At(Mark::of(path));
    if now == seen {
        return (now, None);
    }
    let content = System.file(path, EndpointsFile::MAX_FILE);
    let read = content.map_err(|error| format!("{} cannot be read: {error}", path.display())).and_then(|content| {
        let text = String::from_utf8(content).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
        EndpointsFile::read(&text, path).map_err(|error| error.to_string())
    });
    (now, Some(read))
}
