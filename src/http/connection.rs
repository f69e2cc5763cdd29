//! What a request may know of the connection it came on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::HeaderValue;

use super::{ClientCertificate, Deadline, Window};
use crate::config::Name;

/// One client connection, shared between the listener that owns the socket and the requests on it.
#[derive(Debug)]
pub struct Connection {
    /// The listener it arrived at
    pub listener: Name,
    /// The other end; IPv4-mapped IPv6 is IPv4
    pub peer: SocketAddr,
    /// Whom it is from: the other end, or whom a trusted balancer names there (PROXY protocol)
    pub source: SocketAddr,
    /// Our end; behind a balancer that says so, its end
    pub local: SocketAddr,
    /// What a balancer said of it besides
    pub proxied: Option<Arc<Proxied>>,
    /// Requests come by HTTP/2
    pub http2: bool,
    /// Present when the connection is encrypted
    pub tls: Option<TlsFacts>,
    /// When reading and writing give up. For HTTP/1, where a connection is one request at a time.
    pub deadline: Arc<Deadline>,
    source_value: HeaderValue,
    port_value: HeaderValue,
    /// Pieces of responses by HTTP/2 that the client has not taken yet
    pub untaken: AtomicUsize,
    /// What those streams begin with
    pub window: Window,
    aborted: AtomicBool,
    ends_with_client: AtomicBool,
}

/// Between whom a connection is.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The other end of the socket
    pub peer: SocketAddr,
    /// The other end, or whom a balancer names there
    pub source: SocketAddr,
    /// Our end, or where a balancer says that it was sent to
    pub local: SocketAddr,
}

/// What a PROXY header said of a connection, its ends apart.
#[derive(Debug)]
pub struct Proxied {
    /// 1 or 2
    pub version: u8,
    /// The client's connection to the balancer was encrypted
    pub encrypted: bool,
    /// The host that the client asked the balancer for
    pub authority: Option<String>,
    /// What the balancer calls the connection
    pub unique_id: Option<Box<[u8]>>,
}

/// What the TLS handshake settled.
#[derive(Debug)]
pub struct TlsFacts {
    /// `1.2` or `1.3`
    pub version: &'static str,
    /// The cipher suite's registered name
    pub cipher: &'static str,
    /// The name the client asked for, lower case
    pub sni: Option<String>,
    /// The protocol ALPN chose is h2
    pub http2: bool,
    /// Names of the certificate that was shown: `host` or `*.host`, lower case
    pub names: Arc<[String]>,
    /// Who the client has shown to be, where the listener asks for that
    pub client: Option<ClientCertificate>,
}

impl TlsFacts {
    /// Whether the certificate that was shown covers `host` (RFC 9110 section 7.4, RFC 6125 section 6.4.3).
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => name == host,
        })
    }
}

impl Connection {
    /// A connection that was accepted just now.
    pub fn new(listener: Name, ends: Ends, proxied: Option<Arc<Proxied>>, tls: Option<TlsFacts>) -> Self {
        let Ends { peer, source, local } = ends;
        Self {
            listener,
            peer,
            source,
            local,
            proxied,
            http2: tls.as_ref().is_some_and(|tls| tls.http2),
            tls,
            deadline: Arc::default(),
            source_value: address_value(source.ip()),
            port_value: local.port().into(),
            untaken: AtomicUsize::new(0),
            window: Window::default(),
            aborted: AtomicBool::new(false),
            ends_with_client: AtomicBool::new(false),
        }
    }

    /// Whether the client's connection is encrypted, up to us or up to the balancer that speaks for it.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some() || self.proxied.as_ref().is_some_and(|proxied| proxied.encrypted)
    }

    /// The address it is from as a header says it: written once for all requests.
    pub fn source_value(&self) -> &HeaderValue {
        &self.source_value
    }

    /// The port of our end as a header says it.
    pub fn port_value(&self) -> &HeaderValue {
        &self.port_value
    }

    /// The response broke off: close so that the client cannot take what it has for the whole.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::abort`] was called.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Whether the current exchange is over when the client half-closes. Most clients that do still want their answer;
    /// one that takes a stream without end has left.
    pub fn end_with_client(&self, so: bool) {
        self.ends_with_client.store(so, Ordering::Relaxed);
    }

    /// What [`Self::end_with_client`] said.
    pub fn ends_with_client(&self) -> bool {
        self.ends_with_client.load(Ordering::Relaxed)
    }
}

/// An address as a header says it.
pub fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("addresses are visible ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        let facts = TlsFacts {
            version: "1.3",
            cipher: "",
            sni: None,
            http2: false,
            names: ["a.example".to_owned(), "*.b.example".to_owned()].into(),
            client: None,
        };
        assert!(facts.covers("a.example"));
        assert!(facts.covers("x.b.example"));
        assert!(!facts.covers("b.example"));
        assert!(!facts.covers("x.y.b.example"));
        assert!(!facts.covers(".b.example"));
        assert!(!facts.covers("x.a.example"));
    }

    proptest! {
        #[test]
        fn every_address_is_a_header_value(bits in any::<u128>(), v4 in any::<u32>()) {
            let v6 = IpAddr::from(std::net::Ipv6Addr::from(bits));
            prop_assert_eq!(address_value(v6), v6.to_string());
            let v4 = IpAddr::from(std::net::Ipv4Addr::from(v4));
            prop_assert_eq!(address_value(v4), v4.to_string());
        }
    }
}
