//! Who is shown which certificate, and whose certificate is believed.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme};

use crate::support::certs::{Ca, Identity, provider};
use crate::support::h2::{H2Client, H2Origin};
use crate::support::message::{Response, read_response};
use crate::support::tollgate::Prepared;
use crate::support::wire::Wire;
use crate::support::{Client, Origin, Raw, Request, Tollgate, wait};

const BOTH: [&str; 2] = ["h2", "http/1.1"];

/// A listener with these certificates, and a route that answers by itself.
fn showing(certificates: &[(&str, &Identity)], listener: &str) -> Prepared {
    let list: Vec<_> = certificates
        .iter()
        .map(|(name, _)| format!("{{ cert_file = \"{name}.pem\", key_file = \"{name}.key\" }}"))
        .collect();
    let text = format!(
        "[listeners.https]\n[listeners.https.tls]\ncertificates = [{}]\n{listener}\n\
         [routes.main]\nauth = \"none\"\nrespond = {{ body = \"here\" }}\n",
        list.join(", ")
    );
    certificates.iter().fold(Tollgate::prepared(&text), |prepared, (name, identity)| {
        prepared.file(&format!("{name}.pem"), &identity.cert).file(&format!("{name}.key"), &identity.key)
    })
}

/// A client that looks at certificates without believing or refusing any.
#[derive(Debug)]
struct Onlooker;

impl ServerCertVerifier for Onlooker {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn onlooker(protocols: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("the provider's versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// What a handshake has settled.
#[derive(Debug)]
struct Shown {
    certificate: CertificateDer<'static>,
    version: ProtocolVersion,
    protocol: Option<String>,
}

/// Shakes hands for the name `server`; an address sends no name.
fn shake_hands(addr: SocketAddr, server: &str, config: Arc<ClientConfig>) -> io::Result<Shown> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(wait::PATIENCE))?;
    let name = ServerName::try_from(server.to_owned()).expect("a name or an address");
    let mut tls = ClientConnection::new(config, name).expect("a client");
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(Shown {
        certificate: tls.peer_certificates().expect("there is one")[0].clone().into_owned(),
        version: tls.protocol_version().expect("settled"),
        protocol: tls.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
    })
}

#[test]
fn the_certificate_is_chosen_by_name_exact_then_wildcard_then_the_first() {
    let ca = Ca::new("an authority");
    let default = ca.server(&["default.test"]);
    let (exact, wildcard) = (ca.server(&["a.site.test", "b.site.test"]), ca.server(&["*.site.test"]));
    let tollgate =
        showing(&[("default", &default), ("wildcard", &wildcard), ("exact", &exact)], "min_version = \"1.2\"").start();
    for (server, expected) in [
        ("default.test", &default),
        ("a.site.test", &exact),
        ("A.Site.Test", &exact),
        ("b.site.test", &exact),
        ("c.site.test", &wildcard),
        ("x.a.site.test", &default),
        ("site.test", &default),
        ("other.test", &default),
        ("127.0.0.1", &default),
    ] {
        let shown = shake_hands(tollgate.addr(), server, onlooker(&BOTH, &[&TLS13, &TLS12])).expect("shaken");
        assert_eq!(shown.certificate, expected.der(), "{server}");
    }
}

#[test]
fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let ca = Ca::new("an authority");
    let (first, second) = (ca.server(&["a.test", "*.a.test"]), ca.server(&["b.test"]));
    let tollgate = showing(&[("first", &first), ("second", &second)], "").start();
    let ask = |server: &str, host: &str| {
        Request::get("/").host(host).over_tls(tollgate.addr(), server, ca.trusting(&["http/1.1"])).send()
    };
    for (server, host, status) in [
        ("a.test", "a.test", 200),
        ("a.test", "A.test:443", 200),
        ("a.test", "x.a.test", 200),
        ("x.a.test", "a.test", 200),
        ("b.test", "b.test", 200),
        ("a.test", "b.test", 421),
        ("a.test", "x.y.a.test", 421),
        ("b.test", "a.test", 421),
        ("b.test", "127.0.0.1", 421),
    ] {
        let response = ask(server, host);
        assert_eq!(response.status(), status, "{host} on a connection for {server}");
        if status == 421 {
            assert_eq!(response.json()["reason"], "misdirected");
            assert_eq!(tollgate.logged(&response)["reason"], "misdirected");
        }
    }
    let mut client = H2Client::connect_tls(tollgate.addr(), "a.test", ca.trusting(&["h2"]));
    assert_eq!(client.send(&Request::get("/").host("b.test")).status(), 421);
    assert_eq!(client.send(&Request::get("/").host("x.a.test")).status(), 200, "the connection goes on");
    // Who sends no name is shown the first certificate, and has the hosts of that one.
    for (host, status) in [("a.test", 200), ("b.test", 421)] {
        let mut wire = Wire::connect_tls(tollgate.addr(), "127.0.0.1", onlooker(&[], &[&TLS13])).expect("connected");
        wire.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).expect("sent");
        assert_eq!(read_response(&mut wire.reader, "GET").expect("answered").status(), status, "{host}");
    }
}

