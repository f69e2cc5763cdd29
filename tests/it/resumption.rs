//! Sessions that go on with a ticket: over reloads and upgrades, and never where they must not.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection, StreamOwned};

use crate::support::certs::Ca;
use crate::support::message::read_head;
use crate::support::visit::{Visit, Visitor};
use crate::support::{Request, Tollgate, wait};

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2];
const CERTIFICATES: &str = "certificates = [{ cert_file = \"gateway.pem\", key_file = \"gateway.key\" }]\n";
const HERE: &str = "[routes.main]\nauth = \"none\"\nrespond = { body = \"here\" }\n";

/// Listeners by name, each with what its `tls` says besides its certificate, for `gateway.test` and `other.test`.
fn gateway(ca: &Ca, listeners: &[(&str, &str)]) -> Tollgate {
    let sections: Vec<_> = listeners
        .iter()
        .map(|(name, tls)| format!("[listeners.{name}]\n[listeners.{name}.tls]\n{CERTIFICATES}{tls}\n"))
        .collect();
    let identity = ca.server(&["gateway.test", "other.test"]);
    Tollgate::prepared(&format!("{}{HERE}", sections.concat()))
        .file("gateway.pem", &identity.cert)
        .file("gateway.key", &identity.key)
        .file("ca.pem", ca.pem())
        .start()
}

#[track_caller]
fn visit(visitor: &Visitor, tollgate: &Tollgate, listener: &str) -> Visit {
    visitor.visit(tollgate.addr_of(listener), &Request::get("/")).expect("shaken and answered")
}

#[test]
fn a_session_goes_on_with_its_ticket() {
    let ca = Ca::new("an authority");
    let tollgate = gateway(&ca, &[("https", "")]);
    for version in VERSIONS {
        let visitor = Visitor::new(&ca, version, None);
        let visits: Vec<_> = (0..3).map(|_| visit(&visitor, &tollgate, "https")).collect();
        assert_eq!(visits.iter().map(Visit::is_resumed).collect::<Vec<_>>(), [false, true, true], "{version:?}");
        assert!(visits.iter().all(|visit| visit.version == version && visit.response.text() == "here"));
    }
    for (version, resumed, count) in [("1.2", false, 1.0), ("1.2", true, 2.0), ("1.3", false, 1.0), ("1.3", true, 2.0)]
    {
        let series =
            format!("tollgate_tls_handshakes_total{{listener=\"https\",version=\"{version}\",resumed=\"{resumed}\"}}");
        tollgate.wait_for_metric(&series, count);
    }
}

#[test]
fn a_session_survives_reloads_and_a_renewed_certificate() {
    let ca = Ca::new("an authority");
    let tollgate = gateway(&ca, &[("https", "")]);
    for version in VERSIONS {
        let visitor = Visitor::new(&ca, version, None);
        assert!(!visit(&visitor, &tollgate, "https").is_resumed());
        tollgate.reload().succeeded();
        assert!(visit(&visitor, &tollgate, "https").is_resumed(), "{version:?}, after a reload of the same");
        ca.server(&["gateway.test"]).write(&tollgate.path(""), "gateway");
        tollgate.reload().succeeded();
        assert!(visit(&visitor, &tollgate, "https").is_resumed(), "{version:?}, after another certificate");
    }
}

#[test]
fn a_session_survives_an_upgrade_and_the_one_after() {
    let ca = Ca::new("an authority");
    let mut tollgate = gateway(&ca, &[("https", "")]);
    let visitors = VERSIONS.map(|version| Visitor::new(&ca, version, None));
    for visitor in &visitors {
        assert!(!visit(visitor, &tollgate, "https").is_resumed());
    }
    for _ in 0..2 {
        let old = tollgate.pid();
        tollgate.upgrade().succeeded();
        assert_eq!(tollgate.ended(old), 0);
        for visitor in &visitors {
            assert!(visit(visitor, &tollgate, "https").is_resumed());
        }
    }
    assert!(!tollgate.stderr().contains("secret"), "{}", tollgate.stderr());
}

#[test]
fn a_ticket_that_nobody_can_open_means_a_full_handshake() {
    let ca = Ca::new("an authority");
    let (first, second) = (gateway(&ca, &[("https", "")]), gateway(&ca, &[("https", "")]));
    for version in VERSIONS {
        let visitor = Visitor::new(&ca, version, None);
        visit(&visitor, &first, "https");
        let elsewhere = visit(&visitor, &second, "https");
        assert_eq!((elsewhere.is_resumed(), elsewhere.response.status()), (false, 200), "{version:?}");
    }
}

