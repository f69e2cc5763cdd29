//! `tollgate launch`, which nobody types: a process that hands over starts its successor by it.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::control;

/// Start a successor for the process at the other end of standard input
#[derive(Debug, Args)]
pub struct Launch {
    /// The program
    program: PathBuf,
    /// Its configuration file
    file: PathBuf,
}

impl Launch {
    pub(super) fn run(self) -> Result<(), Failure> {
        Ok(control::launch(&self.program, &self.file)?)
    }
}
