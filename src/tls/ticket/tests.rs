//! Keys that turn, tickets that fit one listener, and what rustls writes into them.

use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::*;
use crate::config::{ClientAuth, FileContent, Secret};

const BEGIN: u64 = 1_700_000_000;
const SESSION: &[u8] = b"a session";

/// `hours` after the beginning.
fn hours(hours: u64) -> u64 {
    BEGIN + hours * 60 * 60
}

fn sealed(keys: &TicketKeys, now: u64) -> Vec<u8> {
    keys.seal(b"context", SESSION, now).expect("sealed")
}

fn opens(keys: &TicketKeys, ticket: &[u8], now: u64) -> bool {
    keys.open(b"context", ticket, now).is_some_and(|session| session == SESSION)
}

#[test]
fn a_ticket_opens_with_the_current_key_and_the_one_before_and_no_other() {
    let keys = TicketKeys::new();
    let first = sealed(&keys, hours(0));
    let late = sealed(&keys, hours(5));
    assert_eq!(first[..NAME_LEN], late[..NAME_LEN], "the same key for six hours");
    let second = sealed(&keys, hours(6));
    assert_ne!(first[..NAME_LEN], second[..NAME_LEN]);
    assert!(opens(&keys, &first, hours(6)) && opens(&keys, &late, hours(11)) && opens(&keys, &second, hours(11)));
    assert!(!opens(&keys, &late, hours(12)), "the key before the one before");
    assert!(opens(&keys, &second, hours(12)));
    assert!(!opens(&keys, &second, hours(18)));
}

#[test]
fn a_key_that_nobody_turned_in_time_opens_nothing() {
    let keys = TicketKeys::new();
    let ticket = sealed(&keys, hours(0));
    assert!(!opens(&keys, &ticket, hours(12)));
    let ticket = sealed(&keys, hours(30));
    sealed(&keys, hours(41));
    assert!(!opens(&keys, &ticket, hours(42)), "turned late, it is no younger for that");
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_a_key_for_ever() {
    let keys = TicketKeys::new();
    let ticket = sealed(&keys, hours(1000));
    assert!(opens(&keys, &ticket, hours(999)), "a little is no matter");
    let other = sealed(&keys, hours(10));
    assert_ne!(ticket[..NAME_LEN], other[..NAME_LEN]);
    assert!(!opens(&keys, &ticket, hours(10)));
}

#[test]
fn a_ticket_that_was_changed_anywhere_or_cut_does_not_open() {
    let keys = TicketKeys::new();
    let ticket = sealed(&keys, BEGIN);
    for at in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        assert!(!opens(&keys, &changed, BEGIN), "byte {at}");
        assert!(!opens(&keys, &ticket[..at], BEGIN), "the first {at} bytes");
    }
    assert!(!opens(&keys, &[&ticket[..], &[0]].concat(), BEGIN));
    assert!(opens(&keys, &ticket, BEGIN));
    assert!(!opens(&TicketKeys::new(), &ticket, BEGIN), "with keys of its own");
}

#[test]
fn a_session_too_large_for_a_ticket_gets_none() {
    let keys = TicketKeys::new();
    assert!(keys.seal(b"", &[0; MAX_TICKET], BEGIN).is_none());
    assert!(keys.open(b"", &[0; MAX_TICKET + 1], BEGIN).is_none());
}

#[test]
fn a_successor_opens_what_its_predecessor_has_sealed() {
    let keys = TicketKeys::new();
    let old = sealed(&keys, now() - 7 * 60 * 60);
    let new = sealed(&keys, now());
    let successor = TicketKeys::inherited(keys.export());
    assert!(opens(&successor, &old, now()) && opens(&successor, &new, now()));
    assert!(opens(&keys, &sealed(&successor, now()), now()), "and goes on with the same key");
    let unused = TicketKeys::new();
    let successor = TicketKeys::inherited(unused.export());
    assert!(opens(&successor, &sealed(&unused, now()), now()), "whoever has sealed nothing yet may still do so");
}

