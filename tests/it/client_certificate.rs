//! Who the client is by its certificate, and who is told.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::SanType;
use rustls::ProtocolVersion;

use crate::support::certs::{Ca, Identity};
use crate::support::h2::H2Client;
use crate::support::origin;
use crate::support::visit::Visitor;
use crate::support::{Origin, Raw, Request, Tollgate, wait};

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2];
const SUBJECT: &str = "O=Example,CN=Alice\\, of Orders";
const SAN: &str = "DNS:alice.test,URI:spiffe://example/alice,email:alice@example.test,IP:10.0.0.1";
const HEADERS: &str = "client_cert_headers = { x-client-subject = \"subject\", x-client-san = \"san\", \
     x-client-fingerprint = \"fingerprint\", x-client-serial = \"serial\", x-client-end = \"not_after\", \
     x-client-cert = \"pem\", client-cert = \"rfc9440\" }";
const NAMES: [&str; 7] = [
    "x-client-subject",
    "x-client-san",
    "x-client-fingerprint",
    "x-client-serial",
    "x-client-end",
    "x-client-cert",
    "client-cert",
];
/// 2040-01-01T00:00:00Z
const LATER: u64 = 2_208_988_800;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn alice(ca: &Ca, until: u64) -> Identity {
    let text = |text: &str| text.try_into().expect("ASCII");
    let names = [
        SanType::DnsName(text("alice.test")),
        SanType::URI(text("spiffe://example/alice")),
        SanType::Rfc822Name(text("alice@example.test")),
        SanType::IpAddress("10.0.0.1".parse().expect("an address")),
    ];
    ca.client_until(&names, until)
}

#[track_caller]
fn last(origin: &Origin) -> origin::Request {
    origin.requests().pop().expect("a request")
}

/// A listener `https` that asks for certificates of `ca`, and one without TLS, before `origin`.
fn gateway(ca: &Ca, origin: &Origin, tls: &str, rest: &str) -> Tollgate {
    let identity = ca.server(&["gateway.test"]);
    let text = format!(
        "[listeners.http]\n[listeners.https]\n[listeners.https.tls]\n\
         certificates = [{{ cert_file = \"gateway.pem\", key_file = \"gateway.key\" }}]\n\
         client_ca_file = \"ca.pem\"\n{tls}\n\
         [upstreams.main]\nendpoints = [\"{}\"]\n[routes.main]\nauth = \"none\"\nupstream = \"main\"\n{rest}",
        origin.addr()
    );
    Tollgate::prepared(&text)
        .file("gateway.pem", &identity.cert)
        .file("gateway.key", &identity.key)
        .file("ca.pem", ca.pem())
        .start()
}

#[test]
fn a_certificate_that_is_required_is_the_way_in() {
    let (ca, stranger) = (Ca::new("an authority"), Ca::new("a stranger"));
    let origin = Origin::replying("in");
    let tollgate = gateway(&ca, &origin, "", "");
    let https = tollgate.addr_of("https");
    for version in VERSIONS {
        for wrong in [
            None,
            Some(stranger.client("alice.test")),
            Some(alice(&ca, now() - 1)),
            // Of the right authority, but for servers.
            Some(ca.server(&["alice.test"])),
        ] {
            let visitor = Visitor::new(&ca, version, wrong.as_ref());
            assert!(visitor.visit(https, &Request::get("/")).is_err());
        }
        let visit = Visitor::new(&ca, version, Some(&alice(&ca, LATER))).visit(https, &Request::get("/"));
        assert_eq!(visit.expect("shaken").response.text(), "in");
    }
    assert_eq!(origin.hits(), 2);
    tollgate
        .wait_for_metric("tollgate_tls_handshake_errors_total{listener=\"https\",kind=\"client_certificate\"}", 8.0);
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"tls_handshake\"}", 8.0);
    for level in ["ERROR", "WARN"] {
        assert!(!tollgate.stderr().contains(level), "{}", tollgate.stderr());
    }
}

