//! Many clients that send a byte a second, and one that is honest: how much longer does it wait for them?
//!
//! The many share the machine with whom they attack, and cost it something wherever they send. So they also send to a
//! bare server that the gateway does not ask: what the honest client waits for then is theirs, the rest the gateway's.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tollgate_load::{Lane, Load, Pace, Report};

use super::Failure;
use super::gateway::{Gateway, Service};
use super::verdict::{Step, Verdict, median};
use crate::machine;

/// Rounds without them, with them elsewhere and with them here, in turn.
const ROUNDS: u32 = 5;
/// What the honest client may wait longer.
const GOAL: f64 = 1.10;
/// Requests of the honest client in a second.
const RATE: f64 = 500.0;
/// Files of the gateway beside those for slow clients, of which it needs one for a head and two for a body.
const OTHER_FILES: u64 = 1000;
/// Between two bytes of one client.
const SECOND: Duration = Duration::from_secs(1);
/// Over how long they arrive.
const GATHERING: Duration = Duration::from_secs(2);
/// How long the gateway has to notice that they are gone.
const REST: Duration = Duration::from_secs(1);
/// How long it may take until all of them are connected.
const PATIENCE: Duration = Duration::from_secs(60);

/// What they begin with: half of them dawdle over a head, half over a body.
const BEGINNINGS: [&str; 2] = [
    "GET /work/0/0/0 HTTP/1.1\r\nhost: a\r\nx-slow: ",
    "POST /work/0/0/0 HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n",
];

pub(super) fn run(binary: &Path, time: Duration, clients: usize) -> Result<Verdict, Failure> {
    let clients = as_many_as(clients)?;
    let records = TempDir::new()?;
    let services = ["a", "b"].map(|name| Service::start(records.path(), name));
    let services = services.into_iter().collect::<Result<Vec<_>, _>>()?;
    let server = format!("max_connections = {}", clients + 500);
    let mut gateway = Gateway::start(binary, &services, &server)?;
    let begin = Instant::now();
    let mut lanes = Vec::new();
    let (mut without, mut elsewhere, mut with) = (Vec::new(), Vec::new(), Vec::new());
    let turn = time / (3 * ROUNDS);
    let bare = Service::start(records.path(), "bare")?;
    for round in 1..=ROUNDS {
        let mut measure = |name: &str| -> Result<f64, Failure> {
            let name = format!("{name}, round {round}");
            let lane = Lane { pace: Pace::Rate(RATE), workers: 16, post_every: 0, ..Lane::new(&name, gateway.http) };
            let load = Load::start(vec![lane], 1)?;
            thread::sleep(turn);
            let report = load.stop();
            let p99 = report.lanes.iter().map(|lane| lane.p99_ms).sum();
            lanes.extend(report.lanes);
            Ok(p99)
        };
        without.push(measure("without")?);
        for (target, name, found) in
            [(bare.addr, "with them elsewhere", &mut elsewhere), (gateway.http, "with them", &mut with)]
        {
            let crowd = Crowd::gather(target, clients)?;
            found.push(measure(name)?);
            drop(crowd);
            thread::sleep(REST);
        }
    }
    gateway.stop()?;
    let [with, elsewhere, without] = [with, elsewhere, without].map(median);
    let ratio = with / without;
    let text = format!(
        "p99 {with:.2} ms with {clients}, {without:.2} ms without: ratio {ratio:.3}, of medians; \
         {elsewhere:.2} ms where they dawdle at a bare server: ratio {:.3}",
        with / elsewhere
    );
    let took = begin.elapsed().as_secs_f64();
    let step = Step { at: 0.0, took, what: "slow".to_owned(), text, as_wanted: ratio <= GOAL };
    Ok(Verdict::of_reads("slow", vec![step], Report { seconds: took, lanes }, &gateway.log()))
}

/// So many clients, or as many as there can be files.
fn as_many_as(clients: usize) -> Result<usize, Failure> {
    let limit = machine::raise_file_limit()?.unwrap_or(u64::MAX);
    let most = usize::try_from(limit.saturating_sub(OTHER_FILES) / 3 * 2)?;
    if clients > most {
        println!("{most} slow clients instead of {clients}: a process may open {limit} files");
    }
    Ok(clients.min(most))
}

/// Clients that send a byte a second, until this is dropped.
struct Crowd(Option<Runtime>);

impl Crowd {
    /// Returns once all of them are connected.
    fn gather(target: SocketAddr, clients: usize) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let connected = Arc::new(AtomicUsize::new(0));
        for index in 0..clients {
            let connected = Arc::clone(&connected);
            runtime.spawn(async move {
                // Not all in the same moment, now and for each byte.
                tokio::time::sleep(GATHERING.mul_f64(index as f64 / clients as f64)).await;
                let beginning = BEGINNINGS[index % BEGINNINGS.len()];
                let mut first = Some(connected);
                loop {
                    // Cut off, it comes back: there are always so many.
                    drop(dawdle(target, beginning, &mut first).await);
                    tokio::time::sleep(SECOND).await;
                }
            });
        }
        let crowd = Self(Some(runtime));
        let deadline = Instant::now() + PATIENCE;
        while connected.load(Ordering::Relaxed) < clients {
            if Instant::now() > deadline {
                return Err(format!("only {} of {clients} could connect", connected.load(Ordering::Relaxed)).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Sends a byte a second until it is answered or cut off.
async fn dawdle(target: SocketAddr, beginning: &str, first: &mut Option<Arc<AtomicUsize>>) -> io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(beginning.as_bytes()).await?;
    if let Some(connected) = first.take() {
        connected.fetch_add(1, Ordering::Relaxed);
    }
    let mut answer = [0; 512];
    loop {
        tokio::select! {
            _ = stream.read(&mut answer) => return Ok(()),
            () = tokio::time::sleep(SECOND) => stream.write_all(b"x").await?,
        }
    }
}