#[test]
fn the_lowest_version_is_the_operators_choice() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["gateway.test"]);
    let shake = |tollgate: &Tollgate, version| {
        shake_hands(tollgate.addr(), "gateway.test", onlooker(&BOTH, &[version])).map(|shown| shown.version)
    };
    let usual = showing(&[("gateway", &identity)], "").start();
    assert_eq!(shake(&usual, &TLS12).expect("shaken"), ProtocolVersion::TLSv1_2);
    assert_eq!(shake(&usual, &TLS13).expect("shaken"), ProtocolVersion::TLSv1_3);
    let strict = showing(&[("gateway", &identity)], "min_version = \"1.3\"").start();
    assert!(shake(&strict, &TLS12).is_err());
    assert_eq!(shake(&strict, &TLS13).expect("shaken"), ProtocolVersion::TLSv1_3);
    strict.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"tls_handshake\"}", 1.0);
}

#[test]
fn the_protocol_is_settled_in_the_handshake() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["gateway.test"]);
    let settle = |tollgate: &Tollgate, offered: &[&str]| {
        shake_hands(tollgate.addr(), "gateway.test", onlooker(offered, &[&TLS13])).map(|shown| shown.protocol)
    };
    let some = |protocol: &str| Some(protocol.to_owned());
    let both = showing(&[("gateway", &identity)], "").start();
    assert_eq!(settle(&both, &["http/1.1", "h2"]).expect("shaken"), some("h2"), "whatever the client likes best");
    assert_eq!(settle(&both, &["http/1.1"]).expect("shaken"), some("http/1.1"));
    assert_eq!(settle(&both, &[]).expect("shaken"), None);
    assert!(settle(&both, &["spdy/3"]).is_err());
    let ask = |client: &mut Client| client.get("/").text();
    for offered in [&["http/1.1"][..], &[]] {
        let config = ca.trusting(offered);
        assert_eq!(ask(&mut Client::try_connect_tls(both.addr(), "gateway.test", config).expect("connected")), "here");
    }
    let response = H2Client::connect_tls(both.addr(), "gateway.test", ca.trusting(&["h2"])).get("/").expect(200);
    let line = both.logged(&response);
    assert_eq!((&line["proto"], &line["scheme"]), (&"HTTP/2.0".into(), &"https".into()));
    assert_eq!((&line["tls_version"], &line["tls_sni"]), (&"1.3".into(), &"gateway.test".into()));
    assert!(line["tls_cipher"].as_str().is_some_and(|cipher| cipher.contains("AES") || cipher.contains("CHACHA")));
    both.replace("[listeners.https]\n", "[listeners.https]\nprotocols = [\"http/1.1\"]\n");
    both.reload().succeeded();
    assert_eq!(settle(&both, &BOTH).expect("shaken"), some("http/1.1"));
    assert!(settle(&both, &["h2"]).is_err());
}

#[test]
fn a_renewed_certificate_is_for_new_connections_while_the_old_ones_go_on() {
    let ca = Ca::new("an authority");
    let (old, new) = (ca.server(&["gateway.test"]), ca.server(&["gateway.test", "more.test"]));
    let tollgate = showing(&[("gateway", &old)], "").start();
    let mut kept =
        Client::try_connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["http/1.1"])).expect("connected");
    let mut kept_h2 = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    assert_eq!((kept.get("/").text().as_str(), kept_h2.get("/").text().as_str()), ("here", "here"));
    // The same client again, which could resume its session.
    let resuming = onlooker(&BOTH, &[&TLS13]);
    shake_hands(tollgate.addr(), "gateway.test", Arc::clone(&resuming)).expect("shaken");
    new.write(&tollgate.path(""), "gateway");
    let shown = || shake_hands(tollgate.addr(), "gateway.test", onlooker(&BOTH, &[&TLS13])).expect("shaken");
    assert_eq!(shown().certificate, old.der(), "until it is told to");
    tollgate.reload().succeeded();
    assert_eq!(shown().certificate, new.der());
    assert_eq!((kept.get("/").text().as_str(), kept_h2.get("/").text().as_str()), ("here", "here"));
    shake_hands(tollgate.addr(), "gateway.test", resuming).expect("whether resumed or not");
    assert_eq!(kept.send(&Request::get("/").host("more.test")).status(), 421, "that was not on the one it was shown");
    assert!(tollgate.metric("tollgate_certificate_expiry_timestamp_seconds{listener=\"https\"}").is_some());
}

