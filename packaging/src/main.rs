//! What packages and images hold besides the binary, made from what the binary is made of: man pages and completions from
//! the command line's own definition, the bill of materials from the lock file. A program of its own, so that the gateway
//! does not carry what only its packages need.

mod materials;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

/// Make what packages hold besides the binary
#[derive(Debug, Parser)]
struct Arguments {
    /// The directory that everything is written to: man/, completions/ and tollgate.cdx.json
    directory: PathBuf,
    /// For which target the bill of materials is
    #[arg(long, default_value = "x86_64-unknown-linux-gnu")]
    target: String,
}

fn main() -> ExitCode {
    match make(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(Arguments { directory, target }: &Arguments) -> Result<(), Box<dyn Error>> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fresh(&man)?;
    fresh(&completions)?;
    clap_mangen::generate_to(tollgate::cli::Command::command(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut tollgate::cli::Command::command(), "tollgate", &completions)?;
    }
    fs::write(directory.join("tollgate.cdx.json"), materials::bill(target)?)?;
    Ok(())
}

/// Nothing of a verb that is gone stays behind.
fn fresh(directory: &Path) -> std::io::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)
}
