//! `tollgate run`

use clap::Args;

use super::{ConfigFile, Failure};
use crate::app;

/// Serve
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Take over from the process that runs with the same runtime directory
    #[arg(short, long)]
    upgrade: bool,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Failure> {
        Ok(app::run(&self.file.config, self.upgrade)?)
    }
}
