//! What the origin is told of the caller, and what it must never see: the token, and what a client made up.

use serde_json::json;

use super::{IDENTITY, https, jwt, knowing, private};
use crate::support::certs::Ca;
use crate::support::h2::{H2Client, H2Origin};
use crate::support::jwt::{Key, key_set};
use crate::support::{Origin, Raw, Request, Tollgate};

#[test]
fn the_origin_is_told_who_calls() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let tollgate = knowing(&key, &origin, IDENTITY, "");
    let token = key.token().claim("realm_access", json!({ "roles": ["admin", "clerk"] })).mint();
    tollgate.get("/").bearer(&token).header("x-auth-subject", "mallory").header("X_Auth_Roles", "root").send();
    let request = origin.request();
    assert_eq!(request.header("x-auth-subject"), Some("alice"));
    assert_eq!(request.header("x-auth-roles"), Some("admin,clerk"));
    assert!(!request.text().contains("mallory") && !request.text().contains("root"), "{}", request.text());
}

#[test]
fn a_claim_that_is_no_header_value_is_left_out_with_what_a_client_put_there() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let tollgate = knowing(&key, &origin, IDENTITY, "");
    let token = key.token().subject("alice\r\nx-admin: true").mint();
    tollgate.get("/").bearer(&token).header("x-auth-subject", "mallory").send().expect(200);
    let request = origin.request();
    assert!(!request.headers.has("x-auth-subject") && !request.headers.has("x-admin"), "{}", request.text());
}

/// A route for everybody beside a way of knowing that has identity headers.
fn open_beside_private(origin: impl std::fmt::Display) -> String {
    format!(
        "{}[upstreams.main]\nendpoints = [\"{origin}\"]\n[routes.open]\nauth = \"none\"\nupstream = \"main\"\n",
        jwt("corporate", "jwks_file = \"jwks.json\"", IDENTITY)
    )
}

#[test]
fn identity_headers_of_a_client_are_removed_on_every_route_however_they_are_written() {
    let origin = Origin::replying("");
    for keep in [false, true] {
        let server = format!("[server]\nkeep_underscore_headers = {keep}\n");
        let text = format!("{server}{}", open_beside_private(origin.addr()));
        let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&Key::es256()])).start();
        let names = ["x-auth-subject", "X-AUTH-SUBJECT", "x_auth_subject", "X-Auth_Subject", "x_auth-roles"];
        for name in names {
            tollgate.get("/").header(name, "mallory").header("x-kept", "kept").send().expect(200);
        }
        // Named by Connection, or twice.
        tollgate
            .get("/")
            .header("x-auth-subject", "mallory")
            .header("x-auth-subject", "mallory")
            .header("connection", "x-auth-subject")
            .header("x-kept", "kept")
            .send()
            .expect(200);
    }
    assert_eq!(origin.hits(), 12);
    for request in origin.requests() {
        assert!(!request.text().contains("mallory"), "{}", request.text());
        assert_eq!(request.header("x-kept"), Some("kept"));
    }
}

