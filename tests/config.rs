//! What the reader makes of whole files: those under `valid` and `conf` are read, those under `invalid` are refused with
//! exactly the text beside them. `BLESS=1` rewrites that text.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate::config::Config;

/// All `.toml` files of a directory, sorted.
fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is part of the repository");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn refuses(path: &Path, failures: &mut Vec<String>) {
    let expected_at = path.with_extension("stderr");
    let found = match Config::load(path) {
        Ok(_) => return failures.push(format!("{} is read, and should be refused", path.display())),
        Err(error) => error.to_string(),
    };
    if std::env::var_os("BLESS").is_some() {
        fs::write(&expected_at, found).expect("a writable file");
        return;
    }
    let expected = fs::read_to_string(&expected_at).unwrap_or_default();
    if found != expected {
        let name = expected_at.display();
        failures.push(format!("{name} differs\n--- expected\n{expected}\n--- found\n{found}"));
    }
}

#[test]
fn what_is_wrong_is_told_all_at_once_in_its_place() {
    let files = files("tests/config/invalid");
    assert!(files.len() >= 1, "only {} files", files.len());
    let mut failures = Vec::new();
    for path in &files {
        refuses(path, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn valid_files_and_all_that_are_shipped_are_read() {
    let mut failures = Vec::new();
    for path in ["tests/config/valid", "conf", "conf/examples"].map(files).iter().flatten() {
        if let Err(error) = Config::load(path) {
            failures.push(error.to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
