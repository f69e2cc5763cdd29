//! People who are known by a password: verified off the road, remembered, and never at the cost of others.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{https, private, refused};
use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::{Origin, Request, Tollgate, wait, websocket};

const CHALLENGE: &str = "Basic realm=\"the shop\", charset=\"UTF-8\"";
/// `alice` by bcrypt with few rounds, password `open sesame`
const ALICE: &str = "alice:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";
/// `bob` by argon2id, password `password`
const BOB: &str = "bob:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

fn basic(more: &str) -> String {
    format!("[auth.corporate]\ntype = \"basic\"\nusers_file = \"users\"\nrealm = \"the shop\"\n{more}\n")
}

const IDENTITY: &str = "identity_headers = { x-user = \"sub\" }";

fn before(origin: &Origin, auth: &str, route: &str) -> Tollgate {
    Tollgate::prepared(&format!("{}{}", basic(auth), private(origin, route)))
        .file("users", format!("# people\n{ALICE}\n\n{BOB}\n"))
        .start()
}

trait As {
    fn user(self, user: &str, password: &str) -> Self;
}

impl As for Request {
    fn user(self, user: &str, password: &str) -> Self {
        self.header("authorization", &authorization(user, password))
    }
}

fn authorization(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn users_are_known_by_their_passwords_whichever_way_they_are_hashed() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, IDENTITY, "");
    for (user, password) in [("alice", "open sesame"), ("bob", "password")] {
        for _ in 0..2 {
            tollgate.get("/").user(user, password).header("x-user", "mallory").send().expect(200);
        }
    }
    let lower = authorization("alice", "open sesame").replace("Basic", "bAsIc  ");
    tollgate.get("/").header("authorization", &lower).send().expect(200);
    let users: Vec<_> = origin.requests().iter().map(|request| request.header("x-user").map(str::to_owned)).collect();
    assert_eq!(users, ["alice", "alice", "bob", "bob", "alice"].map(|user| Some(user.to_owned())));
    assert!(origin.requests().iter().all(|request| !request.headers.has("authorization")));
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"corporate\",result=\"accepted\"}", 5.0);
}

#[test]
fn a_tool_that_people_use_is_understood() {
    let origin = Origin::replying("hello");
    let tollgate = before(&origin, IDENTITY, "");
    let curl = |user: &str| Command::new("curl").args(["-s", "--user", user, &tollgate.url("/")]).output();
    let Ok(output) = curl("alice:open sesame") else {
        eprintln!("skipped: there is no curl here");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello");
    let output = curl("alice:wrong").expect("it was there a moment ago");
    assert!(String::from_utf8_lossy(&output.stdout).contains("invalid_credentials"), "{output:?}");
    assert_eq!(origin.hits(), 1);
}

#[test]
fn a_password_that_is_wrong_never_reaches_the_origin() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "", "");
    let hash = ALICE.split_once(':').expect("a hash").1;
    for (user, password) in [
        ("alice", "Open sesame"),
        ("alice", ""),
        ("alice", "password"),
        ("alice", hash),
        ("bob", "open sesame"),
        ("mallory", "open sesame"),
        ("mallory", "password"),
        ("Alice", "open sesame"),
        ("", "open sesame"),
        ("alice", "open sesame\n"),
        ("# people", ""),
    ] {
        for _ in 0..2 {
            let response = tollgate.get("/").user(user, password).send();
            refused(&response, 401, "invalid_credentials", Some(CHALLENGE));
        }
    }
    let good = STANDARD.encode("alice:open sesame");
    for wrong in [good.trim_end_matches('='), &format!("{good}="), &format!("{good} x"), "", "alice:open sesame"] {
        let response = tollgate.get("/").header("authorization", &format!("Basic {wrong}")).send();
        refused(&response, 401, "invalid_credentials", Some(CHALLENGE));
    }
    for request in [tollgate.get("/"), tollgate.get("/").bearer(&good), tollgate.get("/").header("x-api-key", &good)] {
        refused(&request.send(), 401, "no_credentials", Some(CHALLENGE));
    }
    let twice = tollgate.get("/").user("alice", "open sesame").user("alice", "open sesame");
    refused(&twice.send(), 400, "multiple_credentials", None);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_password_that_was_changed_or_removed_is_gone_with_the_reload() {
    let origin = Origin::replying("");
    let tollgate = before(&origin, "remember = \"24h\"", "");
    tollgate.get("/").user("alice", "open sesame").send().expect(200);
    fs::write(tollgate.path("users"), BOB).expect("written");
    tollgate.get("/").user("alice", "open sesame").send().expect(200);
    tollgate.reload().succeeded();
    refused(&tollgate.get("/").user("alice", "open sesame").send(), 401, "invalid_credentials", Some(CHALLENGE));
    tollgate.get("/").user("bob", "password").send().expect(200);
    fs::write(tollgate.path("users"), format!("{BOB}\n{ALICE}")).expect("written");
    tollgate.reload().succeeded();
    tollgate.get("/").user("alice", "open sesame").send().expect(200);
}

#[test]
fn what_the_operator_wants_forwarded_is_and_a_scope_that_no_user_has_is_missing() {
    let origin = Origin::replying("");
    let tollgate = before(&origin, "forward_credentials = true", "");
    tollgate.get("/").user("alice", "open sesame").send().expect(200);
    assert_eq!(origin.request().header("authorization"), Some(authorization("alice", "open sesame").as_str()));
    let tollgate = before(&origin, "", "require = { scopes = [\"orders.read\"] }");
    refused(&tollgate.get("/").user("alice", "open sesame").send(), 403, "insufficient_scope", None);
    let tollgate = before(&origin, "", "require = { claims = { sub = [\"alice\"] } }");
    tollgate.get("/").user("alice", "open sesame").send().expect(200);
    tollgate.get("/").user("bob", "password").send().expect(403);
}

