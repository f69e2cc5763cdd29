//! What a pick costs: nanoseconds to choose an endpoint, take a place there and give it back, for each way of balancing.
//!
//! `cargo bench --bench pick`; medians of seven rounds. A thread's own figure: with two threads both pick from the same
//! upstream at once, as two workers do.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use http::StatusCode;
use tollgate::config::Config;
use tollgate::upstream::{Outcome, Tried, Upstream, Wish};

const BALANCES: [(&str, &str); 6] = [
    ("round_robin", "balance = \"round_robin\""),
    ("random", "balance = \"random\""),
    ("least_request", "balance = \"least_request\""),
    ("peak_ewma", "balance = \"peak_ewma\""),
    ("consistent_hash", "balance = \"consistent_hash\"\nhash_key = [\"client.address\"]"),
    (
        "the same, unbounded",
        "balance = \"consistent_hash\"\nhash_key = [\"client.address\"]\nhash_balance_factor = \"none\"",
    ),
];
const ENDPOINTS: [usize; 3] = [3, 30, 300];
const PICKS: u64 = 200_000;
const ROUNDS: usize = 7;

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    println!("{:<22}{}", "ns for each pick", ENDPOINTS.map(|count| format!("{count:>8}{:>10}", "(2)")).concat());
    for (name, balance) in BALANCES {
        let mut line = format!("{name:<22}");
        for count in ENDPOINTS {
            let upstream = upstream(directory.path(), balance, count);
            let (alone, together) = (measured(&upstream, 1), measured(&upstream, 2));
            write!(line, "{alone:>8.0}{together:>10.0}").expect("writing to memory");
        }
        println!("{line}");
    }
}

/// Weights from 1 to 3, in turn.
fn upstream(directory: &Path, balance: &str, count: usize) -> Arc<Upstream> {
    let endpoint = |index: usize| {
        format!("{{ address = \"10.0.{}.{}:80\", weight = {} }}", index / 250, index % 250, 1 + index % 3)
    };
    let endpoints: Vec<_> = (0..count).map(endpoint).collect();
    let text = format!(
        "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[upstreams.main]\nendpoints = [{}]\n{balance}\n",
        endpoints.join(", ")
    );
    let file = directory.join("tollgate.toml");
    fs::write(&file, text).expect("written");
    let config = Config::load(&file).expect("it is sound");
    let (name, spec) = config.upstreams.first_key_value().expect("one");
    Arc::new(Upstream::build(name, spec).expect("it is sound"))
}

/// The median of the rounds.
fn measured(upstream: &Arc<Upstream>, threads: usize) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(upstream, threads)).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn round(upstream: &Arc<Upstream>, threads: usize) -> f64 {
    let start = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (upstream, start) = (Arc::clone(upstream), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let begin = Instant::now();
                for key in 0..PICKS {
                    let wish = Wish { key: Some(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)), bond: None };
                    let lease = upstream.pick(&Tried::default(), wish).expect("somebody is there");
                    black_box(&lease).observe(Outcome::Answered(StatusCode::OK));
                }
                begin.elapsed().as_nanos() as f64 / PICKS as f64
            })
        })
        .collect();
    let times: Vec<f64> = workers.into_iter().map(|worker| worker.join().expect("a worker picks")).collect();
    times.iter().sum::<f64>() / times.len() as f64
}
