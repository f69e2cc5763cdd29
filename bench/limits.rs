//! What one decision costs, and what one key: `make limits`.
//!
//! It measures what a request pays, from its address to the answer: hashing, the table, and the list of what was taken.
//! Ratios travel better than nanoseconds; the number of keys is what matters here, since a table that does not fit into
//! caches is paid for by memory.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use http::{HeaderMap, Method};
use tollgate::config::{self, Cost, LimitKind, Mode, OnFull, Period, Rate, Selector};
use tollgate::filter::limit::{Flood, Limit, Links, Notes, admit};
use tollgate::filter::{Clock, Facts};
use tollgate::http::Request;

/// The allocator of the real binary: what a key costs is what it takes from it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MOST: u32 = 1_000_000;
const ROUNDS: u32 = 3_000_000;

fn rate(count: u32, seconds: u64) -> Rate {
    Rate { count: NonZeroU32::new(count).expect("not zero"), per: Duration::from_secs(seconds) }
}

fn limit(kind: LimitKind) -> [Arc<Limit>; 1] {
    let spec = config::Limit {
        kind,
        queue: None,
        cost: Cost::One,
        key: vec![Selector::ClientAddress],
        max_keys: NonZeroUsize::new(MOST as usize).expect("not zero"),
        on_full: OnFull::Allow,
        mode: Mode::Enforce,
        store: None,
        legacy_headers: false,
        partition_key: false,
        show_keys: false,
    };
    [Arc::new(Limit::build(&"bench".into(), &spec, &Links::default()).expect("no store"))]
}

fn clock() -> Clock {
    Clock { steady: Instant::now(), wall: SystemTime::now() }
}

/// One decision about one address.
fn decide(limits: &[Arc<Limit>], headers: &HeaderMap, which: u32, clock: Clock) -> bool {
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
    admit(limits, &facts, clock, &mut Notes::default()).now_or_never().expect("no store").is_ok()
}

/// Far apart, so that no two in a row share a page.
fn scattered(step: u32, keys: u32) -> u32 {
    ((u64::from(step) * 2_654_435_761) % u64::from(keys)) as u32
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a file of the kernel");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0) * 1024
}

fn measure(name: &str, keys: u32, mut decide: impl FnMut(u32)) {
    let begin = Instant::now();
    for step in 0..ROUNDS {
        decide(scattered(step, keys));
    }
    let nanos = begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    println!("{{\"what\":\"{name}\",\"keys\":{keys},\"ns\":{nanos:.1}}}");
}

fn fill(name: &str, kind: LimitKind, headers: &HeaderMap) -> [Arc<Limit>; 1] {
    let before = resident();
    let (limits, clock, begin) = (limit(kind), clock(), Instant::now());
    let mut longest = Duration::ZERO;
    for which in 0..MOST {
        let one = Instant::now();
        assert!(decide(&limits, headers, which, clock));
        longest = longest.max(one.elapsed());
    }
    let nanos = begin.elapsed().as_nanos() as f64 / f64::from(MOST);
    let bytes = resident().saturating_sub(before) as f64 / f64::from(MOST);
    println!(
        "{{\"what\":\"{name}, new keys\",\"keys\":{MOST},\"ns\":{nanos:.1},\"longest_us\":{},\"bytes_each\":{bytes:.1}}}",
        longest.as_micros()
    );
    limits
}

/// What one access costs to as much memory as a million keys take, where each has to be over before the next is known.
fn chase() {
    /// Lines of the cache, 32 MiB of them.
    const LINES: usize = 1 << 19;
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line(usize);

    // Each leads to the next of a full cycle (a linear congruential generator), far away.
    let lines: Vec<Line> = (0..LINES).map(|at| Line((at * 1_664_525 + 1_013_904_223) % LINES)).collect();
    let (mut at, begin) = (0, Instant::now());
    for _ in 0..ROUNDS {
        at = black_box(lines[at].0);
    }
    let nanos = begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    println!("{{\"what\":\"memory, one access\",\"bytes\":{},\"ns\":{nanos:.1}}}", LINES * size_of::<Line>());
}

fn main() {
    let headers = HeaderMap::new();
    // More than is ever asked for: all of these keys stay active, so none can be forgotten.
    let rate_kind =
        LimitKind::Rate { rate: rate(1_000_000_000, 3600), burst: NonZeroU32::new(1_000_000_000).expect("not zero") };
    let quota_kind =
        LimitKind::Quota { count: NonZeroU32::new(1_000_000_000).expect("not zero"), period: Period::Month };
    for (name, kind) in [("rate", rate_kind), ("quota", quota_kind)] {
        for keys in [1, 1000] {
            let (limits, clock) = (limit(kind), clock());
            measure(name, keys, |which| assert!(black_box(decide(&limits, &headers, which, clock))));
        }
        let limits = fill(name, kind, &headers);
        let clock = clock();
        measure(name, MOST, |which| assert!(black_box(decide(&limits, &headers, which, clock))));
        let begin = Instant::now();
        let busiest = limits[0].busiest(10).len();
        let took = begin.elapsed().as_micros();
        println!("{{\"what\":\"{name}, the {busiest} busiest\",\"keys\":{MOST},\"us\":{took}}}");
    }
    // Each new key takes the place of one that is refilled: a flood of addresses.
    let limits = limit(LimitKind::Rate { rate: rate(1000, 1), burst: NonZeroU32::new(1).expect("not zero") });
    let (mut longest, begin, now) = (Duration::ZERO, Instant::now(), clock());
    for which in 0..ROUNDS {
        // A hundred million a second: a tenth of the table is refilled at any time.
        let steady = now.steady + Duration::from_nanos(u64::from(which) * 10);
        let one = Instant::now();
        black_box(decide(&limits, &headers, which, Clock { steady, wall: now.wall }));
        longest = longest.max(one.elapsed());
    }
    let nanos = begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    let keys = limits[0].stats().keys;
    println!(
        "{{\"what\":\"rate, a flood of new keys\",\"keys\":{keys},\"ns\":{nanos:.1},\"longest_us\":{}}}",
        longest.as_micros()
    );
    let flood = Flood::new(rate(1_000_000, 1));
    let now = Instant::now();
    measure("connection rate", MOST, |which| {
        black_box(flood.enter(IpAddr::from(Ipv4Addr::from_bits(which)), now));
    });
    // Last: the keys above would get the memory that it leaves.
    chase();
}