#[test]
fn a_certificate_that_is_optional_is_believed_or_refused_but_never_overlooked() {
    let (ca, stranger) = (Ca::new("an authority"), Ca::new("a stranger"));
    let origin = Origin::replying("in");
    let tollgate = gateway(&ca, &origin, &format!("client_auth = \"optional\"\n{HEADERS}"), "");
    let visit = |identity: Option<&Identity>| {
        let visitor = Visitor::new(&ca, ProtocolVersion::TLSv1_3, identity);
        visitor.visit(tollgate.addr_of("https"), &Request::get("/"))
    };
    assert!(visit(Some(&stranger.client("alice.test"))).is_err());
    assert_eq!(visit(None).expect("shaken").response.status(), 200);
    assert!(NAMES.iter().all(|name| !last(&origin).headers.has(name)));
    assert_eq!(visit(Some(&alice(&ca, LATER))).expect("shaken").response.status(), 200);
    assert!(NAMES.iter().all(|name| last(&origin).headers.has(name)));
}

#[test]
fn the_upstream_is_told_what_the_certificate_says() {
    let ca = Ca::new("an authority");
    let origin = Origin::replying("");
    let tollgate = gateway(&ca, &origin, HEADERS, "");
    let me = alice(&ca, LATER);
    let request = Request::get("/").header("x-client-subject", "mallory").header("X_Client_San", "mallory");
    for version in VERSIONS {
        let visitor = Visitor::new(&ca, version, Some(&me));
        for resumed in [false, true] {
            let visit = visitor.visit(tollgate.addr_of("https"), &request).expect("answered");
            assert_eq!((visit.is_resumed(), visit.response.status()), (resumed, 200));
            told(&origin, &me);
        }
    }
    let mut client = H2Client::connect_tls(tollgate.addr_of("https"), "gateway.test", ca.trusting_as(&["h2"], &me));
    for _ in 0..2 {
        client.send(&request).expect(200);
        told(&origin, &me);
    }
    // The name the certificate was shown for holds, whoever the client is.
    assert_eq!(client.send(&Request::get("/").host("other.test")).status(), 421);
}

/// The last request told everything about `me`, and nothing that a client made up.
#[track_caller]
fn told(origin: &Origin, me: &Identity) {
    use base64::Engine as _;
    let request = last(origin);
    let header = |name: &str| request.header(name).unwrap_or_else(|| panic!("{name} in {}", request.text()));
    assert!(!request.text().contains("mallory"), "{}", request.text());
    assert_eq!(header("x-client-subject"), SUBJECT);
    assert_eq!(header("x-client-san"), SAN);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &me.der());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header("x-client-fingerprint"), hex);
    assert_eq!(header("x-client-serial"), "0ab1");
    assert_eq!(header("x-client-end"), "2040-01-01T00:00:00Z");
    let base64 = base64::engine::general_purpose::STANDARD.encode(me.der());
    assert_eq!(header("client-cert"), format!(":{base64}:"));
    let pem = percent_encoding::percent_decode_str(header("x-client-cert")).decode_utf8_lossy();
    assert_eq!(pem.replace('\n', ""), me.cert.replace(['\r', '\n'], ""));
}

#[test]
fn nobody_else_can_set_what_the_upstream_is_told() {
    let ca = Ca::new("an authority");
    let origin = Origin::replying("");
    let rest = "[routes.other]\npath = \"/other\"\nauth = \"none\"\nupstream = \"main\"\nlisteners = [\"http\"]\n";
    let tollgate = gateway(&ca, &origin, HEADERS, &format!("{rest}[server]\nkeep_underscore_headers = true\n"));
    for path in ["/", "/other"] {
        for name in NAMES.iter().flat_map(|name| [(*name).to_owned(), name.replace('-', "_"), name.to_uppercase()]) {
            Request::get(path).to(tollgate.addr_of("http")).header(&name, "mallory").send().expect(200);
            assert!(!last(&origin).text().contains("mallory"), "{name}: {}", last(&origin).text());
        }
    }
    let mut raw = Raw::connect(tollgate.addr_of("http"));
    raw.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-client-subject: mallory\r\n\r\n");
    raw.response().expect(200);
    assert!(!last(&origin).trailers.has("x-client-subject"));
}

