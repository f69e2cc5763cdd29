//! Echoes over WebSockets: an origin that sends back what it gets, and clients with one message on the way each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::{Message, WebSocket};

use super::{CONNECTIONS, PATIENCE, Tally, p99};
use crate::compare::Failure;
use crate::compare::ground::NAME;

/// Bytes of a message.
const BYTES: usize = 125;

/// An origin. It lives as long as the process, and does nothing when nobody asks.
pub(in crate::compare) struct Echo {
    pub(in crate::compare) addr: SocketAddr,
}

/// Clients that have been let in.
pub(super) struct Talk {
    clients: Vec<WebSocket<TcpStream>>,
}

impl Echo {
    pub(in crate::compare) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        thread::Builder::new().name("echo".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        })?;
        Ok(Self { addr })
    }
}

/// Until the other end leaves. Whoever only looks whether somebody listens is no WebSocket, and none of its concern.
fn serve(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut socket = tungstenite::accept(stream).ok()?;
    loop {
        let message = socket.read().ok()?;
        if message.is_binary() {
            socket.send(message).ok()?;
        }
    }
}

impl Talk {
    pub(super) fn begin(addr: SocketAddr) -> Result<Self, Failure> {
        let client = |_| {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let (socket, _) = tungstenite::client(format!("ws://{NAME}/echo"), stream)?;
            Ok::<_, Failure>(socket)
        };
        Ok(Self { clients: (0..CONNECTIONS).map(client).collect::<Result<_, _>>()? })
    }

    pub(super) fn go_on(self, time: Duration) -> Result<Tally, Failure> {
        let deadline = Instant::now() + time;
        let threads: Vec<_> =
            self.clients.into_iter().map(|client| thread::spawn(move || talk(client, deadline))).collect();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().map_err(|_| "a client has panicked")??);
        }
        Ok(Tally { count: times.len() as u64, p99_micros: p99(times) })
    }
}

fn talk(mut client: WebSocket<TcpStream>, deadline: Instant) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    let mut said = [0; BYTES];
    while Instant::now() < deadline {
        // Each is different, so that none can be taken for another.
        said[..8].copy_from_slice(&(times.len() as u64).to_le_bytes());
        let began = Instant::now();
        client.send(Message::binary(said.to_vec())).map_err(|error| error.to_string())?;
        let heard = client.read().map_err(|error| error.to_string())?;
        if heard.into_data() != said.as_slice() {
            return Err("an echo of something else".to_owned());
        }
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_hear_what_they_said() {
        let echo = Echo::start().expect("started");
        let tally = Talk::begin(echo.addr).expect("let in").go_on(Duration::from_millis(50)).expect("heard");
        assert!(tally.count > 0);
    }
}
