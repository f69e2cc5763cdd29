//! Tokens that only their issuer can read: it is asked, seldom, and believed no longer than allowed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{INVALID, NO_TOKEN, https, private, refused};
use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::origin::Connection;
use crate::support::{Client, Gate, Origin, Request, Tollgate, wait, websocket};

const SECRET: &str = "a secret/of ours";
const JSON: (&str, &str) = ("content-type", "application/json");

/// `[auth.corporate]` that asks at `address`, and whatever else follows.
fn asking(address: impl std::fmt::Display, more: &str) -> String {
    format!(
        "[auth.corporate]\ntype = \"introspection\"\nurl = \"{address}/introspect\"\nclient_id = \"gateway\"\n\
         client_secret_file = \"client.secret\"\n{more}\n"
    )
}

fn before(service: &Origin, origin: &Origin, more: &str) -> Tollgate {
    let url = format!("http://{}", service.addr());
    let text = format!("{}{}", asking(url, more), private(origin, ""));
    Tollgate::prepared(&text).file("client.secret", SECRET).start()
}

/// The token that a question is about.
fn token(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body).into_owned();
    let token = body.strip_prefix("token=").and_then(|rest| rest.strip_suffix("&token_type_hint=access_token"));
    token.unwrap_or_else(|| panic!("no question: {body}")).to_owned()
}

/// An authorization server that says this of each token.
fn saying(answer: impl Fn(&str) -> Value + Send + Sync + 'static) -> Origin {
    Origin::scripted(move |request, connection| {
        connection.reply(200, &[JSON], answer(&token(&request.body)).to_string());
    })
}

/// Of the token `good` that it is Alice's, and of all others nothing.
fn knowing_alice() -> Origin {
    saying(|token| match token {
        "good" => json!({"active": true, "sub": "alice", "scope": "read write", "roles": ["admin"]}),
        _ => json!({"active": false}),
    })
}

