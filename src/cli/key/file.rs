//! A file of keys, to be read, or changed so that whoever reads it meanwhile sees the old one or the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::cli::Failure;
use crate::config::{ApiKeys, Surroundings, System};

/// Of a new file: hashes are no secrets, but nobody's business either.
const MODE: u32 = 0o600;

/// A file of keys and what it holds.
#[derive(Debug)]
pub(super) struct KeysFile {
    /// The file itself, not a link to it
    path: PathBuf,
    /// As it stands there
    pub(super) text: String,
    /// What that says
    pub(super) keys: ApiKeys,
    /// The directory; locked, so that two who change the file do so one after the other
    directory: Option<File>,
}

impl KeysFile {
    /// To look at.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        Self::load(path, None)
    }

    /// To change one that is there.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let path = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        let directory = locked(&path)?;
        Self::load(&path, Some(directory))
    }

    /// To change, or to make.
    pub(super) fn open_or_new(path: &Path) -> Result<Self, Failure> {
        match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                let directory = locked(path)?;
                // Somebody may have made it while we waited for the lock.
                if path.exists() {
                    return Self::load(path, Some(directory));
                }
                let (text, keys) = (String::new(), ApiKeys::default());
                Ok(Self { path: path.to_owned(), text, keys, directory: Some(directory) })
            }
            _ => Self::open(path),
        }
    }

    fn load(path: &Path, directory: Option<File>) -> Result<Self, Failure> {
        let content = System.file(path, ApiKeys::MAX_FILE).map_err(|error| unreadable(path, &error))?;
        let text = String::from_utf8(content).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
        let keys = ApiKeys::read(&text, path)?;
        Ok(Self { path: path.to_owned(), text, keys, directory })
    }

    /// Whether `text` says the same, but that this key is disabled.
    pub(super) fn differs_in(&self, text: &str, id: &str) -> bool {
        ApiKeys::read(text, &self.path).is_ok_and(|keys| keys == self.keys.without(id))
    }

    /// Writes `text` instead, with the old one's owner and permissions.
    pub(super) fn replace(&self, text: &str) -> Result<(), Failure> {
        ApiKeys::read(text, &self.path)?;
        let failed = |error: io::Error| format!("{} cannot be written: {error}", self.path.display());
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{}.new", std::process::id()));
        let new = self.path.with_file_name(name);
        self.write(&new, text).map_err(|error| {
            // What is left of it is of no use; that it cannot be removed says nothing new.
            let _ = fs::remove_file(&new);
            failed(error)
        })?;
        // The name's change too has to survive a loss of power.
        self.directory.as_ref().map_or(Ok(()), File::sync_all).map_err(failed)?;
        Ok(())
    }

    fn write(&self, new: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(new)?;
        match fs::metadata(&self.path) {
            Ok(old) => {
                let made = file.metadata()?;
                if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
                    fchown(&file, Some(old.uid()), Some(old.gid()))?;
                }
                file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, &self.path)
    }
}

/// The directory that `path` is in, when nobody else changes a file there.
fn locked(path: &Path) -> Result<File, Failure> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let failed = |error: io::Error| format!("{} cannot be opened: {error}", directory.display());
    let opened = File::open(directory).map_err(failed)?;
    flock(&opened, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(opened)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}
