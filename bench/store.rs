//! What one decision of a fleet costs, through a Redis server of its own: the second half of `make limits`.
//!
//! As in a gateway, the connection is kept by one thread and used by another. All of it stands on one machine, so
//! latencies are those of processes that are woken: a network comes on top. A question that means nothing (`PING`), asked
//! without waiting for anybody else, says how much of them is not ours.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use http::{HeaderMap, Method};
use tokio::runtime::{Builder, Runtime};
use tollgate::config::{
    Cost, Limit as Spec, LimitKind, Mode, OnFull, OnStoreFailure, Period, Rate, RedisAddress, RedisHost, RedisServer,
    Selector, Store, StoreMode,
};
use tollgate::filter::limit::{Limit, Links, Notes, admit};
use tollgate::filter::{Clock, Facts};
use tollgate::http::Request;

/// The allocator of the real binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One after the other.
const QUESTIONS: u32 = 20_000;
/// At once.
const CROWD: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn Error>;

/// It goes with its directory.
struct Redis {
    directory: tempfile::TempDir,
    addr: SocketAddr,
    child: Child,
}

impl Redis {
    /// `None` where it is not installed.
    fn start() -> Result<Option<Self>, Failure> {
        let directory = tempfile::Builder::new().prefix("tollgate-bench-").tempdir()?;
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--bind", "127.0.0.1", "--port", &addr.port().to_string(), "--unixsocket"]);
        command.arg(directory.path().join("redis.sock")).current_dir(directory.path());
        match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Ok(child) => {
                let redis = Self { directory, addr, child };
                redis.listens()?;
                Ok(Some(redis))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    fn listens(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() || TcpStream::connect(self.addr).is_err() {
            if Instant::now() > deadline {
                return Err("redis-server does not listen".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn address(&self, is_local: bool) -> RedisAddress {
        if is_local {
            return RedisAddress::Unix(self.socket());
        }
        RedisAddress::Tcp { host: RedisHost { name: self.addr.ip().to_string(), port: self.addr.port() }, tls: false }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where decisions are made, and where the connection is kept meanwhile.
struct Threads {
    workers: Runtime,
    background: Runtime,
}

impl Threads {
    fn start() -> Result<Self, Failure> {
        let workers = Builder::new_current_thread().enable_all().build()?;
        let background = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { workers, background })
    }

    /// A limit that is connected to its store.
    fn limit(&self, kind: LimitKind, address: RedisAddress, mode: StoreMode) -> Result<[Arc<Limit>; 1], Failure> {
        let server = RedisServer {
            address,
            login: None,
            sentinel_login: None,
            db: 0,
            ca: None,
            client: None,
            timeout: Duration::from_secs(5),
        };
        let spec = Spec {
            kind,
            queue: None,
            cost: Cost::One,
            key: vec![Selector::ClientAddress],
            max_keys: NonZeroUsize::new(100_000).ok_or("not zero")?,
            on_full: OnFull::Allow,
            mode: Mode::Enforce,
            // A decision without the server is a failure of the measurement.
            store: Some(Store { server, mode, on_failure: OnStoreFailure::Deny }),
            legacy_headers: false,
            partition_key: false,
            show_keys: false,
        };
        let limit = Limit::build(&"bench".into(), &spec, &Links::default()).map_err(|problem| problem.to_string())?;
        for task in limit.tasks() {
            self.background.spawn(task);
        }
        self.workers.block_on(limit.settled());
        Ok([Arc::new(limit)])
    }
}

/// One decision about one address.
async fn decide(limits: &[Arc<Limit>], headers: &HeaderMap, which: u32) {
    let request = Request {
        method: &Method::GET,
        host: "h",
        path: "/",
        query: None,
        headers,
        client: IpAddr::from(Ipv4Addr::from_bits(which)),
        client_certificate: None,
        route: "r",
        scheme: "http",
        id: "",
    };
    let facts = Facts { request: &request, identity: None };
    let clock = Clock { steady: Instant::now(), wall: SystemTime::now() };
    let decided = admit(limits, &facts, clock, &mut Notes::default()).await;
    assert!(decided.is_ok(), "more than is ever asked for, and the store did not answer: {:?}", limits[0].store());
}

/// More than is ever asked for.
fn rate() -> Result<LimitKind, Failure> {
    let count = NonZeroU32::new(100_000_000).ok_or("not zero")?;
    Ok(LimitKind::Rate { rate: Rate { count, per: Duration::from_secs(1) }, burst: count })
}

fn quota() -> Result<LimitKind, Failure> {
    Ok(LimitKind::Quota { count: NonZeroU32::new(1_000_000_000).ok_or("not zero")?, period: Period::Month })
}

/// Says how long they took, in the order of length.
fn told(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let micros = |share: usize| took[took.len() * share / 100].as_nanos() as f64 / 1000.0;
    println!("{{\"what\":\"{what}\",\"us_median\":{:.1},\"us_p99\":{:.1}}}", micros(50), micros(99));
}

/// The least that a question can take here.
fn floor(what: &str, mut stream: impl Read + Write) -> Result<(), Failure> {
    let (mut took, mut answer) = (Vec::new(), [0; 7]);
    for _ in 0..QUESTIONS {
        let begin = Instant::now();
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut answer)?;
        took.push(begin.elapsed());
    }
    told(what, took);
    Ok(())
}

fn strict(what: &str, limits: &[Arc<Limit>], threads: &Threads) {
    let headers = HeaderMap::new();
    let took = threads.workers.block_on(async {
        let mut took = Vec::new();
        for which in 0..QUESTIONS {
            let begin = Instant::now();
            decide(limits, &headers, which % 1000).await;
            took.push(begin.elapsed());
        }
        took
    });
    told(what, took);
    let each = QUESTIONS / 10;
    let begin = Instant::now();
    threads.workers.block_on(join_all((0..CROWD).map(async |caller| {
        for turn in 0..each {
            decide(limits, &headers, (caller * each + turn) % 1000).await;
        }
    })));
    let rate = f64::from(CROWD * each) / begin.elapsed().as_secs_f64();
    println!("{{\"what\":\"{what}, {CROWD} at once\",\"per_second\":{rate:.0}}}");
}

fn batched(what: &str, keys: u32, limits: &[Arc<Limit>], threads: &Threads) {
    const ROUNDS: u32 = 1_000_000;
    let headers = HeaderMap::new();
    let asked = || limits[0].store().map_or(0, |stats| stats.requests.iter().map(|(_, count)| count).sum::<u64>());
    let before = asked();
    let begin = Instant::now();
    threads.workers.block_on(async {
        for step in 0..ROUNDS {
            decide(limits, &headers, step % keys).await;
        }
    });
    let nanos = begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    let asked = asked() - before;
    println!("{{\"what\":\"{what}\",\"keys\":{keys},\"ns\":{nanos:.1},\"asked\":{asked},\"of\":{ROUNDS}}}");
}

fn main() -> Result<(), Failure> {
    let Some(redis) = Redis::start()? else {
        println!("SKIPPED: redis-server is not installed, so nothing is said about limits of a fleet");
        return Ok(());
    };
    let threads = Threads::start()?;
    let tcp = TcpStream::connect(redis.addr)?;
    tcp.set_nodelay(true)?;
    floor("ping, Unix socket", UnixStream::connect(redis.socket())?)?;
    floor("ping, loopback", tcp)?;
    for (name, is_local) in [("Unix socket", true), ("loopback", false)] {
        let address = || redis.address(is_local);
        strict(&format!("strict rate, {name}"), &threads.limit(rate()?, address(), StoreMode::Strict)?, &threads);
        strict(&format!("strict quota, {name}"), &threads.limit(quota()?, address(), StoreMode::Strict)?, &threads);
    }
    for (name, kind) in [("rate", rate()?), ("quota", quota()?)] {
        for keys in [1, 1000] {
            let limits = threads.limit(kind, redis.address(true), StoreMode::Batched)?;
            batched(&format!("batched {name}, Unix socket"), keys, &limits, &threads);
        }
    }
    Ok(())
}
