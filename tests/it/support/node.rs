//! Peers of other people's making that run on node: each in a directory of `tests`, with its versions in a lock file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{FlockOperation, flock};

/// Where such a peer is, with all that it needs: what is missing is installed, once, whoever asks first. `None`, said
/// loudly, on a machine that cannot have it; in CI that is a failure.
#[track_caller]
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let directory = try_install(name);
    if directory.is_none() {
        #[expect(clippy::disallowed_methods, reason = "where everything has to be there is said by who runs the tests")]
        let must = std::env::var_os("CI").is_some();
        let what = format!("node and npm are not installed, or npm cannot install what tests/{name} names");
        assert!(!must, "{what}");
        eprintln!("SKIPPED: {what}");
    }
    directory
}

fn try_install(name: &str) -> Option<PathBuf> {
    Command::new("node").arg("--version").stdout(Stdio::null()).status().ok()?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let lock = File::open(directory.join("package-lock.json")).expect("part of the repository");
    flock(&lock, FlockOperation::LockExclusive).expect("a file system with locks");
    // npm writes it last.
    if !directory.join("node_modules/.package-lock.json").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&directory).stdin(Stdio::null());
        npm.status().ok().filter(ExitStatus::success)?;
    }
    Some(directory)
}
