//! The `tollgate` command: parses its arguments, runs the command, and turns an error into an exit code.

use std::process::ExitCode;

use clap::Parser;
use tollgate::cli::{Command, exit_code};

/// Several threads allocate and free all the time, and glibc's allocator gives little back: this one costs about a tenth
/// less per request. It is told to use no huge pages, which hold what is only reserved: of each body's buffer of 64 KiB
/// all of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A usage error is clap's to print; it exits with 2.
    match Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            exit_code(&*error)
        }
    }
}
