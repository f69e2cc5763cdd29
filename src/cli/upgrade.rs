//! `tollgate upgrade`

use clap::Args;

use super::Failure;
use super::running::Running;
use crate::control::Verb;

/// Let the running process hand over to the binary and configuration now on disk, and wait for the result
#[derive(Debug, Args)]
pub struct Upgrade {
    #[command(flatten)]
    running: Running,
}

impl Upgrade {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.running.ask(&Verb::Upgrade)
    }
}
