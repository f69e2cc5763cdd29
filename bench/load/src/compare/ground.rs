//! What the contenders of a case stand on: cores, an origin, a certificate, tokens, programs.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Failure;
use super::contender::{Contender, Peer};
use super::cores::{Cores, pinned};
use super::peer;
use super::process::Process;
use super::token::Tokens;
use crate::machine;

/// The name in the certificate.
pub(super) const NAME: &str = "gateway.test";

/// Programs that are compared.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) tollgate: PathBuf,
    pub(super) floor: PathBuf,
}

/// What a case stands on.
pub(super) struct Ground {
    pub(super) directory: PathBuf,
    pub(super) programs: Programs,
    pub(super) cores: Cores,
    pub(super) origin: SocketAddr,
    pub(super) certificate: Certificate,
    pub(super) tokens: Option<Tokens>,
    /// Run each in one process under this, with these arguments
    pub(super) wrapper: Option<Vec<OsString>>,
}

/// A certificate for [`NAME`], and its key: ECDSA with P-256.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// One behind the other in one file
    pub(super) both: PathBuf,
}

/// A program and its arguments.
pub(super) struct Launch {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

impl Certificate {
    pub(super) fn make(directory: &Path) -> Result<Self, Failure> {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let files = Self {
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
            both: directory.join("both.pem"),
        };
        fs::write(&files.both, format!("{certificate}{key}"))?;
        fs::write(&files.certificate, certificate)?;
        fs::write(&files.key, key)?;
        Ok(files)
    }
}

impl Ground {
    /// Starts a contender in a directory of its own.
    pub(super) fn start(&self, contender: &Contender) -> Result<Process, Failure> {
        let directory = self.directory.join(contender.name.replace([' ', ','], "-"));
        // It may have been there in the round before.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let [addr, admin] = machine::free_addresses()?;
        let launch = match contender.peer {
            Peer::Tollgate => peer::tollgate(self, contender.setup, &directory, addr, admin)?,
            Peer::Floor => peer::floor(self, contender.setup, addr),
            Peer::Nginx => peer::nginx(self, contender.setup, &directory, addr)?,
            Peer::Haproxy => peer::haproxy(self, contender.setup, &directory, addr)?,
        };
        let mut words = self.wrapper.clone().unwrap_or_default();
        words.push(launch.program);
        words.extend(launch.arguments);
        let mut command = pinned(&self.cores.proxy, &words.remove(0).to_string_lossy());
        command.args(words);
        Process::start(&contender.name, addr, &directory, command)
    }
}
