//! Proof that a contender does what it is measured for: it refuses what it should, and has written what it should.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::contender::Peer;
use super::ground::NAME;
use super::process::Process;
use super::token::Tokens;

/// How long an answer, or the last lines of a log, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever verifies tokens lets the right ones through and no others.
pub(super) fn verifies(proxy: &Process, tokens: &Tokens) -> Result<(), Failure> {
    let token = tokens.all.first().ok_or("no tokens")?;
    for (what, token, expected) in [
        ("a valid token", Some(token.as_str()), 200),
        ("no token", None, 401),
        ("a forged one", Some(&*forged(token)), 401),
    ] {
        let status = status(proxy.addr, token)?;
        if status != expected {
            return Err(
                format!("{} answers {status} to {what}, and not {expected}\n{}", proxy.name, proxy.said()).into()
            );
        }
    }
    Ok(())
}

/// Whoever writes a log has written a line for each request.
pub(super) fn has_logged(proxy: &Process, peer: Peer, requests: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = lines(&log(proxy.directory(), peer))?;
        if lines >= requests {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{} wrote {lines} lines for {requests} requests", proxy.name).into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn log(directory: &Path, peer: Peer) -> PathBuf {
    directory.join(if peer == Peer::Haproxy { "stdout" } else { "access.log" })
}

fn lines(file: &Path) -> Result<u64, Failure> {
    let mut file = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (mut count, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(count),
            read => count += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

/// The same with another signature.
fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", signature.get(1..).unwrap_or_default())
}

fn status(addr: SocketAddr, token: Option<&str>) -> Result<u16, Failure> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    socket.write_all(format!("GET /orders/17 HTTP/1.1\r\nHost: {NAME}\r\n{token}\r\n").as_bytes())?;
    let mut start = [0; "HTTP/1.1 200".len()];
    socket.read_exact(&mut start)?;
    Ok(std::str::from_utf8(&start)?.trim_start_matches("HTTP/1.1 ").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_differs_in_its_signature_alone() {
        assert_eq!(forged("a.b.cd"), "a.b.Ad");
        assert_eq!(forged("a.b.Ad"), "a.b.Bd");
    }

    #[test]
    fn lines_are_counted_by_their_ends() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "{}\n{}\n{").expect("written");
        assert_eq!(lines(file.path()).expect("read"), 2);
    }
}