#[test]
fn keys_are_shown_to_nobody() {
    let keys = Arc::new(TicketKeys::new());
    let exported = keys.export();
    let shown = format!("{keys:?} {exported:?} {:?}", Ticketer::new(&keys, "https", None));
    assert!(shown.contains("TicketKeys(***)") && shown.contains("TicketKey(***)"), "{shown}");
    let secret: Vec<_> = exported[0].secret.iter().map(u8::to_string).collect();
    assert!(!shown.contains(&secret[..4].join(", ")), "{shown}");
}

#[test]
fn a_ticket_is_for_the_listener_that_made_it_and_for_what_that_asked() {
    let keys = Arc::new(TicketKeys::new());
    let clients = |ca: &str, is_required| {
        let ca = FileContent { path: "ca.pem".into(), content: Secret::new(ca.as_bytes()) };
        ClientAuth { ca, is_required, headers: Vec::new() }
    };
    let (optional, required, other) = (clients("one", false), clients("one", true), clients("two", true));
    let makers = [
        Ticketer::new(&keys, "https", None),
        Ticketer::new(&keys, "other", None),
        Ticketer::new(&keys, "https", Some(&optional)),
        Ticketer::new(&keys, "https", Some(&required)),
        Ticketer::new(&keys, "https", Some(&other)),
    ];
    for (at, maker) in makers.iter().enumerate() {
        let ticket = maker.encrypt(SESSION).expect("sealed");
        let openers: Vec<_> = (0..makers.len()).filter(|at| makers[*at].decrypt(&ticket).is_some()).collect();
        assert_eq!(openers, [at]);
    }
    let again = Ticketer::new(&keys, "https", Some(&required));
    assert!(again.decrypt(&makers[3].encrypt(SESSION).expect("sealed")).is_some(), "after a reload");
}

/// Remembers what it was given to seal.
#[derive(Debug)]
struct Witness(Mutex<Vec<u8>>);

impl ProducesTickets for Witness {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        1
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        *self.0.lock() = plain.to_vec();
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// What is written into tickets is rustls' own affair, and it may change with any version. When this fails, raise
/// `FORMAT`, and write down here what is written now.
#[test]
fn what_rustls_writes_into_a_ticket_is_what_the_format_was_numbered_for() -> Result<(), Box<dyn std::error::Error>> {
    let Generated { cert, signing_key } = generate_simple_self_signed(vec!["a.test".to_owned()])?;
    let (provider, witness) = (Arc::new(default_provider()), Arc::new(Witness(Mutex::default())));
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(signing_key.serialize_der())?)?;
    server.ticketer = Arc::clone(&witness) as Arc<_>;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client =
        ClientConnection::new_with_alpn(Arc::new(client), ServerName::try_from("a.test")?, vec![b"h2".to_vec()])?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire)?;
        let mut read = wire.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read)?;
        }
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire)?;
        let mut read = wire.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read)?;
        }
        client.process_new_packets()?;
    }
    let session = witness.0.lock().clone();
    let suite = server.negotiated_cipher_suite().ok_or("settled")?;
    let secret = suite.tls13().ok_or("settled")?.common.hash_provider.output_len();
    let [high, low] = u16::from(suite.suite()).to_be_bytes();
    let head = [&[1, 6][..], b"a.test", &[3, 4, high, low, u8::try_from(secret)?]].concat();
    assert_eq!(session[..head.len()], head, "server name, version, cipher");
    // Extended master secret, no client certificate, ALPN, no data of ours.
    let tail = [0, 0, 1, 2, b'h', b'2', 0, 0];
    let begin = head.len() + secret;
    assert_eq!(session[begin..begin + tail.len()], tail);
    // Seconds, and what the age is masked with.
    assert_eq!(session.len(), begin + tail.len() + 8 + 4);
    let made = u64::from_be_bytes(session[begin + tail.len()..][..8].try_into()?);
    assert!(made.abs_diff(now()) < 60);
    Ok(())
}
