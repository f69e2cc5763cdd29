//! A process that is measured, with its children.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Failure;

/// How long a process may take to start; under valgrind that is long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long one may take to end when asked.
const LEAVE: Duration = Duration::from_secs(2);

/// A process that listens.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    child: Child,
    directory: PathBuf,
}

/// Microseconds of CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Process {
    /// Starts it and waits until it listens; both its outputs go to files in `directory`.
    pub(super) fn start(name: &str, addr: SocketAddr, directory: &Path, mut command: Command) -> Result<Self, Failure> {
        let file = |name| fs::File::create(directory.join(name));
        command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?).current_dir(directory);
        let child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let mut process = Self { name: name.to_owned(), addr, child, directory: directory.to_owned() };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("{name} has ended: {status}\n{}", process.said()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{name} does not listen\n{}", process.said()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// What it has written to standard error.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    /// Where it was started.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far, its children included.
    pub(super) fn cpu(&self) -> Result<Cpu, Failure> {
        let mut sum = Cpu::default();
        for pid in family(self.id()) {
            let one = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| cpu(&text));
            let one = one.ok_or_else(|| format!("{} has ended\n{}", self.name, self.said()))?;
            sum = Cpu { user: sum.user + one.user, system: sum.system + one.system };
        }
        Ok(sum)
    }

    /// Bytes of memory it holds, its children included.
    pub(super) fn resident(&self) -> Result<u64, Failure> {
        let one = |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|text| resident(&text));
        let sizes: Option<Vec<_>> = family(self.id()).into_iter().map(one).collect();
        Ok(sizes.ok_or_else(|| format!("{} has ended\n{}", self.name, self.said()))?.iter().sum())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // First asked: a binary that counts writes what it has counted as it ends.
        let pids = family(self.id());
        signal(&pids, rustix::process::Signal::TERM);
        let deadline = Instant::now() + LEAVE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&pids, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

fn signal(pids: &[u32], signal: rustix::process::Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended with its parent.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Cpu {
    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
}

/// From `/proc/PID/stat`.
fn cpu(text: &str) -> Option<Cpu> {
    // The name in front may hold spaces and brackets.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let micros = 1_000_000.0 / rustix::param::clock_ticks_per_second() as f64;
    let ticks = |index: usize| Some(fields.get(index)?.parse::<u32>().ok()? as f64 * micros);
    Some(Cpu { user: ticks(11)?, system: ticks(12)? })
}

/// From `/proc/PID/status`.
fn resident(text: &str) -> Option<u64> {
    let size = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_of_its_own_family() {
        assert!(family(std::process::id()).contains(&std::process::id()));
    }

    #[test]
    fn times_are_read_behind_a_name_with_brackets() {
        let text = "7 (a) b) (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 1 1 1";
        let cpu = cpu(text).expect("read");
        assert!((cpu.user / cpu.system - 3.0).abs() < 1e-9);
        assert!(super::cpu("7 (a) S 1").is_none());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nVmData:\t1 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
