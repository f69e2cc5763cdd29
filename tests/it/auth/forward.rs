//! A service decides: what it is shown, what its consent says, and that its refusal is the client's answer.

use std::thread;

use super::{INVALID, https, jwt, refused};
use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::jwt::{Key, key_set};
use crate::support::origin::{Connection, Request as Seen};
use crate::support::{Client, Origin, Request, Tollgate, wait, websocket};

const CLAIMS: &str = "claims = { sub = \"x-auth-user\", groups = \"x-auth-groups\" }\n\
                      identity_headers = { x-user = \"sub\", x-groups = \"groups\" }";

/// `[auth.door]` that asks at `address`, and whatever else follows.
fn door(address: impl std::fmt::Display, more: &str) -> String {
    format!("[auth.door]\ntype = \"forward\"\nurl = \"{address}/verify?from=gateway\"\n{more}\n")
}

/// Everything to `origin` for those whom `auth` lets in.
fn behind(auth: &str, origin: &Origin, more: &str) -> String {
    format!(
        "[upstreams.main]\nendpoints = [\"{}\"]\n[routes.private]\nauth = {auth}\nupstream = \"main\"\n{more}\n",
        origin.addr()
    )
}

fn before(service: &Origin, origin: &Origin, more: &str) -> Tollgate {
    let url = format!("http://{}", service.addr());
    Tollgate::with(&format!("{}{}", door(url, more), behind("\"door\"", origin, "")))
}

/// Lets in whoever brings the cookie of Alice, and sends everybody else to log in.
fn letting_alice_in() -> Origin {
    Origin::scripted(|request, connection| match request.header("cookie") {
        Some("session=alice") => {
            let headers = [("x-auth-user", "alice"), ("x-auth-groups", "clerks"), ("x-auth-groups", "admins")];
            connection.reply(204, &headers, "");
        }
        Some("session=mallory") => connection.reply(403, &[("content-type", "text/plain")], "not you"),
        _ => connection.reply(302, &[("location", "https://login.example/?back"), ("set-cookie", "state=1")], ""),
    })
}

fn asked(result: &str) -> String {
    format!("tollgate_auth_requests_total{{auth=\"door\",result=\"{result}\"}}")
}

fn header_names(request: &Seen) -> Vec<String> {
    let mut names: Vec<_> = request.headers.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

#[test]
fn whom_the_service_knows_the_origin_is_told_of() {
    let (service, origin) = (letting_alice_in(), Origin::replying("in"));
    let tollgate = before(&service, &origin, CLAIMS);
    tollgate.get("/").header("cookie", "session=alice").header("x-user", "mallory").send().expect(200);
    let request = origin.request();
    assert_eq!((request.header("x-user"), request.header("x-groups")), (Some("alice"), Some("clerks,admins")));
    assert_eq!(request.header("cookie"), Some("session=alice"), "what the service reads may concern the origin too");
    assert!(!request.headers.has("x-auth-user"), "{}", request.text());
    tollgate.wait_for_metric(&asked("answered"), 1.0);
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"door\",result=\"accepted\"}", 1.0);
}

#[test]
fn what_the_service_says_of_a_caller_counts_for_limits_and_is_required() {
    let service = Origin::scripted(|request, connection| {
        let user = request.header("authorization").unwrap_or_default().to_owned();
        connection.reply(200, &[("x-auth-user", &user), ("x-auth-groups", "clerks"), ("x-auth-groups", &user)], "");
    });
    let origin = Origin::replying("in");
    let url = format!("http://{}", service.addr());
    let route = "limits = [\"each\"]\nrequire = { claims = { groups = [\"alice\", \"bob\"] } }";
    let text = format!(
        "[limits.each]\nrate = \"1/h\"\nkey = [\"auth.subject\"]\n{}{}",
        door(url, CLAIMS),
        behind("\"door\"", &origin, route)
    );
    let tollgate = Tollgate::with(&text);
    let ask = |user: &str| tollgate.get("/").header("authorization", user).send();
    ask("alice").expect(200);
    ask("bob").expect(200);
    ask("alice").expect(429);
    refused(&ask("carol"), 403, "insufficient_scope", None);
    assert_eq!(origin.hits(), 2);
}