fn asked(result: &str) -> String {
    format!("tollgate_auth_requests_total{{auth=\"corporate\",result=\"{result}\"}}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn the_issuer_is_asked_once_and_the_origin_is_told_who_calls() {
    let (service, origin) = (knowing_alice(), Origin::replying("secret"));
    let more = "identity_headers = { x-auth-subject = \"sub\", x-auth-roles = \"roles\" }";
    let url = format!("http://{}", service.addr());
    let text = format!("{}{}", asking(url, more), private(&origin, "require = { scopes = [\"write\"] }"));
    let tollgate = Tollgate::prepared(&text).file("client.secret", format!("{SECRET}\n")).start();
    for _ in 0..3 {
        tollgate.get("/").bearer("good").header("x-auth-subject", "mallory").send().expect(200);
    }
    let question = service.request();
    assert_eq!((question.method.as_str(), question.target.as_str()), ("POST", "/introspect"));
    assert_eq!(question.body, b"token=good&token_type_hint=access_token");
    assert_eq!(question.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(question.header("accept"), Some("application/json"));
    // gateway:a+secret%2Fof+ours
    assert_eq!(question.header("authorization"), Some("Basic Z2F0ZXdheTphK3NlY3JldCUyRm9mK291cnM="));
    for request in origin.requests() {
        assert_eq!(request.header("x-auth-subject"), Some("alice"));
        assert_eq!(request.header("x-auth-roles"), Some("admin"));
        assert!(!request.headers.has("authorization"), "{}", request.text());
    }
    assert_eq!(origin.hits(), 3);
    tollgate.wait_for_metric(&asked("answered"), 1.0);
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"corporate\",result=\"accepted\"}", 3.0);
    tollgate.wait_for_metric("tollgate_auth_remembered_tokens{auth=\"corporate\"}", 1.0);
}

#[test]
fn what_is_not_active_is_refused_and_asked_about_once() {
    let (service, origin) = (knowing_alice(), Origin::replying("secret"));
    let tollgate = before(&service, &origin, "");
    for _ in 0..5 {
        refused(&tollgate.get("/").bearer("bad").send(), 401, "invalid_token", Some(INVALID));
    }
    refused(&tollgate.get("/").send(), 401, "no_credentials", Some(NO_TOKEN));
    assert_eq!((service.hits(), origin.hits()), (1, 0));
}

#[test]
fn nothing_is_sent_that_could_not_be_a_token() {
    let (service, origin) = (knowing_alice(), Origin::replying("secret"));
    let tollgate = before(&service, &origin, "token_from = [\"header.x-token\"]");
    for token in ["good&token=x", "a b", "\u{e4}", "=", "a,b", "{}", &"a".repeat(20_000)] {
        refused(&tollgate.get("/").header("x-token", token).send(), 401, "invalid_token", Some(INVALID));
    }
    assert_eq!((service.hits(), origin.hits()), (0, 0));
}

#[test]
fn an_active_token_of_somebody_else_or_of_another_time_is_refused() {
    let service = saying(|token| match token {
        "issuer" => json!({"active": true, "iss": "https://other.example", "aud": "orders"}),
        "audience" => json!({"active": true, "iss": "https://id.example", "aud": ["billing"]}),
        "early" => json!({"active": true, "iss": "https://id.example", "aud": "orders", "nbf": now() + 1000}),
        "late" => json!({"active": true, "iss": "https://id.example", "aud": "orders", "exp": now() - 1}),
        _ => json!({"active": true, "iss": "https://id.example", "aud": ["billing", "orders"], "exp": now() + 1000}),
    });
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "issuer = \"https://id.example\"\naudience = [\"orders\"]");
    for token in ["issuer", "audience", "early"] {
        refused(&tollgate.get("/").bearer(token).send(), 401, "invalid_token", Some(INVALID));
    }
    for _ in 0..2 {
        refused(&tollgate.get("/").bearer("late").send(), 401, "token_expired", Some(super::EXPIRED));
    }
    assert_eq!(origin.hits(), 0);
    tollgate.get("/").bearer("good").send().expect(200);
}

/// A service that knows everybody, once the gate is open.
fn gated() -> (Origin, Gate) {
    let gate = Gate::default();
    let service = Origin::scripted({
        let gate = gate.clone();
        move |_, connection| {
            gate.pass();
            connection.reply(200, &[JSON], ACTIVE);
        }
    });
    (service, gate)
}

#[test]
fn those_who_come_together_with_one_token_ask_once() {
    let (service, gate) = gated();
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "timeout = \"30s\"");
    thread::scope(|scope| {
        let callers: Vec<_> =
            (0..50).map(|_| scope.spawn(|| tollgate.get("/").bearer("good").send().status())).collect();
        tollgate.wait_for_metric("tollgate_http_requests_in_flight{route=\"private\"}", 50.0);
        gate.open();
        for caller in callers {
            assert_eq!(caller.join().expect("answered"), 200);
        }
    });
    assert_eq!((service.hits(), origin.hits()), (1, 50));
}

#[test]
fn whoever_asks_and_goes_away_takes_nobody_along() {
    let (service, gate) = gated();
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "timeout = \"30s\"");
    let in_flight = "tollgate_http_requests_in_flight{route=\"private\"}";
    let mut first = Client::connect(tollgate.addr());
    first.begin(&Request::get("/").bearer("good")).expect("sent");
    wait::until("the first question", || service.hits() == 1);
    thread::scope(|scope| {
        let second = scope.spawn(|| tollgate.get("/").bearer("good").send().status());
        tollgate.wait_for_metric(in_flight, 2.0);
        drop(first);
        gate.open();
        assert_eq!(second.join().expect("answered"), 200);
    });
}

