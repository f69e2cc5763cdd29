//! The command line: one file a verb.
//!
//! Exit codes: 0, it was done; 1, it failed or was refused; 2, usage; 78, there is no configuration to run with.

mod check;
mod demo;
mod health;
mod key;
mod launch;
mod limits;
mod reload;
mod run;
mod running;
mod status;
mod token;
mod upgrade;
mod upstream;
mod version;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use crate::app::StartError;

/// Tollgate, an edge gateway: who calls, how much they may, and where the request goes.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true, arg_required_else_help = true)]
pub enum Command {
    /// Serve
    Run(run::Run),
    /// Say whether a configuration can be served, and everything that is wrong with it
    Check(check::Check),
    /// Let the running process read its configuration again, and wait for the result
    Reload(reload::Reload),
    /// Let the running process hand over to the binary and configuration now on disk, and wait for the result
    Upgrade(upgrade::Upgrade),
    /// Say which process serves, and which configuration
    Status(status::Status),
    /// Say what the running process holds of everything that has a bound
    Limits(limits::Limits),
    /// Say whether the running process is ready: exit code 0 or 1
    Health(health::Health),
    /// Say where requests go, and keep them from an endpoint for a while
    #[command(subcommand)]
    Upstream(upstream::Upstream),
    /// Make, list and revoke API keys
    Key(key::Key),
    /// Try everything at once: services, an issuer, and a gateway in front of them
    Demo(demo::Demo),
    /// Look into tokens, and make some for tests
    #[command(subcommand)]
    Token(token::Token),
    /// Say what this binary is
    Version(version::Version),
    /// Start a successor
    #[command(hide = true)]
    Launch(launch::Launch),
}

/// What every verb that needs a configuration takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE", default_value = "/etc/tollgate/tollgate.toml")]
    config: PathBuf,
}

/// Why a command has failed, for a person.
type Failure = Box<dyn Error>;

/// EX_CONFIG of sysexits(3): starting again will not help, which is what a service manager wants to know.
const NO_CONFIGURATION: u8 = 78;

/// What the process says at its end of a command that has failed.
pub fn exit_code(error: &(dyn Error + 'static)) -> ExitCode {
    match error.downcast_ref() {
        Some(StartError::Config(_)) => ExitCode::from(NO_CONFIGURATION),
        _ => ExitCode::FAILURE,
    }
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// What to print; [`exit_code`] says how to end.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Run(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::Reload(command) => command.run(),
            Self::Upgrade(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Limits(command) => command.run(),
            Self::Health(command) => command.run(),
            Self::Upstream(command) => command.run(),
            Self::Key(command) => command.run(),
            Self::Demo(command) => command.run(),
            Self::Token(command) => command.run(),
            Self::Version(command) => command.run(),
            Self::Launch(command) => command.run(),
        }
    }
}