#[test]
fn a_refusal_is_the_services_own() {
    let (service, origin) = (letting_alice_in(), Origin::replying("secret"));
    let tollgate = before(&service, &origin, CLAIMS);
    let denied = tollgate.get("/").header("cookie", "session=mallory").send().expect(403);
    assert_eq!((denied.text().as_str(), denied.header("content-type")), ("not you", Some("text/plain")));
    assert_eq!(denied.header("proxy-status"), Some("tollgate; error=http_request_denied; details=\"auth_denied\""));
    assert_eq!(tollgate.logged(&denied)["reason"], "auth_denied");
    let login = tollgate.get("/").send().expect(302);
    assert_eq!(login.header("location"), Some("https://login.example/?back"));
    assert_eq!(login.header("set-cookie"), Some("state=1"));
    assert_eq!(origin.hits(), 0);
    tollgate.wait_for_metric(&asked("answered"), 2.0);
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"door\",result=\"auth_denied\"}", 2.0);
}

#[test]
fn of_a_refusal_only_what_was_chosen_is_told_and_a_401_has_a_challenge() {
    let service = Origin::scripted(|request, connection| {
        let challenge = ("www-authenticate", "Basic realm=\"theirs\"");
        let mut headers = vec![("server", "internal"), ("x-debug", "10.0.0.1"), ("x-why", "because")];
        headers.extend(request.headers.has("x-challenge").then_some(challenge));
        connection.reply(401, &headers, "no");
    });
    let origin = Origin::replying("secret");
    let more = "request_headers = [\"x-challenge\"]\nresponse_headers = [\"x-why\", \"www-authenticate\"]";
    let tollgate = before(&service, &origin, more);
    let plain = tollgate.get("/").send().expect(401);
    assert_eq!(plain.header("www-authenticate"), Some("Forward realm=\"tollgate\""));
    assert_eq!((plain.header("x-why"), plain.header("x-debug"), plain.header("server")), (Some("because"), None, None));
    let challenged = tollgate.get("/").header("x-challenge", "1").send().expect(401);
    assert_eq!(challenged.header("www-authenticate"), Some("Basic realm=\"theirs\""));
    assert_eq!(origin.hits(), 0);
}

#[test]
fn the_service_is_told_by_the_gateway_and_never_by_the_client() {
    let (service, origin) = (Origin::answering(200), Origin::replying("in"));
    let tollgate = before(&service, &origin, CLAIMS);
    let mut request = tollgate.request("POST", "/a/../orders/%31?q=1&r=%2F").body("not for the service");
    for (name, value) in [
        ("authorization", "Bearer mine"),
        ("cookie", "a=1"),
        ("x-other", "mallory"),
        ("x-request-id", "mallory"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "mallory.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-uri", "/mallory"),
        ("x-forwarded-method", "MALLORY"),
        ("x_forwarded_uri", "/mallory"),
        ("x-auth-user", "mallory"),
        ("x-user", "mallory"),
    ] {
        request = request.header(name, value);
    }
    let response = request.send().expect(200);
    let asked = service.request();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/verify?from=gateway"));
    assert_eq!(asked.body, b"");
    let expected = [
        "accept-encoding",
        "authorization",
        "cookie",
        "host",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-method",
        "x-forwarded-proto",
        "x-forwarded-uri",
        "x-request-id",
    ];
    assert_eq!(header_names(&asked), expected);
    for (name, value) in [
        ("host", service.addr().to_string().as_str()),
        ("authorization", "Bearer mine"),
        ("cookie", "a=1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", tollgate.addr().to_string().as_str()),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-uri", "/orders/1?q=1&r=%2F"),
        ("x-request-id", response.request_id()),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    assert!(!asked.text().to_ascii_lowercase().contains("mallory"), "{}", asked.text());
    assert!(!origin.request().headers.has("x-user"), "consent without a name makes no name");
}

#[test]
fn a_trusted_proxy_may_say_where_a_request_came_from() {
    let (service, origin) = (Origin::answering(200), Origin::replying("in"));
    let url = format!("http://{}", service.addr());
    let trusting = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let tollgate = Tollgate::with(&format!("{trusting}{}{}", door(url, ""), behind("\"door\"", &origin, "")));
    tollgate
        .get("/")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("x-forwarded-uri", "/mallory")
        .send()
        .expect(200);
    let asked = service.request();
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-uri", "/"),
    ] {
        assert_eq!(asked.headers.all(name), [value], "{name}");
    }
}