#[test]
fn a_token_that_is_revoked_is_refused_once_it_is_remembered_no_longer() {
    let revoked = Arc::new(AtomicBool::new(false));
    let service = saying({
        let revoked = Arc::clone(&revoked);
        move |_| json!({"active": !revoked.load(Ordering::SeqCst), "sub": "alice"})
    });
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "remember = \"1s\"");
    tollgate.get("/").bearer("good").send().expect(200);
    revoked.store(true, Ordering::SeqCst);
    wait::until("the token to be asked about again", || tollgate.get("/").bearer("good").send().status() == 401);
}

#[test]
fn a_token_is_remembered_no_longer_than_it_lives() {
    // It lives from the first question on: how long the gateway took to start does not count.
    let ends = Arc::new(OnceLock::new());
    let end = {
        let ends = Arc::clone(&ends);
        move || *ends.get_or_init(|| now() + 2)
    };
    let service = saying(move |_| {
        let ends = end();
        json!({"active": now() < ends, "sub": "alice", "exp": ends})
    });
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "remember = \"1h\"");
    tollgate.get("/").bearer("good").send().expect(200);
    wait::until("the token to end", || tollgate.get("/").bearer("good").send().status() == 401);
    assert!(now() >= *ends.get().expect("asked"));
}

#[test]
fn nothing_is_remembered_where_nothing_shall_be_but_its_connection_is_kept() {
    let (service, origin) = (knowing_alice(), Origin::replying(""));
    let tollgate = before(&service, &origin, "remember = \"none\"");
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..10 {
        client.send(&Request::get("/").bearer("good")).expect(200);
    }
    assert_eq!((service.hits(), service.connections()), (10, 1));
}

#[test]
fn a_connection_that_the_service_has_closed_costs_nobody_an_answer() {
    let service = Origin::scripted(|_, connection| {
        connection.reply(200, &[JSON], json!({"active": true, "sub": "alice"}).to_string());
        connection.close();
    });
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "remember = \"none\"");
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..30 {
        client.send(&Request::get("/").bearer("good")).expect(200);
    }
}

#[test]
fn a_question_that_a_kept_connection_ended_under_is_asked_once_more() {
    let service = Origin::raw(|connection| {
        if matches!(connection.request(), Ok(Some(_))) {
            connection.reply(200, &[JSON], ACTIVE);
            // The second is read, and the connection closed without a word.
            drop(connection.request());
        }
    });
    let origin = Origin::replying("");
    let tollgate = before(&service, &origin, "remember = \"none\"");
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..5 {
        client.send(&Request::get("/").bearer("good")).expect(200);
    }
    assert_eq!((service.hits(), service.connections()), (9, 5));
}

/// Nobody passes by a service that does this, whatever it is that it does.
#[track_caller]
fn unavailable(service: &Origin, more: &str, result: &str) -> Tollgate {
    let origin = Origin::replying("secret");
    let tollgate = before(service, &origin, more);
    refused(&tollgate.get("/").bearer("good").send(), 503, "auth_unavailable", None);
    assert_eq!(origin.hits(), 0);
    tollgate.wait_for_metric(&asked(result), 1.0);
    assert!(tollgate.stderr().contains("auth corporate: nobody is known"), "{}", tollgate.stderr());
    tollgate
}

/// A service that answers each question like this.
#[track_caller]
fn lies(result: &str, script: impl Fn(&mut Connection) + Send + Sync + 'static) {
    let service = Origin::scripted(move |_, connection| script(connection));
    unavailable(&service, "", result);
}

const ACTIVE: &str = r#"{"active":true,"sub":"alice"}"#;

