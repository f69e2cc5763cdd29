//! Load generators of others, where they are installed: a second opinion on what was lost.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::Failure;

/// Connections of each.
const CONNECTIONS: &str = "16";

/// A generator that runs.
pub(super) struct Peer {
    name: &'static str,
    child: Child,
    script: Option<tempfile::NamedTempFile>,
}

/// What it says.
#[derive(Debug, Serialize)]
pub(super) struct Opinion {
    pub(super) name: &'static str,
    /// Requests it knows the answer to
    pub(super) requests: u64,
    /// Errors of connections and answers of 400 and above
    pub(super) failed: u64,
    /// In its own words
    pub(super) details: String,
}

impl Peer {
    /// Starts those that are there; says which are not.
    pub(super) fn start_all(target: SocketAddr, time: Duration) -> Result<Vec<Self>, Failure> {
        let (url, seconds) = (format!("http://{target}/work/0/0/200"), time.as_secs());
        let mut wrk = Command::new("wrk");
        wrk.args(["-t", "1", "-c", CONNECTIONS, "-d", &format!("{seconds}s"), "--latency", &url]);
        let mut oha = Command::new("oha");
        oha.args(["-z", &format!("{seconds}s"), "-c", CONNECTIONS, "-q", "500", "--no-tui", "-w"]);
        oha.args(["--output-format", "json", &url]);
        let script = tempfile::Builder::new().suffix(".js").tempfile()?;
        let text = "import http from 'k6/http';\nexport default function () { http.get(__ENV.TARGET); }\n";
        std::fs::write(script.path(), text)?;
        let mut k6 = Command::new("k6");
        k6.args(["run", "--vus", "8", "--duration", &format!("{seconds}s"), "--quiet", "--no-usage-report"]);
        k6.args(["--summary-export", "/dev/stdout", "--no-thresholds", "--env", &format!("TARGET={url}")]);
        k6.arg(script.path());
        let mut peers = Vec::new();
        for (name, mut command, script) in [("wrk", wrk, None), ("oha", oha, None), ("k6", k6, Some(script))] {
            match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
                Ok(child) => peers.push(Self { name, child, script }),
                Err(error) => println!("without {name}: {error}"),
            }
        }
        Ok(peers)
    }

    /// Waits for its end.
    pub(super) fn finish(self) -> Result<Opinion, Failure> {
        let output = self.child.wait_with_output()?;
        drop(self.script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let opinion = match self.name {
            "wrk" => wrk(&text),
            "oha" => oha(&text),
            _ => k6(&text),
        };
        opinion
            .ok_or_else(|| format!("{} said this: {text}{}", self.name, String::from_utf8_lossy(&output.stderr)).into())
    }
}

fn wrk(text: &str) -> Option<Opinion> {
    let lines = || text.lines().map(str::trim);
    let requests = lines().find_map(|line| line.split_once(" requests in ")?.0.parse().ok())?;
    let number = |digits: &str| digits.trim().parse::<u64>().unwrap_or(0);
    // "connect 0, read 0, write 0, timeout 0"
    let sockets = lines().filter_map(|line| line.strip_prefix("Socket errors: "));
    let sockets =
        sockets.flat_map(|counts| counts.split(", ")).map(|count| number(count.rsplit(' ').next().unwrap_or("")));
    let statuses = lines().filter_map(|line| line.strip_prefix("Non-2xx or 3xx responses:")).map(number);
    let failed = sockets.chain(statuses).sum();
    let worth = ["Socket errors", "Non-2xx", "99%", "Requests/sec"];
    let details: Vec<_> = lines().filter(|line| worth.iter().any(|word| line.starts_with(word))).collect();
    Some(Opinion { name: "wrk", requests, failed, details: details.join("; ") })
}

fn oha(text: &str) -> Option<Opinion> {
    let report: Value = serde_json::from_str(text).ok()?;
    let counts = |key: &str| report[key].as_object().cloned().unwrap_or_default();
    let (statuses, errors) = (counts("statusCodeDistribution"), counts("errorDistribution"));
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let bad = statuses.iter().filter(|(status, _)| !status.starts_with('2')).map(|(_, count)| number(count));
    // It ends by giving up what is in flight.
    let lost = errors.iter().filter(|(what, _)| !what.contains("deadline")).map(|(_, count)| number(count));
    let failed = bad.chain(lost).sum();
    let requests = statuses.values().map(number).sum();
    Some(Opinion { name: "oha", requests, failed, details: format!("{statuses:?} {errors:?}") })
}

fn k6(text: &str) -> Option<Opinion> {
    // Its words for people come first, and have braces of their own inside their lines.
    let begin = text.find("\n{").map_or(0, |newline| newline + 1);
    let report: Value = serde_json::from_str(text.get(begin..=text.rfind('}')?)?).ok()?;
    let metrics = &report["metrics"];
    let requests = metrics["http_reqs"]["count"].as_u64()?;
    // A rate of failures whose "passes" are the failures.
    let failed = metrics["http_req_failed"]["passes"].as_u64()?;
    Some(Opinion { name: "k6", requests, failed, details: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_wrk_are_understood() {
        let text = "Running 5s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  Latency Distribution\n     99%    1.20ms\n  12345 requests in 5.00s, 2.00MB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\nRequests/sec: 2469.00\n";
        let opinion = wrk(text).expect("understood");
        assert_eq!((opinion.requests, opinion.failed), (12345, 15));
        assert!(wrk("unable to connect").is_none());
    }

    #[test]
    fn the_words_of_oha_are_understood() {
        let text = r#"{"statusCodeDistribution":{"200":10,"502":2},"errorDistribution":{"aborted due to deadline":3,"connection closed":4}}"#;
        let opinion = oha(text).expect("understood");
        assert_eq!((opinion.requests, opinion.failed), (12, 6));
    }

    #[test]
    fn the_words_of_k6_are_understood() {
        let text = r#"
    { expected_response:true }...: avg=13ms
{"metrics":{"http_reqs":{"count":10,"rate":1},"http_req_failed":{"passes":2,"fails":8,"value":0.2}}}"#;
        let opinion = k6(text).expect("understood");
        assert_eq!((opinion.requests, opinion.failed), (10, 2));
    }
}
