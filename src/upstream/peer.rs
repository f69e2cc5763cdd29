//! The peer of an upstream, built once so that a request only copies it.
//!
//! Everything Pingora leaves open is decided here: timeouts (all are off by default), TLS, pooling, protocol.

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, PeerOptions};
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::address::Address;
use crate::config::{self, FileContent, Problem, UpstreamProtocol, UpstreamTls};

/// Requests at once on one h2 connection; what an upstream allows by its SETTINGS may be less.
const H2_STREAMS: u32 = 100;
/// What a stream may send ahead of its reader. Pingora's default of 8 MiB lets a client that stops reading hold as much.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
/// TCP keep-alive finds the host that is gone under a pooled or long-lived connection. It stands in for h2 pings, which
/// gRPC servers answer with GOAWAY (too_many_pings) when they come more often than every five minutes.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};

/// The peer without its address.
pub(super) fn template(name: &str, spec: &config::Upstream) -> Result<HttpPeer, Problem> {
    let server_name = spec.tls.as_ref().map(server_name).transpose()?;
    // A socket address, never a name: Pingora would look a name up here, blocking, and panic if there is none.
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut peer = HttpPeer::new(nowhere, server_name.is_some(), server_name.unwrap_or_default());
    peer.group_key = trust_domain(name, spec.tls.as_ref());
    peer.options.ca = spec.tls.as_ref().and_then(|tls| tls.ca.as_ref()).map(authorities).transpose()?;
    peer.client_cert_key = spec.tls.as_ref().and_then(|tls| tls.client.as_ref()).map(identity).transpose()?;
    set_protocol(&mut peer.options, spec)?;
    set_timeouts(&mut peer.options, &spec.timeouts);
    peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
    // Hop-by-hop fields and those named by Connection stay behind (RFC 9110 section 7.6.1); of upgrades, WebSocket
    // alone goes through.
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
    Ok(peer)
}

/// The peer at `address`, which [`check_path`] has seen if it is a Unix socket.
pub(super) fn at(template: &HttpPeer, address: &Address) -> HttpPeer {
    let mut peer = template.clone();
    peer._address = match address {
        Address::Socket(addr) => PeerAddr::Inet(*addr),
        Address::Unix(path) => {
            PeerAddr::Unix(UnixAddr::from_pathname(path).expect("checked when the upstream was built"))
        }
    };
    peer
}

/// Whether a Unix socket can be at `path`: its length is limited.
pub(super) fn check_path(path: &Path) -> Result<(), String> {
    UnixAddr::from_pathname(path).map(drop).map_err(|error| format!("{} cannot be a socket: {error}", path.display()))
}

fn set_protocol(options: &mut PeerOptions, spec: &config::Upstream) -> Result<(), Problem> {
    let h2 = match (spec.protocol, &spec.tls) {
        (UpstreamProtocol::Http1, _) => false,
        (UpstreamProtocol::Http2, Some(_)) | (UpstreamProtocol::Http2Cleartext, None) => true,
        (UpstreamProtocol::Http2, None) => {
            return Err(Problem::new("protocol", "h2 needs `tls`; without TLS write \"h2c\""));
        }
        (UpstreamProtocol::Http2Cleartext, Some(_)) => {
            return Err(Problem::new("protocol", "h2c is h2 without TLS; with `tls` write \"h2\""));
        }
    };
    if h2 {
        // Nothing below 2: without TLS there is no negotiation, and with it the upstream said what it speaks.
        options.set_http_version(2, 2);
        options.max_h2_streams = H2_STREAMS as usize;
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        // Room for every stream to stall at once, so that one slow client never stops the others on its connection.
        options.h2_connection_window_size = Some(H2_STREAM_WINDOW * H2_STREAMS);
    } else {
        options.set_http_version(1, 1);
    }
    Ok(())
}

/// Pingora has one read timeout for every read: the wait for the head and each wait within the body. It is set to the
/// longer of `first_byte` and `idle`, so that it never cuts what the operator allowed; where they differ, the shorter
/// is the caller's to keep. For a request that asks for a stream the caller raises it to the route's `stream_idle`.
fn set_timeouts(options: &mut PeerOptions, timeouts: &config::Timeouts) {
    // For TCP, and once more for TLS, so that the two can be told apart.
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect * 2);
    options.read_timeout = Some(timeouts.first_byte.max(timeouts.idle));
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(timeouts.keepalive);
}

/// Keeps pooled connections apart: Pingora's key for them leaves the authorities out, so that a connection verified
/// by one could serve a peer that trusts another.
fn trust_domain(name: &str, tls: Option<&UpstreamTls>) -> u64 {
    let mut digest = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(name.as_bytes());
    add(tls.and_then(|tls| tls.ca.as_ref()).map_or(&[], |ca| ca.content.expose()));
    add(tls.and_then(|tls| tls.client.as_ref()).map_or(&[], |client| client.cert.content.expose()));
    let digest = digest.finish();
    digest.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// Never empty: Pingora takes an empty one to mean that nothing shall be verified.
fn server_name(tls: &UpstreamTls) -> Result<String, Problem> {
    match ServerName::try_from(tls.server_name.as_str()) {
        Ok(_) => Ok(tls.server_name.clone()),
        Err(_) => Err(Problem::new("tls.server_name", "not a name or an address that a certificate can be for")),
    }
}

fn authorities(file: &FileContent) -> Result<Arc<CaType>, Problem> {
    let path = "tls.ca_file";
    let mut store = RootCertStore::empty();
    let mut parsed = Vec::new();
    for certificate in certificates(file, path)? {
        store.add(certificate.clone()).map_err(|error| {
            Problem::new(path, format!("{} holds a certificate that cannot be trusted: {error}", file.path.display()))
        })?;
        parsed.push(WrappedX509::new(certificate.to_vec(), parse_x509));
    }
    Ok(parsed.into())
}

fn identity(client: &config::Certificate) -> Result<Arc<CertKey>, Problem> {
    let chain = certificates(&client.cert, "tls.client_cert_file")?;
    let shown = client.key.path.display();
    let key = PrivateKeyDer::from_pem_slice(client.key.content.expose())
        .map_err(|_| Problem::new("tls.client_key_file", format!("{shown} holds no private key in PEM")))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // What Pingora does at each connection, done once now: a key that does not fit is a problem, not an outage.
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_root_certificates(RootCertStore::empty()).with_client_auth_cert(chain.clone(), key.clone_key())
        })
        .map_err(|error| {
            Problem::new("tls.client_key_file", format!("{shown} does not go with the certificate: {error}"))
        })?;
    let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
    Ok(Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
}

/// At least one certificate, each of which Pingora's parser takes: it panics on those it does not.
fn certificates(file: &FileContent, path: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let shown = file.path.display();
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.content.expose()).collect();
    let found = found.map_err(|error| Problem::new(path, format!("{shown} is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(Problem::new(path, format!("{shown} holds no certificate in PEM")));
    }
    for certificate in &found {
        X509Certificate::from_der(certificate)
            .map_err(|error| Problem::new(path, format!("{shown} holds a broken certificate: {error}")))?;
    }
    Ok(found)
}
