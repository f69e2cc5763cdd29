//! What packages and images hold besides the binary, made from what the binary is made of: man pages and completions from
//! the command line's own definition, the bill of materials from the lock file. A program of its own, so that the gateway
//! does not carry what only its packages need.

#[cfg(feature = "cli")]
mod cli;
mod materials;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

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
    fs::create_dir_all(directory)?;
    #[cfg(feature = "cli")]
    cli::describe(directory)?;
    fs::write(directory.join("tollgate.cdx.json"), materials::bill(target)?)?;
    Ok(())
}
