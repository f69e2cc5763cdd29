//! `tollgate reload`

use clap::Args;

use super::Failure;
use super::running::Running;
use crate::control::Verb;

/// Let the running process read its configuration again, and wait for the result
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    running: Running,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.running.ask(&Verb::Reload)
    }
}
