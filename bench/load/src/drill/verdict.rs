//! What a drill has shown, for people and for machines.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;
use tollgate_load::Report;

use super::Failure;
use super::peers::Opinion;

/// Something that was done to the gateway.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// Seconds since the load began
    pub(super) at: f64,
    /// Seconds
    pub(super) took: f64,
    pub(super) what: String,
    /// What was answered
    pub(super) text: String,
    pub(super) as_wanted: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) scenario: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) report: Report,
    pub(super) opinions: Vec<Opinion>,
    /// POSTs that arrived more than once
    pub(super) twice: usize,
    /// POSTs that were answered, and never arrived
    pub(super) vanished: usize,
    pub(super) panics: usize,
    /// POSTs that may fail, since they were with an origin when it was killed
    pub(super) allowed_posts: usize,
}

impl Verdict {
    pub(super) fn holds(&self) -> bool {
        let posts = self.report.failed() - self.report.failed_gets();
        self.report.failed_gets() == 0
            && posts <= self.allowed_posts as u64
            && self.report.lanes.iter().all(|lane| lane.answered > 0)
            && self.opinions.iter().all(|opinion| opinion.failed == 0 && opinion.requests > 0)
            && (self.twice, self.vanished, self.panics) == (0, 0, 0)
            && self.steps.iter().all(|step| step.as_wanted)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let mark = if step.as_wanted { "ok " } else { "BAD" };
            let text = step.text.replace('\n', "\n      | ");
            writeln!(f, "  {mark} {:>7.2} s  {:<8} took {:.2} s  {text}", step.at, step.what, step.took)?;
        }
        write!(f, "{}", self.report)?;
        for opinion in &self.opinions {
            let Opinion { name, requests, failed, details } = opinion;
            writeln!(f, "{name}: {requests} requests, {failed} failed. {details}")?;
        }
        let answered = self.report.answered() + self.opinions.iter().map(|opinion| opinion.requests).sum::<u64>();
        let failed = self.report.failed() + self.opinions.iter().map(|opinion| opinion.failed).sum::<u64>();
        write!(
            f,
            "{}: {answered} answered, {failed} failed, {} POSTs twice, {} vanished, {} panics",
            if self.holds() { "HELD" } else { "LOST" },
            self.twice,
            self.vanished,
            self.panics
        )
    }
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    commit: String,
    date: String,
    kernel: String,
    cpu: String,
    cores: usize,
}

impl Machine {
    pub(super) fn read() -> Self {
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
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, date, kernel, cpu, cores } = self;
        write!(f, "commit {commit}, {date}, {cores} cores of {cpu}, {kernel}")
    }
}

/// Writes everything as JSON, and says where.
pub(super) fn write(directory: &Path, machine: &Machine, verdicts: &[Verdict]) -> Result<PathBuf, Failure> {
    fs::create_dir_all(directory)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let file = directory.join(format!("drill-{seconds}.json"));
    let held = verdicts.iter().all(Verdict::holds);
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "held": held, "drills": verdicts }))?;
    fs::write(&file, text + "\n")?;
    Ok(file)
}
