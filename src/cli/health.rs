//! `tollgate health`: the question of a load balancer, for images in which there is nothing else to ask it with.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{ConfigFile, Failure};
use crate::config;

/// For each step; whoever asks has a deadline of its own.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is read of the answer: its first line is what counts.
const MAX_ANSWER: u64 = 4096;

/// Say whether the running process is ready: exit code 0 or 1
#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    file: ConfigFile,
    /// Where to ask, if the configuration does not tell
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
}

impl Health {
    pub(super) fn run(self) -> Result<(), Failure> {
        // A file that cannot be served still says where: the process may serve an earlier one.
        let address = reachable(self.address.unwrap_or_else(|| config::health_address(&self.file.config)));
        let answer = ask(address).map_err(|error| format!("nobody answers at http://{address}/readyz: {error}"))?;
        match status(&answer) {
            Some("200") => {
                println!("ready");
                Ok(())
            }
            Some(status) => Err(format!("http://{address}/readyz answers {status}").into()),
            None => Err(format!("what http://{address}/readyz answers is no HTTP").into()),
        }
    }
}

/// Who listens at every address is asked at this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn ask(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

fn status(answer: &[u8]) -> Option<&str> {
    let line = answer.strip_prefix(b"HTTP/1.1 ")?;
    str::from_utf8(line.get(..3)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_counts() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\nready"), Some("200"));
        assert_eq!(status(b"HTTP/1.1 503 Service Unavailable\r\n"), Some("503"));
        for other in [&b""[..], b"HTTP/1.1 2", b"SSH-2.0-x", b"HTTP/1.1 \xff\xff\xff"] {
            assert_eq!(status(other), None);
        }
    }
}
