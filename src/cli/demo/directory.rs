//! A directory that goes with the demo.

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes a new one that nobody else may look into: it holds a control socket and a log.
    pub(super) fn create() -> io::Result<Self> {
        // Not to be foretold, and refused if it is there all the same: nobody can have prepared it for us. Short, since
        // the path of a socket has about a hundred bytes.
        let number = RandomState::new().hash_one(std::process::id()) >> 32;
        let path = std::env::temp_dir().join(format!("tollgate-demo-{number:08x}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_leaves_nothing_behind() {
        let directory = Directory::create().expect("created");
        let path = directory.path().to_owned();
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::create_dir(path.join("run")).expect("created");
        std::fs::write(path.join("run/file"), "x").expect("written");
        drop(directory);
        assert!(!path.exists());
    }
}