#[test]
fn garbage_instead_of_a_handshake_is_counted_and_no_error() {
    let ca = Ca::new("an authority");
    let tollgate = showing(&[("gateway", &ca.server(&["gateway.test"]))], "").start();
    for garbage in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1], &[0; 600], b"\x80\x2e\x01"]
    {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(garbage).finish_sending();
        drop(raw.rest());
    }
    Raw::connect(tollgate.addr()).reset();
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"tls_handshake\"}", 5.0);
    tollgate.wait_for_metric("tollgate_connections{listener=\"https\"}", 0.0);
    for level in ["ERROR", "WARN"] {
        assert!(!tollgate.stderr().contains(level), "{}", tollgate.stderr());
    }
    assert!(tollgate.access_log().is_empty(), "there was no request");
    let config = ca.trusting(&["http/1.1"]);
    Request::get("/").over_tls(tollgate.addr(), "gateway.test", config).send().expect(200);
}

#[test]
fn a_handshake_that_fails_is_counted_by_what_went_wrong() {
    let (ca, stranger) = (Ca::new("an authority"), Ca::new("a stranger"));
    let tollgate = showing(&[("gateway", &ca.server(&["gateway.test"]))], "min_version = \"1.3\"").start();
    let failed = |kind: &str| format!("tollgate_tls_handshake_errors_total{{listener=\"https\",kind=\"{kind}\"}}");
    // Says nothing, and then half of something.
    let (silent, mut halting) = (Raw::connect(tollgate.addr()), Raw::connect(tollgate.addr()));
    halting.send([0x16, 3, 1, 0, 0x80, 1]);
    let began = Instant::now();
    assert!(shake_hands(tollgate.addr(), "gateway.test", onlooker(&BOTH, &[&TLS12])).is_err());
    tollgate.wait_for_metric(&failed("version"), 1.0);
    assert!(shake_hands(tollgate.addr(), "gateway.test", onlooker(&["spdy/3"], &[&TLS13])).is_err());
    tollgate.wait_for_metric(&failed("incompatible"), 1.0);
    assert!(shake_hands(tollgate.addr(), "gateway.test", stranger.trusting(&BOTH)).is_err());
    tollgate.wait_for_metric(&failed("alert"), 1.0);
    Raw::connect(tollgate.addr()).send("GET / HTTP/1.1\r\n\r\n");
    tollgate.wait_for_metric(&failed("malformed"), 1.0);
    drop(Raw::connect(tollgate.addr()));
    tollgate.wait_for_metric(&failed("closed"), 1.0);
    tollgate.wait_for_metric(&failed("timeout"), 2.0);
    assert!(began.elapsed() >= Duration::from_secs(9), "they have ten seconds");
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"tls_handshake\"}", 7.0);
    assert!(tollgate.metric("tollgate_tls_handshakes_total").is_none());
    drop((silent, halting));
}

#[test]
fn a_listener_can_send_everybody_to_https() {
    let tollgate = Tollgate::with(
        "[listeners.http]\nredirect_to_https = true\n\
         [routes.main]\npath = \"/main\"\nauth = \"none\"\nrespond = { body = \"here\" }\n",
    );
    for (path, location) in [
        ("/main?a=b", "https://a.test/main?a=b"),
        ("/nowhere/../x", "https://a.test/x"),
        ("//evil.test/", "https://a.test/evil.test/"),
    ] {
        for request in [tollgate.get(path), tollgate.post(path, "x")] {
            let response = request.host("A.test:8080").send().expect(308);
            assert_eq!(response.header("location"), Some(location));
            assert_eq!(tollgate.logged(&response)["reason"], "https_required");
        }
    }
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(raw.response().status(), 400, "there is nowhere to go");
}

/// An upstream at `origin` with TLS, by what `tls` says, and the route to it. Handshakes are slow on a busy machine.
fn towards(name: &str, origin: SocketAddr, tls: &str) -> String {
    format!(
        "[upstreams.{name}]\nendpoints = [\"{origin}\"]\n[upstreams.{name}.timeouts]\nconnect = \"20s\"\n\
         [upstreams.{name}.tls]\n{tls}\n\
         [routes.{name}]\npath = \"/{name}\"\nauth = \"none\"\nupstream = \"{name}\"\n"
    )
}

fn secret_behind(identity: &Identity) -> Origin {
    Origin::scripted_tls(identity.serving(&["http/1.1"]), |_, connection| connection.reply(200, &[], "secret"))
}

/// What becomes of a request whose upstream cannot be believed.
#[track_caller]
fn not_believed(tollgate: &Tollgate, response: &Response) {
    assert_eq!((response.status(), &response.json()["reason"]), (502, &"upstream_tls".into()), "{}", response.text());
    assert_eq!(response.header("proxy-status"), Some("tollgate; error=tls_protocol_error; details=\"upstream_tls\""));
    assert_eq!(tollgate.logged(response)["reason"], "upstream_tls");
}

