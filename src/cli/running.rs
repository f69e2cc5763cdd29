//! How a verb reaches the process that serves.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, Failure};
use crate::config;
use crate::control::{self, Outcome, Verb};

/// Which running process is meant: the one whose runtime directory the configuration names.
#[derive(Debug, Args)]
pub(super) struct Running {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the running process keeps its control socket, if the configuration does not tell
    #[arg(long, value_name = "DIRECTORY")]
    runtime_dir: Option<PathBuf>,
}

impl Running {
    /// Asks, and prints the answer.
    pub(super) fn ask(self, verb: &Verb) -> Result<(), Failure> {
        println!("{}", self.answer(verb)?);
        Ok(())
    }

    /// Asks.
    pub(super) fn answer(self, verb: &Verb) -> Result<String, Failure> {
        // A file that cannot be served still says where: that is when one asks to reload it.
        let directory = self.runtime_dir.unwrap_or_else(|| config::runtime_dir(&self.file.config));
        let answer = control::ask(&directory, verb)?;
        match answer.outcome {
            Outcome::Done => Ok(answer.text),
            Outcome::Refused | Outcome::AskSuccessor => Err(answer.text.into()),
        }
    }
}
