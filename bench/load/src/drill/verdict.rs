//! What a drill has shown, for people and for machines.

use std::fmt;

use serde::Serialize;
use tollgate_load::Report;

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
    /// Of a drill that sends no POST and asks nobody else.
    pub(super) fn of_reads(scenario: &'static str, steps: Vec<Step>, report: Report, log: &str) -> Self {
        Self {
            scenario,
            steps,
            report,
            opinions: Vec::new(),
            twice: 0,
            vanished: 0,
            panics: panics(log),
            allowed_posts: 0,
        }
    }

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

/// How many times a gateway that wrote this has panicked.
pub(super) fn panics(log: &str) -> usize {
    log.matches("panicked at").count()
}

/// Of several rounds: one may meet something else that the machine does.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