#[test]
fn a_service_that_lies_lets_nobody_pass() {
    for status in [201, 204, 302, 404, 500, 503] {
        lies("status", move |connection| connection.reply(status, &[JSON, ("location", "/")], ACTIVE));
    }
    lies("invalid", |connection| connection.reply(200, &[("content-type", "text/html")], ACTIVE));
    lies("invalid", |connection| connection.reply(200, &[], ACTIVE));
    for body in ["", "{}", r#"{"active":"true"}"#, r#"{"active":false,"active":true}"#, "{\"active\":true"] {
        lies("invalid", move |connection| connection.reply(200, &[JSON], body));
    }
    lies("too_large", |connection| {
        connection.begin_chunked(200, &[JSON]);
        while connection.send(format!("400\r\n{}\r\n", " ".repeat(0x400))).is_ok() {}
        connection.close();
    });
    lies("too_large", |connection| {
        let _ =
            connection.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n");
        while connection.send([b' '; 4096]).is_ok() {}
        connection.close();
    });
    lies("unreachable", |connection| {
        let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
        connection.close();
    });
    lies("unreachable", |connection| connection.reset());
    lies("unreachable", |connection| {
        let _ = connection.send(format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(200_000)));
    });
}

#[test]
fn a_service_that_does_not_know_the_gateway_is_an_error_of_the_operator() {
    for status in [401, 403] {
        let service = Origin::scripted(move |_, connection| connection.reply(status, &[JSON], ACTIVE));
        let tollgate = unavailable(&service, "", "unauthorized");
        for number in 0..5 {
            tollgate.get("/").bearer(&format!("good{number}")).send().expect(503);
        }
        tollgate.wait_for_metric(&asked("unauthorized"), 6.0);
        let stderr = tollgate.stderr();
        assert_eq!(stderr.matches("does not know this gateway").count(), 1, "{stderr}");
        assert!(stderr.contains("ERROR") && stderr.contains("client_id"), "{stderr}");
    }
}

#[test]
fn a_service_that_is_not_there_lets_nobody_pass_until_it_is() {
    let (mut service, origin) = (knowing_alice(), Origin::replying("secret"));
    service.stop();
    let tollgate = before(&service, &origin, "");
    for _ in 0..10 {
        refused(&tollgate.get("/").bearer("good").send(), 503, "auth_unavailable", None);
    }
    assert_eq!(origin.hits(), 0);
    tollgate.wait_for_metric(&asked("unreachable"), 3.0);
    tollgate.wait_for_metric(&asked("resting"), 7.0);
    service.start_again();
    wait::until("the service to be tried again", || tollgate.get("/").bearer("good").send().status() == 200);
}

#[test]
fn a_service_that_hangs_is_waited_for_by_a_few_and_by_nobody_after_them() {
    let service = Origin::hanging();
    let tollgate = unavailable(&service, "timeout = \"500ms\"", "timeout");
    for number in 0..20 {
        tollgate.get("/").bearer(&format!("good{number}")).send().expect(503);
    }
    let resting = tollgate.metric(&asked("resting")).unwrap_or(0.0);
    assert!(resting >= 10.0, "only {resting} did not wait");
}

#[test]
fn the_service_is_believed_by_its_certificate_alone() {
    let (ca, other) = (Ca::new("an authority"), Ca::new("another authority"));
    let good = ca.server(&["127.0.0.1"]);
    let certificates = [
        (200, good.clone(), ca.pem()),
        (503, good, other.pem()),
        (503, ca.expired_server(&["127.0.0.1"]), ca.pem()),
        (503, ca.server(&["id.example"]), ca.pem()),
    ];
    for (status, identity, pem) in certificates {
        let service = Origin::scripted_tls(identity.serving(&[]), |_, connection| {
            connection.reply(200, &[JSON], ACTIVE);
        });
        let origin = Origin::replying("secret");
        let url = format!("https://{}", service.addr());
        for (status, more) in [(status, "ca_file = \"ca.pem\""), (503, "")] {
            let text = format!("{}{}", asking(&url, more), private(&origin, ""));
            let tollgate = Tollgate::prepared(&text).file("client.secret", SECRET).file("ca.pem", pem).start();
            let hits = origin.hits();
            tollgate.get("/").bearer("good").send().expect(status);
            assert_eq!(origin.hits(), hits + usize::from(status == 200));
        }
        assert_eq!(service.hits(), usize::from(status == 200), "nobody who is not believed is told a secret");
    }
}

