//! `tollgate version`

use clap::Args;

use super::Failure;

/// Say what this binary is
#[derive(Debug, Args)]
pub struct Version {}

impl Version {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self {} = self;
        println!("tollgate {} ({}-{})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
        println!("proxy: pingora 0.9.1; TLS: rustls with aws-lc-rs");
        Ok(())
    }
}
