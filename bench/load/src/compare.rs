//! Tollgate and its peers side by side: CPU time for each request, in alternating rounds, as medians.
//!
//! The proxy has one core to itself; load and origin share another. What is compared is CPU time per request, which a
//! busy machine disturbs least; throughput of one core is its reciprocal.

use std::error::Error;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;

use crate::machine::{self, Machine};

type Failure = Box<dyn Error>;

/// The core of the proxy, and the core of everything else.
const CORES: (&str, &str) = ("0", "1");
/// Connections of the load generator.
const CONNECTIONS: &str = "32";
/// Load before the first round counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a process may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compare the CPU time of each request with that of nginx and HAProxy
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The gateway's binary
    #[arg(long, default_value = "target/release/tollgate")]
    tollgate: PathBuf,
    /// Rounds of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Where the results are written
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// How the load is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Case {
    /// One request after the other on each connection
    Kept,
    /// A connection for each request
    Fresh,
}

/// A proxy that runs.
struct Proxy {
    name: &'static str,
    addr: SocketAddr,
    child: Child,
    /// What `make bench` should say it was
    version: String,
}

/// One proxy in one round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    requests: u64,
    micros_per_request: f64,
    p99: String,
}

/// All rounds of one proxy in one case.
#[derive(Debug, Serialize)]
struct Row {
    proxy: &'static str,
    case: Case,
    rounds: Vec<Round>,
    median_micros: f64,
    /// Over that of nginx
    ratio: Option<f64>,
}

impl Compare {
    pub(crate) fn run(self) -> Result<bool, Failure> {
        let machine = Machine::read();
        println!("{machine}");
        if machine.cores() < 2 {
            return Err("this needs two cores: one for the proxy, one for load and origin".into());
        }
        let directory = tempfile::Builder::new().prefix("tollgate-bench-").tempdir()?;
        let [origin, tollgate, nginx, haproxy] = machine::free_addresses()?;
        let _origin = start_origin(&directory, origin)?;
        let mut proxies = vec![
            start_tollgate(&directory, &self.tollgate, tollgate, origin)?,
            start_nginx(&directory, nginx, origin)?,
        ];
        match start_haproxy(&directory, haproxy, origin) {
            Ok(proxy) => proxies.push(proxy),
            Err(error) => println!("without haproxy: {error}"),
        }
        for proxy in &proxies {
            println!("{}: {}", proxy.name, proxy.version);
        }
        let mut rows = Vec::new();
        for case in [Case::Kept, Case::Fresh] {
            rows.extend(self.case(case, &proxies)?);
        }
        for row in &rows {
            println!("{row}");
        }
        let file = machine::write(&self.results, "compare", &json!({ "machine": machine, "rows": rows }))?;
        println!("results: {}", file.display());
        Ok(true)
    }

    fn case(&self, case: Case, proxies: &[Proxy]) -> Result<Vec<Row>, Failure> {
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); proxies.len()];
        for proxy in proxies {
            load(proxy, case, WARM_UP)?;
        }
        for _ in 0..self.rounds {
            for (proxy, rounds) in proxies.iter().zip(&mut rounds) {
                rounds.push(load(proxy, case, Duration::from_secs(self.seconds))?);
            }
        }
        let row = |(proxy, rounds): (&Proxy, Vec<Round>)| {
            let median_micros = median(rounds.iter().map(|round| round.micros_per_request).collect());
            Row { proxy: proxy.name, case, rounds, median_micros, ratio: None }
        };
        let mut rows: Vec<_> = proxies.iter().zip(rounds).map(row).collect();
        let nginx = rows.iter().find(|row| row.proxy == "nginx").map(|row| row.median_micros);
        for row in &mut rows {
            row.ratio = nginx.map(|nginx| row.median_micros / nginx);
        }
        Ok(rows)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = if self.case == Case::Kept { "kept connections" } else { "fresh connections" };
        write!(f, "{case:<18} {:<9} {:>8.2} µs CPU/request", self.proxy, self.median_micros)?;
        if let Some(ratio) = self.ratio {
            write!(f, "   {ratio:.2} × nginx")?;
        }
        let (all, p99): (Vec<_>, Vec<_>) =
            self.rounds.iter().map(|round| (format!("{:.1}", round.micros_per_request), round.p99.as_str())).unzip();
        write!(f, "   rounds: {}   p99: {}", all.join(" "), p99.join(" "))
    }
}