#[test]
fn an_upstream_is_believed_by_its_authority_its_name_and_its_time_alone() {
    let (ca, stranger) = (Ca::new("an authority"), Ca::new("a stranger"));
    let origin = secret_behind(&ca.server(&["orders.test"]));
    let expired = secret_behind(&ca.expired_server(&["orders.test"]));
    let text = [
        towards("right", origin.addr(), "server_name = \"orders.test\"\nca_file = \"ca.pem\""),
        // To the same address after a connection that was believed: it may not be used.
        towards("wrong_ca", origin.addr(), "server_name = \"orders.test\"\nca_file = \"stranger.pem\""),
        towards("wrong_name", origin.addr(), "server_name = \"other.test\"\nca_file = \"ca.pem\""),
        towards("by_address", origin.addr(), "server_name = \"127.0.0.1\"\nca_file = \"ca.pem\""),
        towards("system", origin.addr(), "server_name = \"orders.test\""),
        towards("expired", expired.addr(), "server_name = \"orders.test\"\nca_file = \"ca.pem\""),
    ];
    let tollgate =
        Tollgate::prepared(&text.concat()).file("ca.pem", ca.pem()).file("stranger.pem", stranger.pem()).start();
    for _ in 0..2 {
        assert_eq!(tollgate.get("/right").send().expect(200).text(), "secret");
        for wrong in ["wrong_ca", "wrong_name", "by_address", "system", "expired"] {
            not_believed(&tollgate, &tollgate.get(&format!("/{wrong}")).send());
        }
    }
    assert_eq!((origin.hits(), expired.hits()), (2, 0));
    assert!(
        tollgate.metric("tollgate_upstream_requests_total{upstream=\"wrong_ca\",result=\"tls_failed\"}") > Some(1.0)
    );
    // An authority that changes is another one at once, whatever connections there are.
    std::fs::write(tollgate.path("ca.pem"), stranger.pem()).expect("written");
    tollgate.reload().succeeded();
    not_believed(&tollgate, &tollgate.get("/right").send());
    assert_eq!(origin.hits(), 2);
}

#[test]
fn an_upstream_that_wants_a_certificate_is_shown_one() {
    let (ca, clients) = (Ca::new("an authority"), Ca::new("for clients"));
    let identity = ca.server(&["orders.test"]);
    let origin = Origin::scripted_tls(identity.serving_clients_of(&clients, &["http/1.1"]), |_, connection| {
        connection.reply(200, &[], "secret");
    });
    let (me, nobody) = (clients.client("gateway"), ca.client("gateway"));
    let shown = |name: &str| {
        format!(
            "server_name = \"orders.test\"\nca_file = \"ca.pem\"\n\
             client_cert_file = \"{name}.pem\"\nclient_key_file = \"{name}.key\""
        )
    };
    let text = [
        towards("known", origin.addr(), &shown("me")),
        towards("unknown", origin.addr(), &shown("nobody")),
        towards("silent", origin.addr(), "server_name = \"orders.test\"\nca_file = \"ca.pem\""),
    ];
    let tollgate = Tollgate::prepared(&text.concat())
        .file("ca.pem", ca.pem())
        .file("me.pem", &me.cert)
        .file("me.key", &me.key)
        .file("nobody.pem", &nobody.cert)
        .file("nobody.key", &nobody.key)
        .start();
    assert_eq!(tollgate.get("/known").send().expect(200).text(), "secret");
    for refused in ["/unknown", "/silent"] {
        assert_eq!(tollgate.get(refused).send().status(), 502);
    }
    assert_eq!(origin.hits(), 1);
}

#[test]
fn an_upstream_speaks_what_it_was_said_to_speak() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["orders.test"]);
    let (modern, old) = (H2Origin::echoing_tls(identity.serving(&["h2"])), secret_behind(&identity));
    let tls = "server_name = \"orders.test\"\nca_file = \"ca.pem\"";
    let h2 = |name: &str, addr| {
        towards(name, addr, tls).replace(
            &format!("[upstreams.{name}.timeouts]"),
            &format!("protocol = \"h2\"\n[upstreams.{name}.timeouts]"),
        )
    };
    let text = [h2("modern", modern.addr()), h2("mistaken", old.addr()), towards("old", old.addr(), tls)];
    let tollgate = Tollgate::prepared(&text.concat()).file("ca.pem", ca.pem()).start();
    assert_eq!(tollgate.post("/modern", "over h2").send().expect(200).text(), "over h2");
    assert_eq!(tollgate.get("/old").send().expect(200).text(), "secret");
    let response = tollgate.get("/mistaken").send().expect(502);
    assert!(["upstream_protocol", "upstream_tls"].contains(&response.json()["reason"].as_str().expect("text")));
    assert_eq!((modern.hits(), old.hits()), (1, 1));
}