#[test]
fn neither_http2_nor_a_websocket_gets_past_the_service() {
    let (service, ca) = (knowing_alice(), Ca::new("an authority"));
    let origin = websocket::echo_origin();
    let (listener, cert, key) = https(&ca);
    let url = format!("http://{}", service.addr());
    let text = format!("{listener}{}{}", asking(url, ""), private(&origin, ""));
    let tollgate = Tollgate::prepared(&text)
        .file("client.secret", SECRET)
        .file("gateway.pem", cert)
        .file("gateway.key", key)
        .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    refused(&client.send(&Request::get("/").bearer("bad")), 401, "invalid_token", Some(INVALID));
    refused(&client.send(&Request::get("/")), 401, "no_credentials", Some(NO_TOKEN));
    let upgrade = |token: &str| {
        Request::get("/")
            .over_tls(tollgate.addr(), "gateway.test", ca.trusting(&["http/1.1"]))
            .bearer(token)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    refused(&upgrade("bad").send(), 401, "invalid_token", Some(INVALID));
    assert_eq!(origin.connections(), 0);
}

#[test]
fn neither_the_secret_nor_a_token_is_told_to_anybody_else() {
    let (service, origin) = (knowing_alice(), Origin::replying("secret"));
    let url = format!("http://{}", service.addr());
    let text = format!(
        "[log]\nlevel = \"info,tollgate=trace\"\n{}{}",
        asking(url, "token_from = [\"header.authorization\", \"query.ticket\"]"),
        private(&origin, "")
    );
    let tollgate = Tollgate::prepared(&text).file("client.secret", "kept-to-ourselves").start();
    for token in ["good-and-private", "bad-and-private"] {
        tollgate.get("/").bearer(token).send();
        let response = tollgate.get(&format!("/?ticket={token}")).send();
        tollgate.logged(&response);
    }
    let access_log = std::fs::read_to_string(tollgate.access_log_file()).expect("read");
    let told = [
        ("access log", access_log),
        ("stderr", tollgate.stderr()),
        ("metrics", tollgate.admin("/metrics").text()),
        ("status", tollgate.admin("/api/status").text()),
        ("page", tollgate.admin("/").text()),
    ];
    for (what, text) in told {
        // The last is the secret as Basic has it.
        for secret in ["kept-to-ourselves", "-and-private", "Z2F0ZXdheTprZXB0"] {
            assert!(!text.contains(secret), "{secret} in the {what}:\n{text}");
        }
    }
    let status = tollgate.admin("/api/status").json();
    assert_eq!(status["auth"][0]["type"], "introspection");
    assert_eq!(status["auth"][0]["service"], format!("http://{}/introspect", service.addr()));
}

#[test]
fn a_reload_keeps_what_is_remembered_unless_the_service_is_another() {
    let (service, origin) = (knowing_alice(), Origin::replying(""));
    let tollgate = before(&service, &origin, "");
    tollgate.get("/").bearer("good").send().expect(200);
    tollgate.replace("auth = \"corporate\"", "auth = \"corporate\"\ntimeout = \"59s\"");
    tollgate.reload().succeeded();
    tollgate.get("/").bearer("good").send().expect(200);
    assert_eq!(service.hits(), 1);
    tollgate.replace("client_id = \"gateway\"", "client_id = \"another\"");
    tollgate.reload().succeeded();
    tollgate.get("/").bearer("good").send().expect(200);
    assert_eq!(service.hits(), 2);
}

#[test]
fn a_question_does_not_outlive_its_time() {
    let service = Origin::scripted(|_, connection| {
        connection.begin_chunked(200, &[JSON]);
        // A byte now and then keeps nobody waiting for longer.
        while connection.send("1\r\n \r\n").is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
        connection.close();
    });
    unavailable(&service, "timeout = \"300ms\"", "timeout");
}
