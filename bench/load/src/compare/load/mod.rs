//! Load, and what it cost the proxy.

mod echo;
mod h2load;
mod handshake;
mod idle;
mod list;
mod wrk;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

pub(super) use self::echo::Echo;
pub(super) use self::idle::round as idle;
pub(super) use self::list::segment;
use super::Failure;
use super::case::Load;
use super::contender::Setup;
use super::figure::Round;
use super::ground::{Ground, NAME};
use super::process::Process;

/// Connections of every generator that keeps them.
const CONNECTIONS: usize = 32;
/// How long anything may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a generator says of a round.
#[derive(Debug, PartialEq)]
struct Tally {
    count: u64,
    p99_micros: Option<f64>,
}

/// One round of load on one proxy.
pub(super) fn round(
    ground: &Ground,
    proxy: &Process,
    setup: Setup,
    load: Load,
    time: Duration,
) -> Result<Round, Failure> {
    match load {
        Load::Wrk { path, fresh } => measure(proxy, || wrk::run(ground, proxy.addr, setup.tls, path, fresh, time)),
        Load::List => {
            let script = list::script(ground, setup)?;
            measure(proxy, || wrk::list(ground, proxy.addr, &script, time))
        }
        Load::Streams => measure(proxy, || h2load::run(ground, proxy.addr, time)),
        Load::Handshakes { resumed } => {
            let hands = handshake::Hands::prepare(proxy.addr, resumed)?;
            measure(proxy, || hands.shake(time))
        }
        Load::Echoes => {
            let talk = echo::Talk::begin(proxy.addr)?;
            measure(proxy, || talk.go_on(time))
        }
        Load::Idle | Load::Callgrind => Err("this is not measured in rounds of time".into()),
    }
}

/// The CPU time of a proxy while something runs, over what has been done then.
fn measure(proxy: &Process, run: impl FnOnce() -> Result<Tally, Failure>) -> Result<Round, Failure> {
    let (began, before) = (Instant::now(), proxy.cpu()?);
    let tally = run().map_err(|error| format!("{}: {error}\n{}", proxy.name, proxy.said()))?;
    let (used, took) = (proxy.cpu()?.since(before), began.elapsed());
    if tally.count == 0 {
        return Err(format!("{} did nothing", proxy.name).into());
    }
    let count = tally.count as f64;
    Ok(Round {
        count: tally.count,
        cost: used.total() / count,
        user: Some(used.user / used.total().max(1.0)),
        rate: Some(count / took.as_secs_f64()),
        p99_micros: tally.p99_micros,
    })
}

/// One small GET on a connection that is kept, its answer included.
pub(super) fn ask(stream: &mut (impl Read + Write), token: Option<&String>) -> Result<(), Failure> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // In one write: it is one packet, as a client sends it.
    let request = format!("GET /orders/17 HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: bench\r\n{token}\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    // The body of the origin ends with dots, and nothing else does.
    while !answer.ends_with(&[b'.'; 200]) {
        match stream.read(&mut buffer)? {
            0 => return Err(format!("closed before an answer: {}", String::from_utf8_lossy(&answer)).into()),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into()) }
}

/// The 99th percentile.
fn p99(mut values: Vec<f64>) -> Option<f64> {
    let index = (values.len() * 99 / 100).min(values.len().checked_sub(1)?);
    Some(*values.select_nth_unstable_by(index, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_is_beyond_the_99th_percentile() {
        assert_eq!(p99((1..=1000).rev().map(f64::from).collect()), Some(991.0));
        assert_eq!(p99(vec![7.0]), Some(7.0));
        assert_eq!(p99(Vec::new()), None);
    }
}
