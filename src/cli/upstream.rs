//! `tollgate upstream`

use clap::{Args, Subcommand};

use super::Failure;
use super::running::Running;
use crate::control::{EndpointName, Verb};

/// Say where requests go, and keep them from an endpoint for a while
#[derive(Debug, Subcommand)]
pub enum Upstream {
    /// Say which endpoints there are, and how each of them is
    List(List),
    /// Send nothing new to an endpoint; what is in flight goes on. It stays so across reloads and upgrades
    Drain(One),
    /// Send requests to a drained endpoint again
    Undrain(One),
}

/// Which process is meant.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    running: Running,
}

/// Which endpoint is meant.
#[derive(Debug, Args)]
pub struct One {
    /// The name of the upstream
    upstream: String,
    /// The address of the endpoint, as the log and `tollgate upstream list` show it
    endpoint: String,
    #[command(flatten)]
    running: Running,
}

impl Upstream {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.running.ask(&Verb::Upstreams),
            Self::Drain(One { upstream, endpoint, running }) => {
                running.ask(&Verb::Drain(EndpointName { upstream, endpoint }))
            }
            Self::Undrain(One { upstream, endpoint, running }) => {
                running.ask(&Verb::Undrain(EndpointName { upstream, endpoint }))
            }
        }
    }
}
