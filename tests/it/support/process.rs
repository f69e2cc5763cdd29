//! Processes: the binary under test, run to its end or found while it runs.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

use super::wait;

/// The binary that was built for these tests.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// How a command has ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` if it was killed
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Fails with what was printed unless the code is 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Fails with what was printed if the code is not `code`; returns what stands on stderr.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// Whether a program that a test wants is there. Where it is not, that is told loudly, or fails the test in CI.
pub(crate) fn is_installed(program: &str) -> bool {
    // Some stand where only root's PATH looks.
    let there = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].iter().any(|place| Path::new(place).join(program).exists());
    if !there {
        #[expect(clippy::disallowed_methods, reason = "where everything has to be there is said by who runs the tests")]
        let must = std::env::var_os("CI").is_some();
        assert!(!must, "{program} is not installed");
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}

/// Runs `tollgate` to its end.
#[track_caller]
pub(crate) fn tollgate<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    output(command)
}

/// Runs a command to its end, which has to come in time.
#[track_caller]
pub(crate) fn output(mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // Cut off by a kill, it is as long as it is.
            let _ = stream.expect("piped").read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = drain(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = drain(child.stderr.take().map(|stream| Box::new(stream) as _));
    let status = wait::within(3 * wait::PATIENCE, || child.try_wait().expect("our own child"));
    if status.is_none() {
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
    let output = |text: thread::JoinHandle<String>| text.join().expect("it only reads");
    let (stdout, stderr) = (output(stdout), output(stderr));
    let status = status.unwrap_or_else(|| panic!("{command:?} does not end\n{stdout}{stderr}"));
    Output { code: status.code(), stdout, stderr }
}

/// Processes that serve the configuration `file`, oldest first.
pub(crate) fn serving(file: &Path) -> Vec<u32> {
    let mut found: Vec<(u64, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            // A process that has ended, waited for or not, has no command line.
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            let serves =
                words.any(|word| word == b"run") && words.any(|word| word == file.as_os_str().as_encoded_bytes());
            serves.then_some((started(pid)?, pid))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}

/// Whether a process and its threads have ended, waited for or not. One that is ending has no command line any more, but
/// files that are still open and locked.
pub(crate) fn is_gone(pid: u32) -> bool {
    let is = |fields: &[String], at: usize, value: &str| fields.get(at).is_some_and(|field| field == value);
    stat(pid).is_none_or(|fields| is(&fields, 0, "Z") && is(&fields, 17, "1"))
}

/// The process that a process is a child of.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// When a process started, in ticks since boot.
fn started(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// CPU time that a process has used, in ticks.
pub(crate) fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = stat(pid)?;
    Some(stat.get(11)?.parse::<u64>().ok()? + stat.get(12)?.parse::<u64>().ok()?)
}

/// Memory that a process holds, in bytes.
#[track_caller]
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1024).expect("a process that has not ended")
}

/// Fields of `/proc/PID/stat` from the third on: the second is a name that may hold spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Whether it is this process that listens at an address, and not another that took the port first.
pub(crate) fn listens(pid: u32, addr: SocketAddr) -> bool {
    // The kernel writes addresses of IPv4 as one number in its own byte order.
    let SocketAddr::V4(addr) = addr else { return true };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port());
    let sockets = fs::read_to_string("/proc/net/tcp").expect("/proc");
    let inode = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|fields| {
        let listens = fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"0A");
        fields.get(9).filter(|_| listens).map(|inode| format!("socket:[{inode}]"))
    });
    let Some(inode) = inode else { return false };
    // A process that has ended has no descriptors.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(&inode)))
}

/// Sends a signal; a process that has ended already does not mind.
pub(crate) fn signal(pid: u32, signal: Signal) {
    match kill_process(pid_of(pid), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("{signal:?} to {pid}: {error}"),
    }
}

/// Grandchildren whose parent ends become children of this process, so that it sees how they end.
pub(crate) fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(pid_of(std::process::id()))).expect("Linux 3.4");
}

/// How an adopted process has ended: its exit code, or minus the signal. `None` while it runs, or if it is not ours.
pub(crate) fn reap(pid: u32) -> Option<i32> {
    let (_, status) = waitpid(Some(pid_of(pid)), WaitOptions::NOHANG).ok()??;
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| -signal))
}

fn pid_of(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}
