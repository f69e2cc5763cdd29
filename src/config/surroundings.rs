//! What a configuration takes from outside its text, behind one seam: the environment, files, the machine.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::{Resource, getrlimit};

/// What the environment says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// It is set to this
    Set(String),
    /// It is not set
    Unset,
    /// It is set, but not to UTF-8 text
    NotText,
}

/// Where a configuration is read: [`System`], or what a test makes up.
pub trait Surroundings {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Variable;

    /// What a regular file holds, if that is no more than `most` bytes.
    ///
    /// # Errors
    /// Whatever keeps it from being read; `FileTooLarge` if it holds more.
    fn file(&self, path: &Path, most: u64) -> io::Result<Vec<u8>>;

    /// The files that a pattern with `*`, `?` and `[...]` matches, sorted.
    ///
    /// # Errors
    /// A pattern that is none, or a directory that cannot be listed.
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>>;

    /// How many threads can run at once.
    fn cores(&self) -> usize;

    /// How many files the process may have open; `None` is no limit.
    fn file_limit(&self) -> Option<u64>;
}

/// The process's own surroundings.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Surroundings for System {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    fn variable(&self, name: &str) -> Variable {
        match std::env::var(name) {
            Ok(value) => Variable::Set(value),
            Err(std::env::VarError::NotPresent) => Variable::Unset,
            Err(std::env::VarError::NotUnicode(_)) => Variable::NotText,
        }
    }

    fn file(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        // Asked before opening: a pipe that nobody writes to would be waited for.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut content = Vec::new();
        fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
        }
        Ok(content)
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        // Hidden files are those of editors and of the system.
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths = glob::glob_with(pattern, options)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.msg))?;
        let mut found = paths.collect::<Result<Vec<_>, _>>().map_err(io::Error::from)?;
        found.sort();
        Ok(found)
    }

    fn cores(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    fn file_limit(&self) -> Option<u64> {
        getrlimit(Resource::Nofile).current
    }
}
