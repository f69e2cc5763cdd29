//! Requests from a million addresses, each of which has a budget of its own, and clients that are honest: how much longer
//! do they wait, and what is left behind?

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate_load::{Lane, Load, Pace, Report};

use super::Failure;
use super::gateway::{Gateway, Service};
use super::verdict::{Step, Verdict, median};

/// Rounds without a flood, with one from few addresses, and with one from all of them, in turn.
const ROUNDS: u32 = 5;
/// What honest clients may wait longer because there are so many addresses.
const GOAL: f64 = 1.20;
/// What the process may grow by, in MiB.
const MOST_MEMORY: f64 = 100.0;
/// Requests of honest clients in a second.
const RATE: f64 = 500.0;
/// Requests of the flood in a second: what leaves room on two cores for whoever sends it.
const FLOOD: f64 = 2500.0;
const ADDRESSES: u32 = 1_000_000;
/// Addresses of honest clients, and of a flood that is none for the limit.
const FEW: u32 = 10_000;
/// Requests at the same time while every address has its first.
const FILLING: usize = 64;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A request is remembered for an hour, so that all keys stay active; none is refused.
const CONFIGURATION: &str = r#"
[limits.per_address]
key = ["client.address"]
rate = "1/h"
burst = 720
"#;

pub(super) fn run(binary: &Path, time: Duration) -> Result<Verdict, Failure> {
    let records = TempDir::new()?;
    let services = ["a", "b"].map(|name| Service::start(records.path(), name));
    let services = services.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut gateway = Gateway::start(binary, &services, "trusted_proxies = [\"127.0.0.1\"]")?;
    gateway.configure(|text| format!("{text}limits = [\"per_address\"]\n{CONFIGURATION}"))?;
    let (done, said) = gateway.command("reload")?;
    if !done {
        return Err(said.into());
    }
    let begin = Instant::now();
    let mut steps = vec![fill(&gateway)?];
    let mut lanes = Vec::new();
    let mut medians = [const { Vec::new() }; 3];
    for round in 1..=ROUNDS {
        for (p99, (name, addresses)) in
            medians.iter_mut().zip([("alone", None), ("few addresses", Some(FEW)), ("a million", Some(ADDRESSES))])
        {
            let lane = |name: String| Lane { workers: 16, post_every: 0, ..Lane::new(&name, gateway.http) };
            let honest = Lane { pace: Pace::Rate(RATE), addresses: FEW, ..lane(format!("{name}, round {round}")) };
            let flood = addresses.map(|addresses| Lane { pace: Pace::Rate(FLOOD), addresses, ..lane("flood".into()) });
            let load = Load::start([honest].into_iter().chain(flood).collect(), 1)?;
            thread::sleep(time / (3 * ROUNDS));
            let report = load.stop();
            p99.extend(report.lanes.first().map(|lane| lane.p99_ms));
            lanes.extend(report.lanes);
        }
    }
    gateway.stop()?;
    let [alone, few, all] = medians.map(median);
    let ratio = all / few;
    let text = format!(
        "p99 {all:.2} ms beside {FLOOD} requests a second from {ADDRESSES} addresses, {few:.2} ms beside as many from \
         {FEW}, {alone:.2} ms beside none: ratio {ratio:.3}, of medians"
    );
    let took = begin.elapsed().as_secs_f64();
    steps.push(Step { at: steps[0].took, took, what: "flood".to_owned(), text, as_wanted: ratio <= GOAL });
    Ok(Verdict::of_reads("flood", steps, Report { seconds: took, lanes }, &gateway.log()))
}

/// The first request of every address, and what the process has grown by after it.
fn fill(gateway: &Gateway) -> Result<Step, Failure> {
    let (begin, before) = (Instant::now(), resident(gateway)?);
    let lane = Lane { workers: FILLING, post_every: 0, addresses: ADDRESSES, ..Lane::new("filling", gateway.http) };
    let load = Load::start(vec![lane], 1)?;
    while load.answered() < u64::from(ADDRESSES) {
        if begin.elapsed() > PATIENCE {
            return Err(format!("only {} addresses in {PATIENCE:?}", load.answered()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    load.stop();
    let grown = resident(gateway)? - before;
    let text = format!("{before:.0} MiB, and {grown:.0} more with {ADDRESSES} addresses");
    let took = begin.elapsed().as_secs_f64();
    Ok(Step { at: 0.0, took, what: "fill".to_owned(), text, as_wanted: grown <= MOST_MEMORY })
}

/// What the gateway holds, in MiB.
fn resident(gateway: &Gateway) -> Result<f64, Failure> {
    let mut kib = 0.0;
    for pid in gateway.pids() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kib += line.ok_or("the kernel does not say how large it is")?.parse::<f64>()?;
    }
    Ok(kib / 1024.0)
}
