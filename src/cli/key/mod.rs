//! `tollgate key`: the files that `type = "api_key"` reads.
//!
//! They are edited as text, so that what an operator has written around the keys stays, and what comes of it is read
//! once more before it is written.

mod file;
mod list;
mod new;
mod revoke;

use clap::{Args, Subcommand};

use super::Failure;

/// Make, list and revoke API keys
#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key, print it once, and store its hash
    New(new::New),
    /// List the keys of a file
    List(list::List),
    /// Disable a key of a file
    Revoke(revoke::Revoke),
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::New(command) => command.run(),
            Verb::List(command) => command.run(),
            Verb::Revoke(command) => command.run(),
        }
    }
}