#[test]
fn the_service_is_asked_about_those_alone_whom_nobody_before_it_knows() {
    let key = Key::es256();
    let (service, origin) = (letting_alice_in(), Origin::replying("in"));
    let url = format!("http://{}", service.addr());
    for (order, asked) in [("[\"corporate\", \"door\"]", 0), ("[\"door\", \"corporate\"]", 2)] {
        let text = format!(
            "{}{}{}",
            jwt("corporate", "jwks_file = \"jwks.json\"", ""),
            door(&url, CLAIMS),
            behind(order, &origin, "")
        );
        let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
        let hits = service.hits();
        let token = key.token().mint();
        for _ in 0..2 {
            let response = tollgate.get("/").bearer(&token).send().expect(200);
            assert_eq!(tollgate.logged(&response)["auth"], "corporate");
        }
        assert_eq!(service.hits() - hits, asked, "{order}");
        let response = tollgate.get("/").bearer(&token).header("cookie", "session=alice").send().expect(200);
        assert_eq!(tollgate.logged(&response)["auth"], if asked == 0 { "corporate" } else { "door" });
        tollgate.get("/").header("cookie", "session=alice").send().expect(200);
        tollgate.get("/").send().expect(302);
        if asked == 0 {
            let forged = tollgate.get("/").bearer(&key.token().forged()).send().expect(401);
            assert_eq!(forged.headers.all("www-authenticate"), [INVALID, "Forward realm=\"tollgate\""]);
        }
    }
}

#[test]
fn in_shadow_mode_the_service_is_asked_and_nobody_is_kept_out() {
    let (service, origin) = (letting_alice_in(), Origin::replying("in"));
    let url = format!("http://{}", service.addr());
    let text = format!("{}{}", door(url, CLAIMS), behind("\"door\"", &origin, "auth_mode = \"shadow\""));
    let tollgate = Tollgate::with(&text);
    tollgate.get("/").header("cookie", "session=mallory").header("x-user", "mallory").send().expect(200);
    tollgate.get("/").header("cookie", "session=alice").send().expect(200);
    let users: Vec<_> = origin.requests().iter().map(|request| request.header("x-user").map(str::to_owned)).collect();
    assert_eq!(users, [None, Some("alice".to_owned())]);
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"door\",result=\"shadow_auth_denied\"}", 1.0);
}

/// Nobody passes by a service that does this, whatever it is that it does.
#[track_caller]
fn unavailable(service: &Origin, more: &str, result: &str) -> Tollgate {
    let origin = Origin::replying("secret");
    let tollgate = before(service, &origin, more);
    let response = tollgate.get("/").header("cookie", "session=alice").send();
    refused(&response, 503, "auth_unavailable", None);
    assert_eq!(origin.hits(), 0);
    tollgate.wait_for_metric(&asked(result), 1.0);
    tollgate
}

#[track_caller]
fn lies(result: &str, script: impl Fn(&mut Connection) + Send + Sync + 'static) {
    let service = Origin::scripted(move |_, connection| script(connection));
    unavailable(&service, CLAIMS, result);
}

#[test]
fn whatever_else_the_service_does_lets_nobody_pass() {
    for status in [300, 304, 400, 404, 407, 429, 500, 503] {
        lies("status", move |connection| connection.reply(status, &[], ""));
    }
    lies("too_large", |connection| {
        connection.begin_chunked(200, &[]);
        while connection.send(format!("400\r\n{}\r\n", "x".repeat(0x400))).is_ok() {}
        connection.close();
    });
    lies("too_large", |connection| {
        let _ = connection.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 100000000\r\n\r\n");
        while connection.send([b' '; 4096]).is_ok() {}
        connection.close();
    });
    lies("unreachable", |connection| connection.reset());
    lies("unreachable", |connection| {
        let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n");
        connection.close();
    });
    lies("unreachable", |connection| {
        let _ = connection.send("SSH-2.0-OpenSSH_9.9\r\n\r\n");
        connection.close();
    });
    lies("invalid", |connection| connection.reply(403, &[("content-encoding", "gzip")], "x"));
    lies("invalid", |connection| {
        connection.reply(200, &[("x-auth-user", "alice"), ("x-auth-user", "mallory")], "");
    });
}