#[test]
fn neither_http2_nor_a_websocket_passes_without_a_password() {
    let (origin, echo, ca) = (Origin::replying("secret"), websocket::echo_origin(), Ca::new("an authority"));
    let (listener, cert, private_key) = https(&ca);
    let tollgate = Tollgate::prepared(&format!("{listener}{}{}", basic(""), private(&origin, "")))
        .file("users", ALICE)
        .file("gateway.pem", cert)
        .file("gateway.key", private_key)
        .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    refused(&client.get("/"), 401, "no_credentials", Some(CHALLENGE));
    refused(&client.send(&Request::get("/").user("alice", "x")), 401, "invalid_credentials", Some(CHALLENGE));
    client.send(&Request::get("/").user("alice", "open sesame")).expect(200);
    refused(&client.get("/"), 401, "no_credentials", Some(CHALLENGE));
    assert_eq!(origin.hits(), 1);

    let tollgate = before(&echo, "", "");
    let wrong = authorization("alice", "x");
    for headers in [&[][..], &[("authorization", &*wrong)]] {
        let refusal = websocket::connect(tollgate.addr(), "/", headers).expect_err("refused");
        let tungstenite::Error::Http(response) = *refusal else { panic!("{refusal}") };
        assert_eq!(response.status(), 401);
    }
    assert_eq!(echo.connections(), 0);
    let right = authorization("alice", "open sesame");
    websocket::connect(tollgate.addr(), "/", &[("authorization", &right)]).expect("open");
}

/// The same password by bcrypt with enough rounds to be felt
const VICTIM: &str = "victim:$2b$10$abcdefghijklmnopqrstuu4SuEsu2LsUrAYUpWQHLMMc4GV5pZTxK";

#[test]
fn a_flood_of_wrong_passwords_leaves_those_who_are_known_and_other_users_alone() {
    let origin = Origin::replying("");
    let tollgate = Tollgate::prepared(&format!("{}{}", basic(""), private(&origin, "")))
        .file("users", format!("{VICTIM}\n{ALICE}\n{BOB}\n"))
        .start();
    tollgate.get("/").user("alice", "open sesame").send().expect(200);
    thread::scope(|scope| {
        let flood: Vec<_> = (0..200)
            .map(|guess| {
                let request = tollgate.get("/").user("victim", &format!("guess {guess}"));
                scope.spawn(move || request.send().status())
            })
            .collect();
        let turned_away = "tollgate_auth_decisions_total{auth=\"corporate\",result=\"auth_unavailable\"}";
        wait::until("the flood to be at the door", || tollgate.metric(turned_away).is_some_and(|count| count > 0.0));
        // Not known yet, so behind some of the flood, but not behind all of it.
        tollgate.get("/").user("bob", "password").send().expect(200);
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                let begin = Instant::now();
                tollgate.get("/").user("alice", "open sesame").send().expect(200);
                begin.elapsed()
            })
            .collect();
        let statuses: Vec<_> = flood.into_iter().map(|flood| flood.join().expect("answered")).collect();
        assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
        assert!(statuses.contains(&401) && statuses.contains(&503), "{statuses:?}");
        times.sort();
        // Nothing is computed for who is known.
        assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
    });
    assert_eq!(origin.hits(), 52);
    tollgate.get("/").user("victim", "open sesame").send().expect(200);
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"corporate\",result=\"accepted\"}", 53.0);
}

#[test]
fn a_password_appears_in_no_log_and_on_no_page() {
    let origin = Origin::replying("");
    let text = format!("[log]\nlevel = \"info,tollgate=trace\"\n{}{}", basic(""), private(&origin, ""));
    let tollgate = Tollgate::prepared(&text).file("users", format!("{ALICE}\n")).start();
    tollgate.get("/").user("alice", "hunter2").send().expect(401);
    tollgate.get("/").user("hunter2", "hunter2").send().expect(401);
    tollgate.get("/").header("authorization", "Basic hunter2:hunter2").send().expect(401);
    let last = tollgate.get("/").user("alice", "open sesame").send().expect(200);
    tollgate.logged(&last);
    fs::write(tollgate.path("users"), "alice:hunter2\nhunter2\n").expect("written");
    let message = tollgate.reload().failed(1);
    assert!(message.contains("users:1:7  users.alice") && message.contains("users:2:1"), "{message}");
    let access_log = fs::read_to_string(tollgate.access_log_file()).expect("read");
    let pages = ["/", "/api/status", "/metrics"].map(|page| tollgate.admin(page).text()).concat();
    let secrets = ["hunter2".to_owned(), "open sesame".to_owned(), ALICE[8..].to_owned()].into_iter();
    let encoded = ["alice:hunter2", "hunter2:hunter2", "alice:open sesame"].map(|pair| STANDARD.encode(pair));
    let secrets: Vec<_> = secrets.chain(encoded).collect();
    for (what, text) in
        [("access log", access_log), ("stderr", tollgate.stderr()), ("admin side", pages), ("reload", message)]
    {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} in the {what}:\n{text}");
        }
    }
    assert!(tollgate.stderr().contains("a password is refused"), "{}", tollgate.stderr());
}
