//! Connections to HTTP/1 upstreams: Pingora's own, each as a stream of ours, and kept by us.

use std::mem::ManuallyDrop;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora_core::connectors::http::custom::{self, Connection};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CustomALPN;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::{Peer, PeerOptions};
use pingora_error::Result;
use pingora_proxy::{HttpProxy, ProxyServiceBuilder};

use super::Budget;
use super::pool::{Home, Pool};
use super::stream::{Counted, Wire};
use crate::proxy::Proxy;

/// By this Pingora knows that a connection is made by our connector. It is never said on the wire.
static OURS: LazyLock<ALPN> = LazyLock::new(|| ALPN::Custom(CustomALPN::new(b"tollgate".to_vec())));

/// Makes a peer of HTTP/1 one that is reached through [`Connector`].
pub(in crate::proxy) fn speak_http1(options: &mut PeerOptions) {
    if matches!(options.alpn, ALPN::H1) {
        options.alpn = OURS.clone();
    }
}

/// Connects where Pingora would, unless a connection to the same peer rests. Pingora's own pool stays empty.
pub struct Connector {
    transport: TransportConnector,
    budget: Arc<Budget>,
    pool: Arc<Pool>,
}

impl Connector {
    /// That of one of so many workers.
    pub fn of_one(workers: usize, conf: &ServerConf) -> Self {
        Self {
            transport: TransportConnector::new(Some(ConnectorOptions::from_server_conf(conf))),
            budget: Budget::of_one(workers),
            pool: Pool::new(conf.upstream_keepalive_pool_size),
        }
    }

    async fn connect(&self, mut peer: impl Peer + Send + Sync + 'static) -> Result<Box<Wire>> {
        if let Some(options) = peer.get_mut_peer_options() {
            options.alpn = ALPN::H1;
        }
        let stream = self.transport.new_stream(&peer).await?;
        Ok(Wire::new(stream, peer.address().clone(), Arc::clone(&self.budget)))
    }

    /// The proxy that connects by it.
    pub fn proxy(self, conf: &Arc<ServerConf>, proxy: Proxy) -> HttpProxy<Proxy, Self> {
        // Nothing that listens is Pingora's, so no connection ever comes there.
        let nobody = Arc::new(|_, _, _: &_| std::future::ready(None).boxed());
        let service = ProxyServiceBuilder::new(conf, proxy).custom(self, nobody).build();
        let mut service = ManuallyDrop::new(service);
        let made = service.app_logic_mut().expect("it has not been started");
        #[expect(
            unsafe_code,
            reason = "Pingora makes a proxy with a connector only inside of a service, and gives away a reference alone"
        )]
        // SAFETY: the proxy is moved out of a service that is neither used nor dropped afterwards.
        unsafe {
            std::ptr::read(made)
        }
    }
}

#[async_trait]
impl custom::Connector for Connector {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(&self, peer: &P) -> Result<(Connection<()>, bool)> {
        let home = Home { pool: Arc::clone(&self.pool), key: peer.reuse_hash(), keep: peer.idle_timeout() };
        let rested = self.pool.take(home.key, peer.address());
        let reused = rested.is_some();
        let wire = match rested {
            Some(wire) => wire,
            // Apart: connecting takes nine kilobytes, which every request would be made room for.
            None => Box::pin(self.connect(peer.clone())).await?,
        };
        Ok((Connection::Stream(Box::new(Counted::new(wire, home))), reused))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _: &P) -> Option<()> {
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(&self, (): (), _: &P, _: Option<Duration>) {}
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::HttpPeer;

    use super::*;

    #[test]
    fn who_finds_a_connection_makes_no_room_for_connecting() {
        let connector = Connector::of_one(1, &ServerConf::default());
        let peer = HttpPeer::new(("127.0.0.1", 1), false, String::new());
        let found = custom::Connector::get_http_session(&connector, &peer);
        assert!(size_of_val(&*found) <= 256, "it is copied for every request");
    }
}
