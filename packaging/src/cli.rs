//! Man pages and completions.

use std::path::Path;
use std::{fs, io};

use clap::CommandFactory;
use clap_complete::Shell;

/// Writes man/ and completions/.
pub(crate) fn describe(directory: &Path) -> io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fresh(&man)?;
    fresh(&completions)?;
    clap_mangen::generate_to(tollgate::cli::Command::command(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut tollgate::cli::Command::command(), "tollgate", &completions)?;
    }
    Ok(())
}

/// Nothing of a verb that is gone stays behind.
fn fresh(directory: &Path) -> io::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)
}
