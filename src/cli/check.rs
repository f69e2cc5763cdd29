//! `tollgate check`

use clap::Args;

use super::{ConfigFile, Failure};
use crate::app;

/// Say whether a configuration can be served, and everything that is wrong with it
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    file: ConfigFile,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = &self.file.config;
        let found = app::check(file)?;
        println!(
            "{} can be served: {}, {}, {}",
            file.display(),
            counted(found.listeners, "listener"),
            counted(found.routes, "route"),
            counted(found.upstreams, "upstream")
        );
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