#[test]
fn a_service_that_hangs_or_is_gone_lets_nobody_pass_and_is_not_waited_for_by_all() {
    let tollgate = unavailable(&Origin::hanging(), "timeout = \"500ms\"", "timeout");
    for _ in 0..20 {
        tollgate.get("/").send().expect(503);
    }
    let resting = tollgate.metric(&asked("resting")).unwrap_or(0.0);
    assert!(resting >= 10.0, "only {resting} did not wait");
    let mut service = letting_alice_in();
    service.stop();
    let tollgate = unavailable(&service, CLAIMS, "unreachable");
    service.start_again();
    let ask = || tollgate.get("/").send().status();
    wait::until("the service to be asked again", || ask() == 302);
}

#[test]
fn the_service_is_believed_by_its_certificate_alone() {
    let (ca, other) = (Ca::new("an authority"), Ca::new("another authority"));
    let good = ca.server(&["127.0.0.1"]);
    for (status, identity, pem) in
        [(200, good.clone(), ca.pem()), (503, good, other.pem()), (503, ca.expired_server(&["127.0.0.1"]), ca.pem())]
    {
        let service = Origin::scripted_tls(identity.serving(&[]), |_, connection| connection.reply(200, &[], ""));
        let origin = Origin::replying("secret");
        let url = format!("https://{}", service.addr());
        let text = format!("{}{}", door(&url, "ca_file = \"ca.pem\""), behind("\"door\"", &origin, ""));
        let tollgate = Tollgate::prepared(&text).file("ca.pem", pem).start();
        tollgate.get("/").send().expect(status);
        assert_eq!(origin.hits(), usize::from(status == 200));
    }
}

#[test]
fn neither_http2_nor_a_websocket_gets_past_the_service() {
    let (service, ca) = (letting_alice_in(), Ca::new("an authority"));
    let origin = websocket::echo_origin();
    let (listener, cert, key) = https(&ca);
    let url = format!("http://{}", service.addr());
    let text = format!("{listener}{}{}", door(url, CLAIMS), behind("\"door\"", &origin, ""));
    let tollgate = Tollgate::prepared(&text).file("gateway.pem", cert).file("gateway.key", key).start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    client.send(&Request::get("/h2").header("cookie", "session=mallory")).expect(403);
    client.send(&Request::get("/h2")).expect(302);
    let asked = service.requests().pop().expect("asked");
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    assert_eq!(asked.header("x-forwarded-host"), Some("gateway.test"));
    assert_eq!(asked.header("x-forwarded-uri"), Some("/h2"));
    let upgrade = Request::get("/")
        .over_tls(tollgate.addr(), "gateway.test", ca.trusting(&["http/1.1"]))
        .header("cookie", "session=mallory")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    upgrade.send().expect(403);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn its_connections_are_kept() {
    let (service, origin) = (letting_alice_in(), Origin::replying("in"));
    let tollgate = before(&service, &origin, CLAIMS);
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..10 {
        client.send(&Request::get("/").header("cookie", "session=alice")).expect(200);
        client.send(&Request::get("/").header("cookie", "session=mallory")).expect(403);
    }
    assert_eq!((service.hits(), service.connections()), (20, 1));
}

#[test]
fn each_request_is_asked_about_and_only_so_many_at_once() {
    let (service, gate) = Origin::gated("");
    let origin = Origin::replying("in");
    let tollgate = before(&service, &origin, "timeout = \"30s\"");
    thread::scope(|scope| {
        let callers: Vec<_> = (0..600).map(|_| scope.spawn(|| tollgate.get("/").send().status())).collect();
        wait::until("the places to be taken", || tollgate.metric(&asked("busy")) == Some(88.0));
        gate.open();
        let answers: Vec<_> = callers.into_iter().map(|caller| caller.join().expect("answered")).collect();
        let passed = answers.iter().filter(|status| **status == 200).count();
        let turned_away = answers.iter().filter(|status| **status == 503).count();
        assert_eq!((passed, turned_away), (512, 88));
    });
    assert_eq!((service.hits(), origin.hits()), (512, 512));
}

#[test]
fn nobody_beside_the_service_decides_about_those_who_present_nothing() {
    let origin = Origin::replying("in");
    let text = format!("{}{}", door("http://127.0.0.1:9", ""), behind("[\"door\", \"none\"]", &origin, ""));
    let output = Tollgate::prepared(&text).fails_to_start();
    let stderr = output.stderr;
    assert!(stderr.contains("\"door\" decides about those who present nothing, too"), "{stderr}");
}
