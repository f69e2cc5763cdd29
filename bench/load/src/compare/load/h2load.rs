//! h2load, and what it says.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Tally, p99};
use crate::compare::Failure;
use crate::compare::cores::pinned;
use crate::compare::ground::{Ground, NAME};

const CONNECTIONS: &str = "4";
/// On each connection: as many as every one of the peers allows.
const STREAMS: &str = "100";

pub(super) fn run(ground: &Ground, addr: SocketAddr, time: Duration) -> Result<Tally, Failure> {
    let times = ground.directory.join("h2load.times");
    // It appends.
    let _ = fs::remove_file(&times);
    let mut h2load = pinned(&ground.cores.load, "h2load");
    h2load.args(["-t", "1", "-c", CONNECTIONS, "-m", STREAMS, "-D", &time.as_secs().to_string()]);
    h2load.arg(format!("--log-file={}", times.display())).arg(format!("--connect-to={addr}"));
    let output = h2load.arg(format!("https://{NAME}:{}/small", addr.port())).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = read(&text).map_err(|error| format!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Tally { count, p99_micros: p99(micros(&fs::read_to_string(&times)?)) })
}

/// How many requests were answered; the error is that some were not.
fn read(text: &str) -> Result<u64, &'static str> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let number =
        |list: &str, name: &str| list.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse::<u64>().ok());
    if !text.contains("Application protocol: h2\n") {
        return Err("h2load did not speak HTTP/2");
    }
    let requests = line("requests: ").ok_or("h2load counts no requests")?;
    let codes = line("status codes: ").ok_or("h2load counts no status codes")?;
    let (done, succeeded) = (number(requests, " done"), number(requests, " succeeded"));
    if done != succeeded || done != number(codes, " 2xx") {
        return Err("requests were lost, which makes the figures worthless");
    }
    done.ok_or("h2load counts no requests")
}

/// How long each request took, by the third column.
fn micros(log: &str) -> Vec<f64> {
    log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Application protocol: h2\n\nfinished in 1.00s, 10.00 req/s, 1.00KB/s\nrequests: 10 total, 12 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 10 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn the_words_of_h2load_are_understood() {
        assert_eq!(read(TEXT), Ok(10));
    }

    #[test]
    fn a_round_that_lost_requests_has_no_figures() {
        assert!(read(&TEXT.replace("10 succeeded", "9 succeeded")).is_err());
        assert!(read(&TEXT.replace("10 2xx, 0 3xx", "9 2xx, 1 3xx")).is_err());
        assert!(read(&TEXT.replace(": h2", ": http/1.1")).is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn times_are_in_the_third_column() {
        assert_eq!(micros("1700000000000000\t200\t1500\n1700000000000001\t200\t2500\n"), [1500.0, 2500.0]);
    }
}
