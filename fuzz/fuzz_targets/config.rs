//! Whatever is written is either a configuration or a list of problems, each with its place.

#![no_main]

use std::io;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tollgate::config::{Config, Surroundings, Variable};

/// A machine with nothing on it.
struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _: &str) -> Variable {
        Variable::Set("value".to_owned())
    }

    fn file(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn matching(&self, _: &str) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn cores(&self) -> usize {
        2
    }

    fn file_limit(&self) -> Option<u64> {
        Some(1024)
    }
}

fuzz_target!(|text: &str| {
    if let Err(error) = Config::read(text, Path::new("tollgate.toml"), &Nowhere) {
        assert!(!error.problems.is_empty());
        assert!(!error.to_string().is_empty());
    }
});