#[test]
fn selectors_and_variables_read_the_certificate() {
    let ca = Ca::new("an authority");
    let origin = Origin::replying("");
    let rest = "limits = [\"per_client\"]\n\
         response_headers = { set = { x-you-are = \"{tls.client.subject}\" } }\n\
         request_headers = { set = { x-number = \"no. {tls.client.serial}\" } }\n\
         [limits.per_client]\nrate = \"1/h\"\nkey = [\"tls.client.fingerprint\"]\n\
         [log.access]\nfields = [\"tls.client.subject\", \"tls.client.san\", \"tls.client.not_after\"]\n";
    let tollgate = gateway(&ca, &origin, "client_auth = \"optional\"", rest);
    let ask = |identity: Option<&Identity>| {
        let visitor = Visitor::new(&ca, ProtocolVersion::TLSv1_3, identity);
        visitor.visit(tollgate.addr_of("https"), &Request::get("/")).expect("answered").response
    };
    let (me, other) = (alice(&ca, LATER), alice(&ca, LATER));
    let response = ask(Some(&me)).expect(200);
    assert_eq!(response.header("x-you-are"), Some(SUBJECT));
    assert_eq!(last(&origin).header("x-number"), Some("no. 0ab1"));
    let line = tollgate.logged(&response);
    assert_eq!(line["tls.client.subject"], SUBJECT);
    assert_eq!(line["tls.client.san"], SAN);
    assert_eq!(line["tls.client.not_after"], "2040-01-01T00:00:00Z");
    ask(Some(&me)).expect(429);
    ask(Some(&other)).expect(200);
    let response = ask(None).expect(200);
    assert!(tollgate.logged(&response).get("tls.client.subject").is_none());
    ask(None).expect(429);
    ask(Some(&me)).expect(429);
}

/// rustls itself resumes a session whatever has become of the client's certificate.
#[test]
fn a_certificate_that_has_ended_does_not_live_on_in_a_ticket() {
    let ca = Ca::new("an authority");
    let origin = Origin::replying("");
    let tollgate = gateway(&ca, &origin, "", "");
    let end = now() + 8;
    let visitors = VERSIONS.map(|version| Visitor::new(&ca, version, Some(&alice(&ca, end))));
    let visit = |visitor: &Visitor| visitor.visit(tollgate.addr_of("https"), &Request::get("/"));
    for visitor in &visitors {
        assert!(!visit(visitor).expect("shaken").is_resumed());
        assert!(visit(visitor).expect("shaken").is_resumed());
    }
    for visitor in &visitors {
        wait::until("the certificate to end", || visit(visitor).map(|visit| assert!(visit.is_resumed())).is_err());
        assert!(now() > end);
    }
    tollgate
        .wait_for_metric("tollgate_tls_handshake_errors_total{listener=\"https\",kind=\"client_certificate\"}", 2.0);
}

#[test]
fn an_authority_that_is_none_stops_the_start() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["gateway.test"]);
    for (file, said) in [
        ("", "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not an authority's"),
    ] {
        let output = Tollgate::prepared(
            "[listeners.https.tls]\ncertificates = [{ cert_file = \"gateway.pem\", key_file = \"gateway.key\" }]\n\
             client_ca_file = \"ca.pem\"\n[listeners.https]\n\
             [routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n",
        )
        .file("gateway.pem", &identity.cert)
        .file("gateway.key", &identity.key)
        .file("ca.pem", file)
        .fails_to_start();
        assert!(
            output.stderr.contains("listeners.https.tls.client_ca_file") && output.stderr.contains(said),
            "{output:?}"
        );
    }
}