#[test]
fn a_session_is_of_one_listener() {
    let ca = Ca::new("an authority");
    let clients = "client_ca_file = \"ca.pem\"\n";
    let optional = format!("{clients}client_auth = \"optional\"\n");
    let tollgate = gateway(&ca, &[("one", ""), ("two", ""), ("optional", &optional), ("required", clients)]);
    let me = ca.client("me");
    let all = ["one", "two", "optional", "required"];
    for version in VERSIONS {
        for began in all {
            for other in all {
                let visitor = Visitor::new(&ca, version, Some(&me));
                assert!(!visit(&visitor, &tollgate, began).is_resumed());
                let resumed = visit(&visitor, &tollgate, other).is_resumed();
                assert_eq!(resumed, began == other, "{version:?}: from {began} to {other}");
            }
        }
        // A session that began without a certificate opens no door that asks for one.
        for began in ["one", "optional"] {
            let visitor = Visitor::new(&ca, version, None);
            visit(&visitor, &tollgate, began);
            assert!(visitor.visit(tollgate.addr_of("required"), &Request::get("/")).is_err(), "{version:?}");
        }
    }
}

#[test]
fn what_a_listener_asks_of_its_clients_is_asked_anew_when_that_changes() {
    let (ca, stranger) = (Ca::new("an authority"), Ca::new("a stranger"));
    let tollgate = gateway(&ca, &[("https", "client_ca_file = \"ca.pem\"\nclient_auth = \"optional\"\n")]);
    for version in VERSIONS {
        let nobody = Visitor::new(&ca, version, None);
        let known = Visitor::new(&ca, version, Some(&ca.client("me")));
        visit(&nobody, &tollgate, "https");
        visit(&known, &tollgate, "https");
        assert!(visit(&nobody, &tollgate, "https").is_resumed() && visit(&known, &tollgate, "https").is_resumed());
        tollgate.replace("\"optional\"", "\"required\"");
        tollgate.reload().succeeded();
        assert!(nobody.visit(tollgate.addr(), &Request::get("/")).is_err());
        assert!(!visit(&known, &tollgate, "https").is_resumed());
        std::fs::write(tollgate.path("ca.pem"), stranger.pem()).expect("written");
        tollgate.reload().succeeded();
        assert!(known.visit(tollgate.addr(), &Request::get("/")).is_err(), "its authority is believed no more");
        std::fs::write(tollgate.path("ca.pem"), ca.pem()).expect("written");
        tollgate.replace("\"required\"", "\"optional\"");
        tollgate.reload().succeeded();
    }
}

#[test]
fn a_resumed_session_has_the_hosts_of_the_certificate_that_would_be_shown_now() {
    let ca = Ca::new("an authority");
    let tollgate = gateway(&ca, &[("https", "")]);
    let visitor = Visitor::new(&ca, ProtocolVersion::TLSv1_3, None);
    let ask = |host: &str| {
        let visit = visitor.visit_as("gateway.test", tollgate.addr(), &Request::get("/").host(host)).expect("answered");
        (visit.is_resumed(), visit.response.status())
    };
    assert_eq!(ask("other.test"), (false, 200));
    assert_eq!(ask("third.test"), (true, 421));
    ca.server(&["gateway.test"]).write(&tollgate.path(""), "gateway");
    tollgate.reload().succeeded();
    assert_eq!(ask("other.test"), (true, 421));
    assert_eq!(ask("gateway.test"), (true, 200));
}

#[test]
fn a_handshake_is_safe_from_machines_to_come_where_the_client_can_and_works_where_it_cannot() {
    let ca = Ca::new("an authority");
    let tollgate = gateway(&ca, &[("https", "")]);
    for (groups, expected) in [
        (&[X25519MLKEM768, X25519][..], NamedGroup::X25519MLKEM768),
        (&[X25519MLKEM768], NamedGroup::X25519MLKEM768),
        (&[X25519], NamedGroup::X25519),
        (&[SECP256R1], NamedGroup::secp256r1),
    ] {
        let visit = visit(&Visitor::with_groups(&ca, groups), &tollgate, "https");
        assert_eq!((visit.group, visit.kind), (Some(expected), HandshakeKind::Full), "in one round trip");
    }
}

#[test]
fn an_upstream_is_asked_for_the_safest_group_first() {
    let ca = Ca::new("an authority");
    let config = ca.server(&["orders.test"]).serving(&["http/1.1"]);
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let text = format!(
        "[upstreams.main]\nendpoints = [\"{}\"]\n[upstreams.main.tls]\nserver_name = \"orders.test\"\n\
         ca_file = \"ca.pem\"\n[routes.main]\nauth = \"none\"\nupstream = \"main\"\n",
        upstream.local_addr().expect("bound")
    );
    let settled = thread::spawn(move || {
        let (mut socket, _) = upstream.accept()?;
        socket.set_read_timeout(Some(wait::PATIENCE))?;
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let settled = tls.negotiated_key_exchange_group().map(|group| group.name());
        let mut stream = BufReader::new(StreamOwned::new(tls, socket));
        read_head(&mut stream)?;
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok::<_, io::Error>(settled)
    });
    let tollgate = Tollgate::prepared(&text).file("ca.pem", ca.pem()).start();
    tollgate.get("/").send().expect(200);
    let settled = settled.join().expect("no panic").expect("a handshake");
    assert_eq!(settled, Some(NamedGroup::X25519MLKEM768));
}
