//! wrk, and what it says.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{CONNECTIONS, Tally};
use crate::compare::Failure;
use crate::compare::cores::pinned;
use crate::compare::ground::{Ground, NAME};

/// The same request again and again.
pub(super) fn run(
    ground: &Ground,
    addr: SocketAddr,
    tls: bool,
    path: &str,
    fresh: bool,
    time: Duration,
) -> Result<Tally, Failure> {
    let mut wrk = command(ground, time);
    if fresh {
        wrk.args(["-H", "Connection: close"]);
    }
    let scheme = if tls { "https" } else { "http" };
    wrk.args(["-H", &format!("Host: {NAME}"), &format!("{scheme}://{addr}{path}")]);
    finish(wrk)
}

/// The requests of a script.
pub(super) fn list(ground: &Ground, addr: SocketAddr, script: &Path, time: Duration) -> Result<Tally, Failure> {
    let mut wrk = command(ground, time);
    wrk.arg("-s").arg(script).arg(format!("http://{addr}/"));
    finish(wrk)
}

fn command(ground: &Ground, time: Duration) -> Command {
    let mut wrk = pinned(&ground.cores.load, "wrk");
    let threads = ground.cores.load.len().min(2).to_string();
    wrk.args(["-t", &threads, "-c", &CONNECTIONS.to_string(), "-d", &format!("{}s", time.as_secs()), "--latency"]);
    wrk
}

fn finish(mut wrk: Command) -> Result<Tally, Failure> {
    let output = wrk.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text).map_err(|error| format!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
}

fn read(text: &str) -> Result<Tally, &'static str> {
    let lines = || text.lines().map(str::trim);
    if lines().any(|line| line.starts_with("Non-2xx") || line.starts_with("Socket errors")) {
        return Err("requests were lost, which makes the figures worthless");
    }
    let count = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok());
    let p99_micros = lines().find_map(|line| micros(line.strip_prefix("99%")?.trim()));
    Ok(Tally { count: count.ok_or("wrk counts no requests")?, p99_micros })
}

/// "1.20ms" and the like.
fn micros(text: &str) -> Option<f64> {
    [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)]
        .into_iter()
        .find_map(|(unit, micros)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 5s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  Latency Distribution\n     50%  400.00us\n     99%    1.20ms\n  12345 requests in 5.00s, 2.00MB read\nRequests/sec: 2469.00\n";

    #[test]
    fn the_words_of_wrk_are_understood() {
        assert_eq!(read(TEXT), Ok(Tally { count: 12345, p99_micros: Some(1200.0) }));
        assert!(read("unable to connect").is_err());
    }

    #[test]
    fn a_round_that_lost_requests_has_no_figures() {
        for complaint in ["  Non-2xx or 3xx responses: 5\n", "  Socket errors: connect 1, read 0, write 0, timeout 0\n"]
        {
            assert!(read(&format!("{TEXT}{complaint}")).is_err());
        }
    }

    #[test]
    fn units_of_time_are_told_apart() {
        assert_eq!(micros("7us"), Some(7.0));
        assert_eq!(micros("7ms"), Some(7e3));
        assert_eq!(micros("7s"), Some(7e6));
        assert_eq!(micros("2m"), Some(120e6));
        assert_eq!(micros("7"), None);
    }
}
