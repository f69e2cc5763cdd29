//! Whatever stands for a quota, a rate, a cost or a store, it is read or refused with a problem in its place.

#![no_main]

use std::io;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tollgate::config::{Config, Surroundings, Variable};

/// A machine with nothing on it.
struct Nothing;

impl Surroundings for Nothing {
    fn variable(&self, _: &str) -> Variable {
        Variable::Unset
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

fuzz_target!(|value: &str| {
    // A literal string: nothing in it is escaped.
    if value.contains(['\'', '\n', '\r']) {
        return;
    }
    let of_store = "rate = '1/s'\nstore = 'redis'\nredis_url";
    for key in ["quota", "rate", "rate = '1/s'\ncost", of_store] {
        let text = format!("[listeners.http]\naddress = '127.0.0.1:80'\n[limits.a]\nkey = []\n{key} = '{value}'\n");
        if let Err(error) = Config::read(&text, Path::new("tollgate.toml"), &Nothing) {
            assert!(!error.problems.is_empty());
            assert!(!error.to_string().is_empty());
        }
    }
});
