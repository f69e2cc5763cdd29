//! What a configuration was read from: to know later whether reading it again would find something else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::{Surroundings, Variable};

/// Every file that was asked for and every pattern that was followed, with what was found. Equal while a reading would
/// find the same; kept of one that failed too, so that it is seen when what was wrong is mended.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reading {
    files: BTreeMap<PathBuf, Found>,
    patterns: BTreeMap<String, Result<Vec<PathBuf>, ErrorKind>>,
}

/// A file: the digest of what it held, since much of it is secret.
#[derive(Clone, PartialEq, Eq)]
struct Found {
    most: u64,
    content: Result<[u8; 32], ErrorKind>,
}

impl Reading {
    /// The files, as they were named.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// The patterns, as they were followed.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.keys().map(String::as_str)
    }

    /// The same files and patterns, as they are now.
    #[must_use]
    pub fn again(&self, surroundings: &dyn Surroundings) -> Self {
        let recorder = Recorder::new(surroundings);
        for (path, found) in &self.files {
            // What is found, an error too, stands in the record.
            drop(recorder.file(path, found.most));
        }
        for pattern in self.patterns.keys() {
            drop(recorder.matching(pattern));
        }
        recorder.into_reading()
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A short secret can be guessed from its digest.
        f.debug_set().entries(self.files.keys()).entries(self.patterns.keys()).finish()
    }
}

/// Surroundings that write down which files are taken from them.
pub struct Recorder<'a> {
    surroundings: &'a dyn Surroundings,
    reading: RefCell<Reading>,
}

impl<'a> Recorder<'a> {
    /// Nothing has been read yet.
    pub fn new(surroundings: &'a dyn Surroundings) -> Self {
        Self { surroundings, reading: RefCell::default() }
    }

    /// What has been read.
    pub fn into_reading(self) -> Reading {
        self.reading.into_inner()
    }
}

impl fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reading.borrow().fmt(f)
    }
}

impl Surroundings for Recorder<'_> {
    fn variable(&self, name: &str) -> Variable {
        self.surroundings.variable(name)
    }

    fn file(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let content = self.surroundings.file(path, most);
        let found = match &content {
            Ok(content) => Ok(sha256(content)),
            Err(error) => Err(error.kind()),
        };
        // Read twice, the first counts: if the second found something else, a look from outside finds a change.
        self.reading.borrow_mut().files.entry(path.to_owned()).or_insert(Found { most, content: found });
        content
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let paths = self.surroundings.matching(pattern);
        let found = match &paths {
            Ok(paths) => Ok(paths.clone()),
            Err(error) => Err(error.kind()),
        };
        self.reading.borrow_mut().patterns.entry(pattern.to_owned()).or_insert(found);
        paths
    }

    fn cores(&self) -> usize {
        self.surroundings.cores()
    }

    fn file_limit(&self) -> Option<u64> {
        self.surroundings.file_limit()
    }
}

fn sha256(content: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, content).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, System};

    /// Reads `main` from a directory with these other files.
    fn load(directory: &Path, main: &str, others: &[(&str, &str)]) -> (bool, Reading) {
        let path = directory.join("tollgate.toml");
        fs::write(&path, main).expect("written");
        for (name, content) in others {
            fs::write(directory.join(name), content).expect("written");
        }
        let recorder = Recorder::new(&System);
        let is_valid = Config::load_with_places(&path, &recorder).is_ok();
        (is_valid, recorder.into_reading())
    }

    const MAIN: &str = "include = [\"more*.toml\"]\n[admin]\ntoken_file = \"admin.token\"\n\
                        [listeners.http]\naddress = \"127.0.0.1:8080\"\n";

    fn names(reading: &Reading) -> Vec<String> {
        reading.files().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn everything_that_was_read_is_known() {
        let directory = tempfile::tempdir().expect("a directory");
        let (is_valid, reading) = load(directory.path(), MAIN, &[("more.toml", ""), ("admin.token", "secret")]);
        assert!(is_valid);
        assert_eq!(names(&reading), ["admin.token", "more.toml", "tollgate.toml"]);
        assert!(reading.patterns().next().is_some_and(|pattern| pattern.ends_with("/more*.toml")));
        assert!(reading.again(&System) == reading);
    }

    #[test]
    fn a_reading_that_failed_knows_what_to_wait_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let (is_valid, reading) = load(directory.path(), MAIN, &[]);
        assert!(!is_valid);
        assert_eq!(names(&reading), ["admin.token", "tollgate.toml"]);
        fs::write(directory.path().join("admin.token"), "secret").expect("written");
        assert!(reading.again(&System) != reading);
    }

    #[test]
    fn each_change_of_what_was_read_is_seen_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let others = [("more.toml", ""), ("admin.token", "secret")];
        let (_, reading) = load(directory.path(), MAIN, &others);
        let path = |name: &str| directory.path().join(name);
        let changed = || reading.again(&System) != reading;
        fs::write(path("other"), "x").expect("written");
        fs::write(path("admin.token"), "secret").expect("the same once more");
        assert!(!changed());
        fs::write(path("admin.token"), "secre7").expect("written");
        assert!(changed());
        fs::remove_file(path("admin.token")).expect("removed");
        assert!(changed());
        fs::write(path("admin.token"), "secret").expect("written");
        assert!(!changed());
        fs::write(path("more2.toml"), "").expect("written");
        assert!(changed());
    }

    #[test]
    fn no_digest_of_a_secret_is_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, reading) = load(directory.path(), MAIN, &[("more.toml", ""), ("admin.token", "secret")]);
        let shown = format!("{reading:?}");
        assert!(shown.contains("admin.token") && !shown.contains(&format!("{:?}", sha256(b"secret"))), "{shown}");
    }
}
