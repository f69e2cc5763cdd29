//! Handshakes of TLS 1.3, full or resumed, one after another on a connection each.
//!
//! Every proxy is asked for the same: X25519 and AES-128-GCM. That the client does not verify what it is shown leaves
//! more of its core for more handshakes; the proxy proves itself all the same.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme};

use super::{PATIENCE, Tally, p99};
use crate::compare::Failure;
use crate::compare::ground::NAME;

/// Hands that shake at the same time.
const HANDS: usize = 16;

/// One handshake of so many may be of another kind: the floor remembers few sessions, and forgets one now and then that
/// somebody would have resumed.
const MOST_OTHERS: usize = 100;

/// Clients that are ready.
pub(super) struct Hands {
    addr: SocketAddr,
    kind: HandshakeKind,
    /// One each: a ticket is used once
    configs: Vec<Arc<ClientConfig>>,
}

impl Hands {
    /// Makes clients, and gives them tickets if they are to resume.
    pub(super) fn prepare(addr: SocketAddr, resumed: bool) -> Result<Self, Failure> {
        let kind = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
        let configs = (0..HANDS).map(|_| config(resumed).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        for config in configs.iter().filter(|_| resumed) {
            shake(addr, config)?;
        }
        Ok(Self { addr, kind, configs })
    }

    /// Shakes for so long.
    pub(super) fn shake(self, time: Duration) -> Result<Tally, Failure> {
        let deadline = Instant::now() + time;
        let threads: Vec<_> = self
            .configs
            .into_iter()
            .map(|config| thread::spawn(move || hand(self.addr, &config, self.kind, deadline)))
            .collect();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().map_err(|_| "a client has panicked")??);
        }
        Ok(Tally { count: times.len() as u64, p99_micros: p99(times) })
    }
}

fn hand(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
    expected: HandshakeKind,
    deadline: Instant,
) -> Result<Vec<f64>, String> {
    let (mut times, mut others) = (Vec::new(), 0);
    while Instant::now() < deadline {
        let (kind, time) = shake(addr, config).map_err(|error| error.to_string())?;
        if kind == expected {
            times.push(time.as_secs_f64() * 1e6);
        } else {
            others += 1;
        }
    }
    if others > times.len() / MOST_OTHERS {
        return Err(format!("{others} handshakes beside {} were not {expected:?}", times.len()));
    }
    Ok(times)
}

/// One connection: the handshake, goodbye, and what the other end says until it closes (tickets).
fn shake(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<(HandshakeKind, Duration), Failure> {
    let began = Instant::now();
    let mut socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let time = began.elapsed();
    connection.send_close_notify();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    std::io::Write::flush(&mut stream)?;
    // Some close without a goodbye of their own.
    let _ = stream.read(&mut [0]);
    let kind = connection.handshake_kind().ok_or("no handshake")?;
    Ok((kind, time))
}

pub(super) fn config(resumed: bool) -> Result<ClientConfig, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    config.resumption = if resumed { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Believes everybody: the other end is our own.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
