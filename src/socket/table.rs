//! The table of listening sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::channel::{Channel, MAX_SOCKETS};

/// Connections the kernel holds until they are accepted; it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Between the address and the number in the name of a socket that shares its address.
const SHARE: &str = "#";

/// Sockets by name. The name of a TCP socket is its address, so that a listener may be renamed without losing it.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<String, OwnedFd>);

/// What passes sockets on: their names, in the order of the descriptors beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    names: Vec<String>,
    more: bool,
}

impl Sockets {
    /// The TCP socket that listens at `address`: the one in the table, or a new one. `all` are the addresses of the
    /// whole configuration: one that takes every IPv6 address also takes IPv4, unless another of them does that.
    ///
    /// # Errors
    /// It cannot be bound; the error says what to look at.
    pub fn tcp(&mut self, address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
        let name = address.to_string();
        if !self.0.contains_key(&name) {
            self.0.insert(name.clone(), listen(unbound(address, only_v6(address, all))?, address)?);
        }
        Ok(TcpListener::from(self.0[&name].try_clone()?))
    }

    /// The sockets that listen at `address` for so many workers, each with a queue of its own among which the kernel
    /// spreads connections (SO_REUSEPORT): those in the table, however many, and new ones for the workers that have none.
    /// One in the table that is not of this kind serves them all.
    ///
    /// # Errors
    /// As [`Self::tcp`].
    pub fn shared(&mut self, address: SocketAddr, all: &[SocketAddr], workers: usize) -> io::Result<Vec<TcpListener>> {
        // One that somebody else has bound, as root: the kernel lets nobody else share its address, so all accept from it.
        if let Some(socket) = self.0.get(&address.to_string()) {
            return Ok(vec![TcpListener::from(socket.try_clone()?)]);
        }
        let name = |index: usize| format!("{address}{SHARE}{index}");
        let only_v6 = only_v6(address, all);
        let mut count = (0..).take_while(|&index| self.0.contains_key(&name(index))).count();
        if count == 0 {
            // Sockets that share an address do not notice when it is somebody else's. This one does, and never listens: it
            // would be called in that moment, and would not answer.
            rustix::net::bind(&unbound(address, only_v6)?, &address)?;
        }
        while count < workers {
            let socket = unbound(address, only_v6)?;
            set_socket_reuseport(&socket, true)?;
            self.0.insert(name(count), listen(socket, address)?);
            count += 1;
        }
        (0..count).map(|index| Ok(TcpListener::from(self.0[&name(index)].try_clone()?))).collect()
    }

    /// The address of a TCP socket's name.
    pub fn address(name: &str) -> &str {
        name.split_once(SHARE).map_or(name, |(address, _)| address)
    }

    /// The Unix socket called `name`, if it was passed on.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn find(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.0.get(name).map(OwnedFd::try_clone).transpose()
    }

    /// Adds a socket, to be passed on. Whether there was none of this name, which is closed here now.
    pub fn insert(&mut self, name: &str, socket: OwnedFd) -> bool {
        self.0.insert(name.to_owned(), socket).is_none()
    }

    /// Closes what `wanted` does not name: sockets of listeners that the configuration has no more.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// Closes them all, here: a process that holds a copy goes on listening.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Gives a copy of every socket to another process.
    ///
    /// # Errors
    /// The other process is gone or does not read.
    pub fn send(&self, channel: &Channel, timeout: Duration) -> io::Result<()> {
        let entries: Vec<_> = self.0.iter().collect();
        let chunks = entries.len().div_ceil(MAX_SOCKETS).max(1);
        for index in 0..chunks {
            let end = entries.len().min((index + 1) * MAX_SOCKETS);
            let part = &entries[index * MAX_SOCKETS..end];
            let names = part.iter().map(|(name, _)| (*name).clone()).collect();
            let sockets: Vec<_> = part.iter().map(|(_, socket)| socket.as_fd()).collect();
            channel.send(&Chunk { names, more: index + 1 < chunks }, &sockets, timeout)?;
        }
        Ok(())
    }

    /// Takes what [`Self::send`] gives.
    ///
    /// # Errors
    /// The other process is gone, silent for `timeout`, or says something else.
    pub fn receive(channel: &Channel, timeout: Duration) -> io::Result<Self> {
        let mut table = BTreeMap::new();
        loop {
            let (chunk, sockets): (Chunk, _) = channel.receive(timeout)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if chunk.names.len() != sockets.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "names and sockets do not match"));
            }
            table.extend(chunk.names.into_iter().zip(sockets));
            if !chunk.more {
                return Ok(Self(table));
            }
        }
    }
}