#[test]
fn identity_headers_in_trailers_do_not_reach_the_origin() {
    let origin = Origin::echoing_bodies();
    let tollgate =
        Tollgate::prepared(&open_beside_private(origin.addr())).file("jwks.json", key_set(&[&Key::es256()])).start();
    let mut raw = Raw::connect(tollgate.addr());
    raw.send(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-auth-subject\r\n\r\n\
         4\r\nbody\r\n0\r\nx-auth-subject: mallory\r\nx_auth_subject: mallory\r\n\r\n",
    );
    assert_eq!(raw.response().expect(200).text(), "body");
    let request = origin.request();
    assert_eq!(request.body, b"body");
    assert!(!request.headers.has("x-auth-subject"), "{}", request.text());
    assert!(!request.trailers.has("x-auth-subject") && !request.trailers.has("x_auth_subject"));
    assert_eq!(raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").response().status(), 200, "the connection is in step");
}

#[test]
fn identity_headers_in_trailers_of_http2_do_not_reach_the_origin() {
    let ca = Ca::new("an authority");
    let origin = H2Origin::echoing();
    let (listener, cert, private_key) = https(&ca);
    let text = format!(
        "{listener}{}",
        open_beside_private(origin.addr()).replace("[routes.open]", "protocol = \"h2c\"\n[routes.open]")
    );
    let tollgate = Tollgate::prepared(&text)
        .file("jwks.json", key_set(&[&Key::es256()]))
        .file("gateway.pem", cert)
        .file("gateway.key", private_key)
        .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    let request = Request::new("POST", "/").header("x-auth-subject", "mallory").header("te", "trailers");
    let mut exchange = client.begin(&request, false).expect("begun");
    exchange.send("body").expect("sent");
    exchange.send_trailers(&[("x-auth-subject", "mallory"), ("x_auth_subject", "mallory")]).expect("sent");
    // The origin sends back the trailers that it got.
    let response = exchange.finish().expect("answered").expect(200);
    assert_eq!((response.text().as_str(), response.trailers.get("grpc-status")), ("body", Some("0")));
    assert!(!response.trailers.has("x-auth-subject") && !response.trailers.has("x_auth_subject"));
}

#[test]
fn what_carried_the_token_stays_at_the_gateway() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let sources = |forward: bool| {
        format!(
            "token_from = [\"header.authorization\", \"header.x-token\", \"cookie.session\", \"query.ticket\"]\n\
             forward_token = {forward}"
        )
    };
    let token = key.token().mint();
    let ask = |tollgate: &Tollgate| {
        for request in [
            tollgate.get("/?a=1").bearer(&token),
            tollgate.get("/?a=1").header("x-token", &token),
            tollgate.get("/?a=1").header("cookie", &format!("a=1; session={token}; b=2")),
            tollgate.get(&format!("/?a=1&ticket={token}&b=2")),
        ] {
            request.send().expect(200);
        }
    };
    ask(&knowing(&key, &origin, &sources(false), ""));
    let requests = origin.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert!(!request.text().contains(&token), "{}", request.text());
    }
    assert_eq!(requests[2].header("cookie").map(|cookie| cookie.replace(' ', "")).as_deref(), Some("a=1;b=2"));
    assert_eq!(requests[3].target, "/?a=1&b=2");
    ask(&knowing(&key, &origin, &sources(true), ""));
    for request in &origin.requests()[4..] {
        assert!(request.text().contains(&token), "{}", request.text());
    }
}

#[test]
fn a_token_appears_in_no_log() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let sources = "token_from = [\"header.authorization\", \"header.x-token\", \"cookie.session\", \"query.ticket\"]";
    let text = format!(
        "[log]\nlevel = \"info,tollgate=trace\"\n{}{}",
        jwt("corporate", "jwks_file = \"jwks.json\"", sources),
        private(&origin, "")
    );
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
    let good = key.token().mint();
    let bad = [key.token().forged(), key.token().expired().mint(), key.token().claim("aud", "x").mint()];
    let mut last = None;
    for token in bad.iter().chain([&good]) {
        tollgate.get("/").bearer(token).send();
        tollgate.get("/").header("x-token", token).send();
        tollgate.get("/").header("cookie", &format!("session={token}")).send();
        last = Some(tollgate.get(&format!("/?a=1&ticket={token}")).send());
    }
    let line = tollgate.logged(&last.expect("a last one"));
    assert_eq!(line["query"], "a=1&ticket=***", "a parameter that carries tokens is a secret, whatever its name");
    assert_eq!(line["auth"], "corporate");
    let access_log = std::fs::read_to_string(tollgate.access_log_file()).expect("read");
    let metrics = tollgate.admin("/metrics").text();
    for (what, text) in [("access log", access_log), ("stderr", tollgate.stderr()), ("metrics", metrics)] {
        for part in bad.iter().chain([&good]).flat_map(|token| token.split('.').skip(1)) {
            assert!(!text.contains(part), "{part} in the {what}:\n{text}");
        }
    }
}

#[test]
fn in_shadow_mode_everybody_passes_but_nobody_is_taken_for_somebody() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let tollgate = knowing(&key, &origin, IDENTITY, "auth_mode = \"shadow\"");
    let forged = key.token().forged();
    tollgate.get("/").header("x-auth-subject", "mallory").send().expect(200);
    tollgate.get("/").bearer(&forged).header("x-auth-subject", "mallory").send().expect(200);
    tollgate.get("/").bearer(&key.token().mint()).send().expect(200);
    let requests = origin.requests();
    assert_eq!(
        requests.iter().map(|request| request.header("x-auth-subject")).collect::<Vec<_>>(),
        [None, None, Some("alice")]
    );
    assert_eq!(requests[1].header("authorization"), Some(format!("Bearer {forged}").as_str()), "left as it is");
    assert!(!requests[2].headers.has("authorization"));
    let decisions = |result: &str| format!("tollgate_auth_decisions_total{{auth=\"corporate\",result=\"{result}\"}}");
    for (result, count) in [("shadow_no_credentials", 1.0), ("shadow_invalid_token", 1.0), ("accepted", 1.0)] {
        tollgate.wait_for_metric(&decisions(result), count);
    }
    tollgate.wait_for_metric("tollgate_auth_shadow{route=\"private\"}", 1.0);
    assert!(tollgate.stderr().contains("shadow"), "{}", tollgate.stderr());
}
