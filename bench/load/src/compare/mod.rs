//! Tollgate, its peers and its floor side by side, in alternating rounds, as medians with their spread.
//!
//! The proxy that is measured has one core to itself; load and origin have another. What is compared is CPU time, user
//! and system, for each request: it is what one pays for, and what a busy machine disturbs least. Throughput and the
//! 99th percentile stand beside it.

mod callgrind;
mod case;
mod contender;
mod cores;
mod figure;
mod goal;
mod ground;
mod load;
mod peer;
mod plot;
mod process;
mod proof;
mod table;
mod token;
mod tool;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use self::case::{Case, Load};
use self::contender::{Contender, Peer};
use self::cores::Cores;
use self::figure::{Round, Row};
use self::goal::Verdict;
use self::ground::{Certificate, Ground, Programs};
use self::process::Process;
use self::token::Tokens;
use crate::machine::{self, Machine};

type Failure = Box<dyn Error>;

/// Load before the first round counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Idle connections, and with `--quick`.
const IDLE: (usize, usize) = (10_000, 1000);
/// Rounds of what repeats itself, at most: memory, and instructions.
const REPEATS: (u32, u32) = (3, 2);
/// Descriptors besides those.
const SPARE: u64 = 1000;

/// Compare what requests cost with nginx, HAProxy and the least that is possible on the same runtime
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The gateway's binary
    #[arg(long, default_value = "target/release/tollgate")]
    tollgate: PathBuf,
    /// The binary of a proxy on the same runtime that does nothing
    #[arg(long, default_value = "target/release/tollgate-floor")]
    floor: PathBuf,
    /// What to compare; several times for several [default: everything]
    #[arg(long = "case", value_enum, value_name = "CASE")]
    cases: Vec<Case>,
    /// Rounds of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// One round of a second each: to see that everything runs, not for figures to quote
    #[arg(long)]
    quick: bool,
    /// Without peers: load for a binary that counts where its time goes
    #[arg(long)]
    alone: bool,
    /// Where the results are written
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// All that is written.
#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    versions: BTreeMap<&'static str, String>,
    /// For one worker, and for one worker and two
    cores: [Cores; 2],
    rounds: u32,
    seconds: u64,
    quick: bool,
    rows: Vec<Row>,
    goals: Vec<Verdict>,
    absent: Vec<Value>,
    failed: Vec<Value>,
}

impl Compare {
    pub(crate) fn run(mut self) -> Result<bool, Failure> {
        if self.quick {
            (self.rounds, self.seconds) = (1, 1);
        }
        if self.cases.is_empty() {
            self.cases = Case::all().to_vec();
        }
        let machine = Machine::read();
        println!("{machine}");
        if machine.cores() < 2 {
            return Err("this needs two cores: one for the proxy, one for load and origin".into());
        }
        let missing = tool::missing(&self.cases);
        if !missing.is_empty() {
            return Err(tool::complaint(&missing).into());
        }
        raise_file_limit(if self.cases.iter().any(|case| case.load() == Load::Idle) { self.idle() } else { 0 })?;
        let tollgate = whole(&self.tollgate)?;
        let floor = if self.alone { tollgate.clone() } else { whole(&self.floor)? };
        let programs = Programs { tollgate, floor };
        let began = Instant::now();
        let mut results = Results {
            versions: versions(&programs),
            cores: [Cores::of_one_worker(machine.cores()), Cores::of_two_workers(machine.cores())],
            rounds: self.rounds,
            seconds: self.seconds,
            quick: self.quick,
            machine,
            rows: Vec::new(),
            goals: Vec::new(),
            absent: Vec::new(),
            failed: Vec::new(),
        };
        for (name, version) in &results.versions {
            println!("{name}: {version}");
        }
        for case in &self.cases {
            self.case(*case, &programs, &mut results);
        }
        results.report(&self.results)?;
        println!("it took {} s", began.elapsed().as_secs());
        Ok(results.failed.is_empty())
    }

    /// One case, with all that is to be said of it.
    fn case(&self, case: Case, programs: &Programs, results: &mut Results) {
        println!("\n{}: {}", case.name(), case.title());
        let [one, two] = &results.cores;
        let cores = if case == Case::Workers { two } else { one }.clone();
        let apart = cores.are_apart();
        if !apart {
            println!("  the machine has no cores left for the load: all share cores {:?}", cores.proxy);
        }
        for (name, why) in case.absent() {
            println!("  without {name}: {why}");
            results.absent.push(json!({ "case": case, "name": name, "why": why }));
        }
        match self.measure(case, programs, cores) {
            Ok(measured) => {
                let rows = figure::rows(case, measured);
                print!("{}", table::rows(&rows));
                results.goals.extend(goal::verdicts(case, &rows, apart));
                results.rows.extend(rows);
            }
            // The other cases are worth having.
            Err(error) => {
                let said = error.to_string();
                println!("  FAILED: {said}");
                // What a program has said besides names files of this machine, and results are for others too.
                results.failed.push(json!({ "case": case, "why": said.lines().next() }));
            }
        }
    }

    /// How many idle connections.
    fn idle(&self) -> usize {
        if self.quick { IDLE.1 } else { IDLE.0 }
    }

