//! Several ways of knowing on one route: any of them is enough, each is asked for, and none may be enough too.

use rcgen::SanType;
use rustls::ProtocolVersion;

use super::{jwt, private};
use crate::support::certs::{Ca, Identity};
use crate::support::jwt::{Key, key_set};
use crate::support::visit::Visitor;
use crate::support::{Origin, Request, Tollgate};

const OPEN_TO_NOBODY_TOO: &str =
    "[routes.open]\npath = \"/open\"\nauth = [\"corporate\", \"none\"]\nupstream = \"main\"\n";

#[test]
fn whoever_shows_nothing_passes_as_nobody_and_whoever_shows_something_is_judged_by_it() {
    let key = Key::es256();
    let origin = Origin::replying("in");
    let auth = jwt("corporate", "jwks_file = \"jwks.json\"", "identity_headers = { x-auth-subject = \"sub\" }");
    let text = format!("{auth}{}{OPEN_TO_NOBODY_TOO}", private(&origin, ""));
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
    let seen = || origin.requests().pop().expect("a request").header("x-auth-subject").map(str::to_owned);
    tollgate.get("/open").header("x-auth-subject", "mallory").send().expect(200);
    assert_eq!(seen(), None, "nobody has no name, whatever he says");
    tollgate.get("/open").bearer(&key.token().subject("alice").mint()).send().expect(200);
    assert_eq!(seen().as_deref(), Some("alice"));
    for token in [key.token().expired().mint(), key.token().forged(), "nonsense".to_owned()] {
        tollgate.get("/open").bearer(&token).send().expect(401);
    }
    tollgate.get("/").send().expect(401);
    assert_eq!(origin.hits(), 2);
    let decisions = |result: &str| format!("tollgate_auth_decisions_total{{auth=\"corporate\",result=\"{result}\"}}");
    tollgate.wait_for_metric(&decisions("anonymous"), 1.0);
    tollgate.wait_for_metric(&decisions("accepted"), 1.0);
    tollgate.wait_for_metric(&decisions("no_credentials"), 1.0);
}

#[test]
fn the_first_way_that_accepts_names_the_caller_remembered_or_not() {
    let key = Key::es256();
    let origin = Origin::replying("in");
    let keys = "jwks_file = \"jwks.json\"";
    let first = jwt("first", keys, "identity_headers = { x-first = \"sub\" }");
    let second = jwt("second", keys, "identity_headers = { x-second = \"sub\" }");
    let text = format!(
        "{first}{second}[upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.second]\npath = \"/second\"\nauth = \"second\"\nupstream = \"main\"\n\
         [routes.both]\npath = \"/both\"\nauth = [\"first\", \"second\"]\nupstream = \"main\"\n",
        origin.addr()
    );
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
    let token = key.token().mint();
    // Now the second remembers the token, and the first has never seen it.
    tollgate.get("/second").bearer(&token).send().expect(200);
    for _ in 0..2 {
        let response = tollgate.get("/both").bearer(&token).send().expect(200);
        assert_eq!(tollgate.logged(&response)["auth"], "first");
    }
}

/// A gateway whose machines are known by certificates of `ca`, and people by tokens of `key`.
fn machines(ca: &Ca, key: &Key, origin: &Origin) -> Tollgate {
    let identity = ca.server(&["gateway.test"]);
    let text = format!(
        "[listeners.https]\n[listeners.https.tls]\n\
         certificates = [{{ cert_file = \"gateway.pem\", key_file = \"gateway.key\" }}]\n\
         client_ca_file = \"ca.pem\"\nclient_auth = \"optional\"\n{}\
         [auth.machines]\ntype = \"client_certificate\"\nsubject_from = \"san\"\nsans = [\"URI:spiffe://prod/*\"]\n\
         identity_headers = {{ x-machine = \"sub\" }}\n\
         [upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.machines]\npath = \"/machines\"\nauth = \"machines\"\nupstream = \"main\"\n\
         [routes.either]\npath = \"/either\"\nauth = [\"machines\", \"corporate\"]\nupstream = \"main\"\n",
        jwt("corporate", "jwks_file = \"jwks.json\"", ""),
        origin.addr()
    );
    Tollgate::prepared(&text)
        .file("jwks.json", key_set(&[key]))
        .file("gateway.pem", &identity.cert)
        .file("gateway.key", &identity.key)
        .file("ca.pem", ca.pem())
        .start()
}

fn machine(ca: &Ca, name: &str) -> Identity {
    /// 2040-01-01T00:00:00Z
    const LATER: u64 = 2_208_988_800;
    ca.client_until(&[SanType::URI(name.try_into().expect("ASCII"))], LATER)
}

#[test]
fn a_certificate_with_a_listed_name_is_an_identity_and_another_is_none() {
    let (ca, key) = (Ca::new("an authority"), Key::es256());
    let origin = Origin::replying("in");
    let tollgate = machines(&ca, &key, &origin);
    let https = tollgate.addr_of("https");
    let visit = |identity: Option<&Identity>, request: &Request| {
        let visitor = Visitor::new(&ca, ProtocolVersion::TLSv1_3, identity);
        visitor.visit_as("gateway.test", https, request).expect("an answer").response
    };
    let (orders, staging) = (machine(&ca, "spiffe://prod/orders"), machine(&ca, "spiffe://staging/orders"));
    let get = |path: &str| Request::get(path).host("gateway.test");
    let accepted = visit(Some(&orders), &get("/machines").header("x-machine", "mallory")).expect(200);
    assert_eq!(tollgate.logged(&accepted)["auth"], "machines");
    assert_eq!(origin.requests().pop().expect("a request").header("x-machine"), Some("URI:spiffe://prod/orders"));
    let asks = "ClientCertificate realm=\"tollgate\"";
    let unlisted = visit(Some(&staging), &get("/machines")).expect(401);
    assert_eq!(unlisted.header("www-authenticate"), Some(asks));
    assert_eq!(tollgate.logged(&unlisted)["reason"], "invalid_credentials");
    let nobody = visit(None, &get("/machines")).expect(401);
    assert_eq!(tollgate.logged(&nobody)["reason"], "no_credentials");
    // A token is no certificate, and the other way it is enough to have one of the two.
    let token = key.token().mint();
    visit(None, &get("/machines").bearer(&token)).expect(401);
    assert_eq!(origin.hits(), 1);
    visit(Some(&staging), &get("/either").bearer(&token)).expect(200);
    visit(Some(&orders), &get("/either")).expect(200);
    let either = visit(None, &get("/either")).expect(401);
    assert_eq!(either.headers.all("www-authenticate"), [asks, "Bearer realm=\"tollgate\""]);
    assert_eq!(origin.hits(), 3);
}

#[test]
fn a_certificate_that_no_listener_asks_for_cannot_be_required() {
    let text = "[auth.machines]\ntype = \"client_certificate\"\n[routes.main]\nauth = \"machines\"\nrespond = { body = \"in\" }\n";
    let output = Tollgate::prepared(text).fails_to_start();
    let told = &output.stderr;
    assert!(told.contains("auth.machines.type") && told.contains("client_ca_file"), "{told}");
}
