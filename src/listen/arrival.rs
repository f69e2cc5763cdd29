//! Who has connected: what a balancer says in front of the first byte, and whether that client may have one more
//! connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Listening;
use super::crowd::Member;
use super::proxy_protocol::{self, Header, MAX_HEADER, Malformed};
use crate::config::{Listener, ProxyProtocol};
use crate::http::{Ends, Proxied, Reason, unmapped};
use crate::snapshot::Snapshot;

/// A connection that may be served.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Between whom it is
    pub(super) ends: Ends,
    /// What a balancer said of it besides
    pub(super) proxied: Option<Arc<Proxied>>,
    /// Its place among those of its address, where they are counted
    pub(super) member: Option<Member>,
}

/// Why a connection is not served.
enum Refusal {
    /// Nothing has arrived, or nobody is left
    Gone,
    /// To be counted; the text is for a person
    Refused(Reason, &'static str),
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Malformed> for Refusal {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Refused(Reason::ProxyHeader, why)
    }
}

/// Finds out who has connected and gives the connection its place; what has none is counted and closed.
pub(super) async fn admit(
    tcp: &mut TcpStream,
    (peer, local): (SocketAddr, SocketAddr),
    spec: &Listener,
    snapshot: &Snapshot,
    listening: &Listening,
) -> Option<Arrival> {
    let peer = plain(peer);
    let ends = Ends { peer, source: peer, local: plain(local) };
    let mut arrival = Arrival { ends, proxied: None, member: None };
    let judged = match spec.proxy_protocol {
        ProxyProtocol::Off => Ok(()),
        ProxyProtocol::Required => arrival.introduce(tcp, spec, snapshot, listening).await,
    };
    match judged.and_then(|()| arrival.join(snapshot, listening)) {
        Ok(()) => Some(arrival),
        Err(Refusal::Gone) => None,
        Err(Refusal::Refused(reason, why)) => {
            log::debug!("listener {}: a connection of {peer} is closed ({}): {why}", listening.name, reason.name());
            listening.metrics.refuse(reason);
            // A goodbye would keep something of it in the kernel until the other end answers, which it need not.
            let _ = tcp.set_zero_linger();
            None
        }
    }
}

impl Arrival {
    /// Reads the header of the balancer. From anybody else not one byte is read.
    async fn introduce(
        &mut self,
        tcp: &mut TcpStream,
        spec: &Listener,
        snapshot: &Snapshot,
        listening: &Listening,
    ) -> Result<(), Refusal> {
        if !snapshot.trusted.contains(self.ends.peer.ip()) {
            return Err(Refusal::Refused(Reason::ProxyUntrusted, "it is no trusted proxy"));
        }
        let late = Refusal::Refused(Reason::ProxyHeader, "the PROXY header took too long");
        let header = timeout(spec.header_timeout, receive(tcp)).await.map_err(|_| late)??;
        log::trace!("listener {}: {} says {header:?}", listening.name, self.ends.peer);
        if let Some(ends) = header.ends {
            self.ends.source = plain(ends.source);
            self.ends.local = plain(ends.destination);
        }
        self.proxied = Some(Arc::new(Proxied {
            version: header.version,
            encrypted: header.encrypted,
            authority: header.authority,
            unique_id: header.unique_id,
        }));
        Ok(())
    }

    /// Takes a place among the connections of its address, which must not come too fast. A proxy that is trusted speaks
    /// for many.
    fn join(&mut self, snapshot: &Snapshot, listening: &Listening) -> Result<(), Refusal> {
        let address = self.ends.source.ip();
        let most = snapshot.config.server.max_connections_per_address;
        if most.is_none() && snapshot.flood.is_none() || snapshot.trusted.contains(address) {
            return Ok(());
        }
        if let Some(flood) = &snapshot.flood
            && !flood.enter(address, Instant::now())
        {
            listening.metrics.rate_limited();
            return Err(Refusal::Refused(Reason::ConnectionRate, "its address connects too fast"));
        }
        let Some(most) = most else { return Ok(()) };
        let full = Refusal::Refused(Reason::TooManyConnections, "its address has as many as it may have");
        self.member = Some(listening.crowd.join(address, most).ok_or(full)?);
        Ok(())
    }
}

/// Reads a header and nothing behind it: that belongs to the TLS handshake or to the first request. So bytes are looked
/// at first, and then only those are taken that belong to the header.
async fn receive(tcp: &mut TcpStream) -> Result<Header, Refusal> {
    let mut buffer = vec![0; MAX_HEADER];
    let mut taken = 0;
    loop {
        let seen = taken + tcp.peek(&mut buffer[taken..]).await?;
        if seen == taken {
            return Err(match taken {
                // Many balancers look whether somebody listens, and leave.
                0 => Refusal::Gone,
                _ => Refusal::Refused(Reason::ProxyHeader, "the PROXY header broke off"),
            });
        }
        let found = proxy_protocol::parse(&buffer[..seen])?;
        let end = found.as_ref().map_or(seen, |(_, len)| *len);
        tcp.read_exact(&mut buffer[taken..end]).await?;
        taken = end;
        if let Some((header, _)) = found {
            return Ok(header);
        }
    }
}

/// An IPv4 address in IPv6 clothes is an IPv4 address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(unmapped(address.ip()), address.port())
}