fn only_v6(address: SocketAddr, all: &[SocketAddr]) -> bool {
    all.iter().any(|other| other.is_ipv4() && other.port() == address.port())
}

fn unbound(address: SocketAddr, only_v6: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of an earlier process that linger in TIME_WAIT do not keep the address.
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, only_v6)?;
    }
    Ok(socket)
}

fn listen(socket: OwnedFd, address: SocketAddr) -> io::Result<OwnedFd> {
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Listens at `path` for [`Channel`]s of the same user. A socket file that nobody listens at any more is replaced.
///
/// # Errors
/// Somebody listens there (`AddrInUse`), or the file cannot be made.
pub fn listen_unix(path: &Path) -> io::Result<OwnedFd> {
    match Channel::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens, so that there is no moment in which somebody else may connect.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn loopback() -> SocketAddr {
        let free = TcpListener::bind("127.0.0.1:0").expect("bound");
        free.local_addr().expect("an address")
    }

    #[test]
    fn more_sockets_than_one_message_holds_are_passed_on() {
        let mut table = Sockets::default();
        let addresses: Vec<_> = (0..MAX_SOCKETS + 3).map(|_| loopback()).collect();
        for address in &addresses {
            table.tcp(*address, &[]).expect("bound");
        }
        let (left, right) = Channel::pair().expect("a pair");
        table.send(&left, SOON).expect("sent");
        drop(table);
        let mut passed = Sockets::receive(&right, SOON).expect("received");
        for address in addresses {
            TcpStream::connect(address).expect("never closed");
            passed.tcp(address, &[]).expect("in the table");
        }
    }

    #[test]
    fn workers_have_a_socket_each_and_no_queue_is_forgotten() {
        let (address, mut table) = (loopback(), Sockets::default());
        assert_eq!(table.shared(address, &[], 3).expect("bound").len(), 3);
        let taken = Sockets::default().shared(address, &[], 1).expect_err("somebody else's");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let (left, right) = Channel::pair().expect("a pair");
        table.send(&left, SOON).expect("sent");
        drop(table);
        let mut passed = Sockets::receive(&right, SOON).expect("received");
        passed.retain(|name| Sockets::address(name) == address.to_string());
        assert_eq!(passed.shared(address, &[], 1).expect("fewer workers").len(), 3);
        assert_eq!(passed.shared(address, &[], 5).expect("more workers").len(), 5);
    }

    #[test]
    fn a_socket_that_somebody_else_has_bound_stays_the_only_one() {
        let bound = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = bound.local_addr().expect("an address");
        let mut table = Sockets::default();
        table.insert(&address.to_string(), bound.into());
        let shares = table.shared(address, &[], 3).expect("shared");
        assert_eq!(shares.len(), 1, "a second one would be refused: the first belongs to root");
        let client = TcpStream::connect(address).expect("listening");
        let (_, peer) = shares[0].accept().expect("the same queue");
        assert_eq!(peer, client.local_addr().expect("an address"));
    }

    #[test]
    fn sockets_that_are_not_wanted_are_closed() {
        let mut table = Sockets::default();
        let (kept, gone) = (loopback(), loopback());
        drop((table.tcp(kept, &[]).expect("bound"), table.tcp(gone, &[]).expect("bound")));
        table.retain(|name| name == kept.to_string());
        assert!(TcpStream::connect(kept).is_ok());
        assert!(TcpStream::connect(gone).is_err());
    }

    #[test]
    fn every_ipv6_address_is_every_ipv4_address_too_unless_that_is_listed() {
        let port = loopback().port();
        let (v6, v4): (SocketAddr, SocketAddr) = (([0; 8], port).into(), ([0; 4], port).into());
        let mut table = Sockets::default();
        drop((table.tcp(v6, &[v6, v4]).expect("bound"), table.tcp(v4, &[v6, v4]).expect("beside it")));
        let port = loopback().port();
        drop(table.tcp(([0; 8], port).into(), &[]).expect("bound"));
        TcpStream::connect(("127.0.0.1", port)).expect("both");
    }

    #[test]
    fn a_socket_file_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let first = listen_unix(&path).expect("listens");
        assert_eq!(listen_unix(&path).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen_unix(&path).expect("the file left behind is replaced");
    }
}
