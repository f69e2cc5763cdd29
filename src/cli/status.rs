//! `tollgate status`

use clap::Args;

use super::Failure;
use super::running::Running;
use crate::control::Verb;

/// Say which process serves, and which configuration
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    running: Running,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.running.ask(&Verb::Status)
    }
}