/// One round of load on one proxy.
fn load(proxy: &Proxy, case: Case, time: Duration) -> Result<Round, Failure> {
    let pids = family(proxy.child.id());
    let before = cpu_micros(&pids)?;
    let mut wrk = pinned(CORES.1, "wrk");
    wrk.args(["-t", "1", "-c", CONNECTIONS, "-d", &format!("{}s", time.as_secs()), "--latency"]);
    if case == Case::Fresh {
        wrk.args(["-H", "Connection: close"]);
    }
    let output = wrk.arg(format!("http://{}/work/0/0/200", proxy.addr)).output()?;
    let used = cpu_micros(&pids)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = || text.lines().map(str::trim);
    let requests: u64 = lines()
        .find_map(|line| line.split_once(" requests in ")?.0.parse().ok())
        .ok_or_else(|| format!("wrk said this: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    if let Some(complaint) = lines().find(|line| line.starts_with("Non-2xx") || line.starts_with("Socket errors")) {
        return Err(format!("{} lost requests, which makes its figures worthless: {complaint}", proxy.name).into());
    }
    let p99 = lines().find_map(|line| Some(line.strip_prefix("99%")?.trim().to_owned())).unwrap_or_default();
    Ok(Round { requests, micros_per_request: used / requests as f64, p99 })
}

fn start_origin(directory: &TempDir, addr: SocketAddr) -> Result<Proxy, Failure> {
    let server = format!(
        "server {{ listen {addr} backlog=4096; access_log off; location / {{ return 200 \"{}\"; }} }}",
        ".".repeat(200)
    );
    let child = nginx(directory, "origin", CORES.1, &server)?;
    let origin = Proxy { name: "origin", addr, child, version: String::new() };
    origin.wait()
}

fn start_nginx(directory: &TempDir, addr: SocketAddr, origin: SocketAddr) -> Result<Proxy, Failure> {
    let path = directory.path().display();
    let server = format!(
        r#"log_format json escape=json '{{"ts":"$time_iso8601","client_ip":"$remote_addr","method":"$request_method","host":"$host","path":"$uri","status":$status,"bytes_out":$body_bytes_sent,"duration":$request_time,"upstream":"$upstream_addr","user_agent":"$http_user_agent"}}';
        upstream origin {{ server {origin}; keepalive 64; }}
        server {{
            listen {addr} backlog=4096;
            access_log {path}/nginx.access.log json buffer=64k flush=1s;
            keepalive_requests 1000000000;
            location / {{
                proxy_pass http://origin;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_set_header Host $host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
                proxy_set_header X-Request-Id $request_id;
            }}
        }}"#
    );
    let child = nginx(directory, "nginx", CORES.0, &server)?;
    Proxy { name: "nginx", addr, child, version: said("nginx", "-v") }.wait()
}

fn nginx(directory: &TempDir, name: &str, core: &str, server: &str) -> Result<Child, Failure> {
    let path = directory.path().display();
    let text = format!(
        "daemon off; worker_processes 1; pid {path}/{name}.pid; error_log {path}/{name}.error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ client_body_temp_path {path}/{name}.body; proxy_temp_path {path}/{name}.proxy;\n\
         fastcgi_temp_path {path}/{name}.fastcgi; uwsgi_temp_path {path}/{name}.uwsgi; scgi_temp_path {path}/{name}.scgi;\n\
         keepalive_requests 1000000000;\n{server}\n}}\n"
    );
    let file = directory.path().join(format!("{name}.conf"));
    fs::write(&file, text)?;
    let mut command = pinned(core, "nginx");
    command.args(["-c".as_ref(), file.as_os_str(), "-p".as_ref(), directory.path().as_os_str()]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn start_haproxy(directory: &TempDir, addr: SocketAddr, origin: SocketAddr) -> Result<Proxy, Failure> {
    let version = said("haproxy", "-v");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  option forwardfor\n\
         frontend front\n  bind {addr} backlog 4096\n  unique-id-format %{{+X}}o%ci:%cp_%ts_%rt\n  unique-id-header x-request-id\n  default_backend origin\n\
         backend origin\n  http-reuse always\n  server origin {origin}\n"
    );
    let file = directory.path().join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = pinned(CORES.0, "haproxy");
    command.args(["-db".as_ref(), "-q".as_ref(), "-f".as_ref(), file.as_os_str()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Proxy { name: "haproxy", addr, child, version: version + " (without an access log: it has syslog only)" }.wait()
}

fn start_tollgate(directory: &TempDir, binary: &Path, addr: SocketAddr, origin: SocketAddr) -> Result<Proxy, Failure> {
    let path = directory.path().display();
    let [admin] = machine::free_addresses()?;
    let text = format!(
        r#"version = 1
[server]
threads = 1
runtime_dir = "{path}/run"
[admin]
address = "{admin}"
[log.access]
output = "file:{path}/tollgate.access.log"
[listeners.http]
address = "{addr}"
[upstreams.origin]
endpoints = ["{origin}"]
[routes.all]
auth = "none"
upstream = "origin"
"#
    );
    let file = directory.path().join("tollgate.toml");
    fs::write(&file, text)?;
    let binary = binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()))?;
    let version = said(&binary.to_string_lossy(), "--version");
    let mut command = pinned(CORES.0, &binary.to_string_lossy());
    command.args(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Proxy { name: "tollgate", addr, child, version }.wait()
}

impl Proxy {
    fn wait(mut self) -> Result<Self, Failure> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.addr).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} has ended: {status}", self.name).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not listen", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for pid in family(self.child.id()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                // It may have ended with its parent.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let _ = self.child.wait();
    }
}

fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

fn said(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").to_owned()
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
}

/// What processes have used so far, in user and system mode.
fn cpu_micros(pids: &[u32]) -> Result<f64, Failure> {
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in front may hold spaces.
        let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    }
    Ok(ticks as f64 * 1_000_000.0 / rustix::param::clock_ticks_per_second() as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_used_some_time() {
        assert!(family(std::process::id()).contains(&std::process::id()));
        assert!(cpu_micros(&[std::process::id()]).expect("read") >= 0.0);
    }
}
