//! `tollgate token`

mod inspect;
mod mint;

use clap::Subcommand;

use super::Failure;

/// Look into tokens, and make some for tests
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Say what a token says, which auth and routes of a configuration would take it, and why the others would not
    Inspect(inspect::Inspect),
    /// Sign a token with a key of your own, for tests
    Mint(Box<mint::Mint>),
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Inspect(command) => command.run(),
            Self::Mint(command) => command.run(),
        }
    }
}
