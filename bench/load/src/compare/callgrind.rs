//! Instructions in user mode for each request, counted by valgrind: the figure that repeats itself.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::Failure;
use super::contender::Contender;
use super::figure::Round;
use super::ground::Ground;
use super::load;

/// Requests before counting begins, and those that are counted.
const WARM_UP: usize = 300;
const REQUESTS: usize = 2000;
/// Under valgrind all is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program is run under.
pub(super) fn wrapper() -> Vec<OsString> {
    ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=callgrind.out"]
        .map(Into::into)
        .to_vec()
}

/// Counts the instructions of requests on one kept connection.
pub(super) fn round(ground: &Ground, contender: &Contender) -> Result<Round, Failure> {
    let proxy = ground.start(contender)?;
    let tokens = ground.tokens.as_ref().filter(|_| contender.setup.token.is_some());
    let tokens = tokens.map_or(&[][..], |tokens| tokens.all.as_slice());
    let mut socket = TcpStream::connect(proxy.addr)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut ask = |count: usize| -> Result<(), Failure> {
        (0..count).try_for_each(|index| load::ask(&mut socket, tokens.get(index % tokens.len().max(1))))
    };
    ask(WARM_UP.max(tokens.len()))?;
    control("--instr=on", proxy.id())?;
    ask(REQUESTS)?;
    control("--instr=off", proxy.id())?;
    control("--dump", proxy.id())?;
    let total = fs::read_dir(proxy.directory())?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("callgrind.out"))
        .filter_map(|entry| total(&fs::read_to_string(entry.path()).ok()?))
        .max()
        .filter(|total| *total > 0);
    let total = total.ok_or_else(|| format!("valgrind has counted nothing: {}", proxy.said()))?;
    Ok(Round { count: REQUESTS as u64, cost: total as f64 / REQUESTS as f64, ..Round::default() })
}

fn control(what: &str, pid: u32) -> Result<(), Failure> {
    let output = Command::new("callgrind_control").args([what, &pid.to_string()]).output()?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(format!("callgrind_control {what}: {}", String::from_utf8_lossy(&text)).into());
    }
    Ok(())
}

/// From what valgrind has written.
fn total(text: &str) -> Option<u64> {
    // The line that begins with "summary:" stays at 0 in a dump that was asked for.
    text.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_stands_in_a_line_of_its_own() {
        assert_eq!(total("events: Ir\nsummary: 0\n\nfn=(1)\n1 2\ntotals: 123456\n"), Some(123_456));
        assert_eq!(total("events: Ir\n"), None);
    }
}
