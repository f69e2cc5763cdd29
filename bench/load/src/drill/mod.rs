//! Drills: load from many sides, something that happens in the middle of it, and a verdict.

mod flood;
mod gateway;
mod peers;
mod scenario;
mod slow;
mod verdict;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::scenario::Scenario;
use crate::machine::{self, Machine};

/// What ends a drill before it has a verdict.
type Failure = Box<dyn Error>;

/// Put a gateway under load, do something to it, and say what was lost
#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// What happens; if none is named, all in which something could be lost
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The gateway's binary
    #[arg(long, default_value = "target/release/tollgate")]
    tollgate: PathBuf,
    /// Seconds of load for each
    #[arg(long = "for", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// Where the results are written
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// Leave out the generators of others (wrk, oha, k6), which are used where they are installed
    #[arg(long)]
    alone: bool,
    /// How many clients send a byte a second, in the drill with slow ones; fewer where files are limited
    #[arg(long, default_value_t = 10_000)]
    slow_clients: usize,
}

impl Drill {
    /// Whether everything held.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let scenarios = if self.scenarios.is_empty() { Scenario::ALL.to_vec() } else { self.scenarios };
        let machine = Machine::read();
        println!("{machine}");
        let mut verdicts = Vec::new();
        for scenario in scenarios {
            println!("\n=== {}: {}", scenario.name(), scenario.story());
            let time = Duration::from_secs(self.seconds);
            let verdict = match scenario {
                Scenario::Flood => flood::run(&self.tollgate, time)?,
                Scenario::Slow => slow::run(&self.tollgate, time, self.slow_clients)?,
                _ => scenario.run(&self.tollgate, time, self.alone)?,
            };
            println!("{verdict}");
            verdicts.push(verdict);
        }
        let held = verdicts.iter().all(verdict::Verdict::holds);
        let results = json!({ "machine": machine, "held": held, "drills": verdicts });
        let file = machine::write(&self.results, "drill", &results)?;
        println!("\n{} (results: {})", if held { "EVERYTHING HELD" } else { "SOMETHING WAS LOST" }, file.display());
        Ok(held)
    }
}