    /// All rounds of all contenders of a case.
    fn measure(&self, case: Case, programs: &Programs, cores: Cores) -> Result<Vec<(String, Vec<Round>)>, Failure> {
        let directory = tempfile::Builder::new().prefix("tollgate-bench-").tempdir()?;
        let path = directory.path();
        // Generators of our own run in this process.
        cores::pin_myself(&cores.load)?;
        let mut contenders = case.contenders();
        contenders.retain(|contender| !self.alone || contender.peer == Peer::Tollgate);
        let algorithm = contenders.iter().find_map(|contender| contender.setup.token);
        let web = peer::origin(path, &cores.origin)?;
        let origin = if case.load() == Load::Echoes { load::Echo::start()?.addr } else { web.addr };
        let ground = Ground {
            directory: path.to_owned(),
            programs: programs.clone(),
            cores,
            origin,
            certificate: Certificate::make(path)?,
            tokens: algorithm.map(|algorithm| Tokens::make(algorithm, path)).transpose()?,
            wrapper: (case.load() == Load::Callgrind).then(callgrind::wrapper),
        };
        let rounds = match case.load() {
            Load::Idle => Self::apart(&contenders, self.rounds.min(REPEATS.0), |contender| {
                load::idle(&ground.start(contender)?, contender.setup.tls, self.idle())
            }),
            Load::Callgrind => {
                Self::apart(&contenders, self.rounds.min(REPEATS.1), |contender| callgrind::round(&ground, contender))
            }
            load => self.together(&contenders, &ground, load),
        }?;
        Ok(contenders.into_iter().map(|contender| contender.name).zip(rounds).collect())
    }

    /// Rounds of contenders that all run; those whose turn it is not have nothing to do. Each round begins with another.
    fn together(&self, contenders: &[Contender], ground: &Ground, load: Load) -> Result<Vec<Vec<Round>>, Failure> {
        let proxies: Vec<Process> =
            contenders.iter().map(|contender| ground.start(contender)).collect::<Result<_, _>>()?;
        for (proxy, contender) in proxies.iter().zip(contenders) {
            if let Some(tokens) = ground.tokens.as_ref().filter(|_| contender.setup.token.is_some()) {
                proof::verifies(proxy, tokens)?;
            }
        }
        let one = |index: usize, time| load::round(ground, &proxies[index], contenders[index].setup, load, time);
        let mut requests = vec![0; proxies.len()];
        for (index, requests) in requests.iter_mut().enumerate() {
            *requests += one(index, WARM_UP)?.count;
        }
        let mut rounds = vec![Vec::new(); proxies.len()];
        for turn in 0..self.rounds as usize {
            for index in (0..proxies.len()).map(|index| (index + turn) % proxies.len()) {
                rounds[index].push(one(index, Duration::from_secs(self.seconds))?);
            }
        }
        for (index, contender) in contenders.iter().enumerate().filter(|(_, contender)| contender.setup.log) {
            let requests = requests[index] + rounds[index].iter().map(|round: &Round| round.count).sum::<u64>();
            proof::has_logged(&proxies[index], contender.peer, requests)?;
        }
        Ok(rounds)
    }

    /// Rounds of contenders that are started for each.
    fn apart(
        contenders: &[Contender],
        rounds: u32,
        one: impl Fn(&Contender) -> Result<Round, Failure>,
    ) -> Result<Vec<Vec<Round>>, Failure> {
        let mut results = vec![Vec::new(); contenders.len()];
        for _ in 0..rounds {
            for (contender, results) in contenders.iter().zip(&mut results) {
                results.push(one(contender)?);
            }
        }
        Ok(results)
    }
}

impl Results {
    /// Says what became of the goals, and writes everything.
    fn report(&self, directory: &Path) -> Result<(), Failure> {
        if !self.goals.is_empty() {
            println!("\nGoals, by medians (and the rounds, each against its neighbour in time)");
        }
        for verdict in &self.goals {
            println!("{verdict}");
        }
        let file = machine::write(directory, "compare", &serde_json::to_value(self)?)?;
        let picture = file.with_extension("svg");
        std::fs::write(&picture, plot::draw(&self.rows, &self.machine.to_string()))?;
        if self.quick {
            println!("\nThese are of single rounds of a second: they show that everything runs, and nothing else.");
        }
        println!("\nresults: {} {}", file.display(), picture.display());
        Ok(())
    }
}

/// As many descriptors as may be had, for this process and those it starts; the error is that these are too few.
fn raise_file_limit(idle: usize) -> Result<(), Failure> {
    let most = machine::raise_file_limit()?;
    let needed = idle as u64 + SPARE;
    match most {
        Some(most) if most < needed => {
            Err(format!("at most {most} descriptors may be open here (ulimit -Hn), and {needed} are needed").into())
        }
        _ => Ok(()),
    }
}

fn whole(binary: &Path) -> Result<PathBuf, Failure> {
    binary.canonicalize().map_err(|error| format!("{}: {error}; `make bench` builds it", binary.display()).into())
}

/// What each says it is.
fn versions(programs: &Programs) -> BTreeMap<&'static str, String> {
    let said = |program: &Path, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
    };
    BTreeMap::from([
        ("tollgate", said(&programs.tollgate, "--version")),
        ("nginx", said(Path::new("nginx"), "-v")),
        ("haproxy", said(Path::new("haproxy"), "-v")),
    ])
}
