//! Where something was measured, and what both kinds of measurement need.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::Value;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    commit: String,
    date: String,
    kernel: String,
    cpu: String,
    cores: usize,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
            output.map_or_else(
                || "unknown".to_owned(),
                |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            )
        };
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        Self {
            commit: said("git", &["describe", "--always", "--dirty"]),
            date: said("date", &["--utc", "+%Y-%m-%dT%H:%M:%SZ"]),
            kernel: said("uname", &["-sr"]),
            cpu: cpu.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
        }
    }

    pub(crate) fn cores(&self) -> usize {
        self.cores
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, date, kernel, cpu, cores } = self;
        write!(f, "commit {commit}, {date}, {cores} cores of {cpu}, {kernel}")
    }
}

/// Writes results as JSON, and says where.
pub(crate) fn write(directory: &Path, kind: &str, results: &Value) -> Result<PathBuf, Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let file = directory.join(format!("{kind}-{seconds}.json"));
    fs::write(&file, serde_json::to_string_pretty(results)? + "\n")?;
    Ok(file)
}

/// Lets this process, and those it starts, have as many descriptors as may be had; returns how many that is, where there
/// is a limit.
pub(crate) fn raise_file_limit() -> io::Result<Option<u64>> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    Ok(most)
}

/// Addresses that are free now.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], Box<dyn Error>> {
    let listeners: Vec<_> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| "another number of addresses".into())
}
