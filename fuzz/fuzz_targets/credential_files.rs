//! Whatever stands in a file of keys or of users, it is read or refused with problems; and so is what a client sends.

#![no_main]

use std::io;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tollgate::config::{Config, Surroundings, Variable};
use tollgate::filter::auth::BasicCredentials;

const TEXT: &str = "[listeners.http]\naddress = \"127.0.0.1:80\"\n[auth.a]\ntype = \"api_key\"\nkeys_file = \"a\"\n\
                    [auth.b]\ntype = \"basic\"\nusers_file = \"b\"\n";

/// A machine with one file, whatever it is called.
struct OneFile<'a>(&'a [u8]);

impl Surroundings for OneFile<'_> {
    fn variable(&self, _: &str) -> Variable {
        Variable::Unset
    }

    fn file(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
        Ok(self.0.to_vec())
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

fuzz_target!(|content: &[u8]| {
    if let Err(error) = Config::read(TEXT, Path::new("tollgate.toml"), &OneFile(content)) {
        assert!(!error.problems.is_empty());
        assert!(!error.to_string().is_empty());
    }
    if let Ok(text) = std::str::from_utf8(content)
        && let Err(why) = BasicCredentials::parse(text)
    {
        assert!(!why.is_empty());
    }
});
