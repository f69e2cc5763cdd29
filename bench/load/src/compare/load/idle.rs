//! Memory of connections that have had one request each and then stand idle.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::PATIENCE;
use super::handshake;
use crate::compare::Failure;
use crate::compare::figure::Round;
use crate::compare::ground::NAME;
use crate::compare::process::Process;

/// Requests before anything is counted, so that what is made once is there.
const WARM_UP: usize = 64;
/// Hands that open connections at the same time.
const HANDS: usize = 8;
/// How long memory must stand still to be read.
const STILL: Duration = Duration::from_millis(200);

/// Opens so many connections, and sees how much larger the proxy is with them.
pub(in crate::compare) fn round(proxy: &Process, tls: bool, count: usize) -> Result<Round, Failure> {
    let config = tls.then(|| handshake::config(false).map(Arc::new)).transpose()?;
    for _ in 0..WARM_UP {
        open(proxy.addr, config.as_ref())?;
    }
    let before = settled(proxy)?;
    let connections = all(proxy.addr, config.as_ref(), count)
        .map_err(|error| format!("{}: {error}\n{}", proxy.name, proxy.said()))?;
    let after = settled(proxy)?;
    // One that was closed in the meantime would make the others look small.
    for connection in &connections {
        connection.set_nonblocking(true)?;
        if matches!(connection.peek(&mut [0]), Ok(0)) {
            return Err(format!("{} has closed connections that should stand idle", proxy.name).into());
        }
    }
    Ok(Round {
        count: count as u64,
        cost: after.saturating_sub(before) as f64 / 1024.0 / count as f64,
        ..Round::default()
    })
}

/// So many, opened by several hands.
fn all(addr: SocketAddr, config: Option<&Arc<ClientConfig>>, count: usize) -> Result<Vec<TcpStream>, Failure> {
    let some = || -> Result<Vec<_>, String> {
        (0..count.div_ceil(HANDS)).map(|_| open(addr, config).map_err(|error| error.to_string())).collect()
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS).map(|_| scope.spawn(some)).collect();
        let mut connections = Vec::with_capacity(count);
        for hand in hands {
            connections.extend(hand.join().map_err(|_| "a client has panicked")??);
        }
        connections.truncate(count);
        Ok(connections)
    })
}

/// A connection after its first answer. The state of its TLS is not kept: the other end never learns of that.
fn open(addr: SocketAddr, config: Option<&Arc<ClientConfig>>) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    match config {
        None => super::ask(&mut socket, None)?,
        Some(config) => {
            let mut connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?;
            super::ask(&mut rustls::Stream::new(&mut connection, &mut socket), None)?;
        }
    }
    Ok(socket)
}

/// What a process holds once that has stopped changing.
fn settled(proxy: &Process) -> Result<u64, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = proxy.resident()?;
    loop {
        thread::sleep(STILL);
        let now = proxy.resident()?;
        if now == last || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}
