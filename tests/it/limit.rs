//! How much: exact, whoever asks at once, and paid for only by what passed.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::jwt::{AUDIENCE, ISSUER, Key, key_set};
use crate::support::{Client, Origin, Raw, Request, Tollgate, wait, websocket};

/// As many as a crowd has.
const CROWD: usize = 64;

/// One limit, `[limits.few]`, and a route under it that answers by itself.
fn few(limit: &str) -> String {
    format!(
        "[limits.few]\n{limit}\n[routes.main]\nauth = \"none\"\nlimits = [\"few\"]\nrespond = {{ body = \"here\" }}\n"
    )
}

/// Statuses of as many requests, one after the other.
fn statuses(requests: impl IntoIterator<Item = Request>) -> Vec<u16> {
    requests.into_iter().map(|request| request.send().status()).collect()
}

/// Sends `each` requests on each of [`CROWD`] connections, all at once; how many were answered with 200, the others
/// being 429.
fn crowd(tollgate: &Tollgate, each: usize) -> usize {
    let (barrier, passed) = (Barrier::new(CROWD), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| {
                let mut client = Client::connect(tollgate.addr());
                barrier.wait();
                for _ in 0..each {
                    match client.get("/").status() {
                        200 => drop(passed.fetch_add(1, Ordering::Relaxed)),
                        status => assert_eq!(status, 429),
                    }
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn of_a_crowd_exactly_the_burst_passes() {
    let tollgate = Tollgate::with(&few("rate = \"1/h\"\nburst = 100\nkey = [\"client.address\"]"));
    assert_eq!(crowd(&tollgate, 5), 100);
    assert_eq!(crowd(&tollgate, 1), 0);
    let decisions = |result: &str| format!("tollgate_limit_decisions_total{{limit=\"few\",result=\"{result}\"}}");
    tollgate.wait_for_metric(&decisions("allowed"), 100.0);
    tollgate.wait_for_metric(&decisions("refused"), (6 * CROWD - 100) as f64);
    tollgate
        .wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"rate_limited\"}", (6 * CROWD - 100) as f64);
}

#[test]
fn in_any_time_the_burst_and_what_was_earned_passes_and_no_more() {
    let tollgate = Tollgate::with(&few("rate = \"50/s\"\nburst = 10\nkey = []"));
    let begin = Instant::now();
    let passed = crowd(&tollgate, 40);
    let most = 10 + (50.0 * begin.elapsed().as_secs_f64()) as usize;
    assert!((10..=most).contains(&passed), "{passed} passed, {most} at most");
    wait::until("something to be earned", || tollgate.get("/").send().status() == 200);
}

#[test]
fn a_client_is_told_what_is_left_and_when_to_come_back() {
    let tollgate = Tollgate::with(&few("rate = \"1/h\"\nburst = 2\nkey = [\"client.address\"]"));
    let mut client = Client::connect(tollgate.addr());
    for (remaining, reset) in [(1, 3600), (0, 7200)] {
        let response = client.get("/").expect(200);
        assert_eq!(response.header("ratelimit-policy"), Some("\"few\";q=2;w=7200"));
        assert_eq!(response.header("ratelimit"), Some(format!("\"few\";r={remaining};t={reset}").as_str()));
        assert!(!response.headers.has("retry-after"));
    }
    let response = client.get("/").expect(429);
    let seconds: u64 = response.header("retry-after").expect("there").parse().expect("seconds");
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    assert_eq!(response.header("ratelimit-policy"), Some("\"few\";q=2;w=7200"));
    assert_eq!(response.header("ratelimit"), Some(format!("\"few\";r=0;t={seconds}").as_str()));
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.header("proxy-status"), Some("tollgate; error=http_request_denied; details=\"rate_limited\""));
    let document = response.json();
    assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&document["status"], &document["reason"]), (&json!(429), &json!("rate_limited")));
    assert_eq!(document["violated-policies"], json!(["few"]));
    assert_eq!(document["request_id"], response.request_id());
    assert_eq!(tollgate.logged(&response)["reason"], "rate_limited");
    assert_eq!(client.get("/").status(), 429, "on a connection that stays open");
}

#[test]
fn a_refusal_by_one_limit_takes_nothing_from_another_in_whatever_order() {
    for order in ["[\"all\", \"each\"]", "[\"each\", \"all\"]"] {
        let tollgate = Tollgate::with(&format!(
            r#"
            [limits.all]
            rate = "1/h"
            burst = 5
            key = []
            [limits.each]
            rate = "1/h"
            burst = 2
            key = ["header.x-user"]
            [routes.main]
            auth = "none"
            limits = {order}
            respond = {{ body = "here" }}
            "#
        ));
        let ask = |user: &str| tollgate.get("/").header("x-user", user).send();
        let first = ask("alice").expect(200);
        assert_eq!(first.header("ratelimit"), Some("\"each\";r=1;t=3600, \"all\";r=4;t=3600"), "the scarcest first");
        assert_eq!(first.header("ratelimit-policy"), Some("\"each\";q=2;w=7200, \"all\";q=5;w=18000"));
        ask("alice").expect(200);
        for _ in 0..10 {
            assert_eq!(ask("alice").expect(429).json()["violated-policies"], json!(["each"]));
        }
        for user in ["bob", "bob", "carol"] {
            ask(user).expect(200);
        }
        // What is left of carol's budget is hers still when all of "all" is gone.
        for user in ["carol", "dave", "erin"] {
            assert_eq!(ask(user).expect(429).json()["violated-policies"], json!(["all"]));
        }
        tollgate.wait_for_metric("tollgate_limit_decisions_total{limit=\"each\",result=\"allowed\"}", 5.0);
        tollgate.wait_for_metric("tollgate_limit_decisions_total{limit=\"all\",result=\"allowed\"}", 5.0);
    }
}

#[test]
fn budgets_survive_reloads_that_do_not_change_their_limit() {
    let tollgate = Tollgate::with(&format!(
        "{}[limits.other]\nrate = \"7/h\"\nkey = []\n",
        few("rate = \"1/h\"\nburst = 3\nkey = [\"client.address\"]")
    ));
    assert_eq!(statuses([tollgate.get("/"), tollgate.get("/")]), [200, 200]);
    for (old, new) in
        [("\"7/h\"", "\"8/h\""), ("\"here\"", "\"there\""), ("limits = [\"few\"]", "limits = [\"other\", \"few\"]")]
    {
        tollgate.replace(old, new);
        tollgate.reload().succeeded();
    }
    assert_eq!(statuses([tollgate.get("/"), tollgate.get("/")]), [200, 429]);
    // A reload that fails changes nothing, this included.
    tollgate.replace("\"there\"", "1");
    tollgate.reload().failed(1);
    assert_eq!(tollgate.get("/").send().status(), 429);
}

#[test]
fn requests_in_flight_are_counted_exactly_and_given_back_when_they_end() {
    let (origin, gate) = Origin::gated("late");
    let tollgate = Tollgate::with(&format!(
        "[limits.few]\nconcurrent = 3\nkey = [\"client.address\"]\n[upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.main]\nauth = \"none\"\nlimits = [\"few\"]\nupstream = \"main\"\n",
        origin.addr()
    ));
    let inside: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::connect(tollgate.addr());
            client.begin(&Request::get("/")).expect("sent");
            client
        })
        .collect();
    let mut leaving = Raw::connect(tollgate.addr());
    leaving.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait::until("three requests to arrive", || origin.hits() == 3);
    let response = tollgate.get("/").send().expect(429);
    assert_eq!(response.header("ratelimit-policy"), Some("\"few\";q=3;qu=\"concurrent-requests\""));
    assert_eq!(
        (response.header("retry-after"), &response.json()["reason"]),
        (Some("1"), &json!("concurrency_limited"))
    );
    // One leaves without an answer: its place is free again, and no more than that. (A client that only says that it
    // will send no more still wants its answer.)
    leaving.reset();
    let mut next = Raw::connect(tollgate.addr());
    wait::until("the place to be given back", || {
        next.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let arrived = wait::some("an arrival or an answer", || match origin.hits() {
            4 => Some(true),
            _ => (!next.is_quiet()).then_some(false),
        });
        if !arrived {
            next.response().expect(429);
        }
        arrived
    });
    tollgate.get("/").send().expect(429);
    gate.open();
    for mut client in inside {
        assert_eq!(client.finish("GET").expect("answered").text(), "late");
    }
    assert_eq!(next.response().text(), "late");
    wait::until("every place to be free", || tollgate.get("/").send().status() == 200);
    tollgate.wait_for_metric("tollgate_limit_keys{limit=\"few\"}", 0.0);
}

#[test]
fn a_websocket_holds_its_place_as_long_as_it_is_open() {
    let origin = websocket::echo_origin();
    let tollgate = Tollgate::with(&format!(
        "[limits.few]\nconcurrent = 1\nkey = []\n[upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.main]\nauth = \"none\"\nlimits = [\"few\"]\nupstream = \"main\"\n",
        origin.addr()
    ));
    let (mut socket, _) = websocket::connect(tollgate.addr(), "/", &[]).expect("open");
    socket.send(tungstenite::Message::text("hello")).expect("sent");
    socket.read().expect("echoed");
    let refusal = websocket::connect(tollgate.addr(), "/", &[]).expect_err("refused");
    let tungstenite::Error::Http(response) = *refusal else { panic!("{refusal}") };
    assert_eq!(response.status(), 503, "what all share is nobody's fault");
    socket.close(None).expect("closing");
    while socket.read().is_ok() {}
    drop(socket);
    wait::until("its place to be free", || websocket::connect(tollgate.addr(), "/", &[]).is_ok());
}

#[test]
fn parts_make_one_key_and_what_is_missing_is_one_shared_empty_value() {
    let tollgate = Tollgate::with(&few("rate = \"1/h\"\nburst = 1\nkey = [\"header.x-tenant\", \"query.user\"]"));
    let tenant = |tenant: &str, path: &str| tollgate.get(path).header("x-tenant", tenant);
    // Each of these is a key of its own; parts do not run into one another.
    for request in [
        tenant("a", "/?user=b"),
        tenant("b", "/?user=a"),
        tenant("ab", "/?user="),
        tenant("a", "/"),
        tollgate.get("/?user=a"),
        tollgate.get("/"),
    ] {
        assert_eq!(statuses([request.clone(), request]), [200, 429]);
    }
    // And these are all the last one: leaving something out does not escape the limit.
    for request in [tollgate.get("/x"), tollgate.get("/?other=1"), tollgate.get("/?user="), tenant("", "/")] {
        request.send().expect(429);
    }
    tollgate.wait_for_metric("tollgate_limit_keys{limit=\"few\"}", 6.0);
}

#[test]
fn a_client_cannot_say_that_it_is_another() {
    let limit = "rate = \"1/h\"\nburst = 1\nkey = [\"client.address\"]";
    let asked = |tollgate: &Tollgate| {
        statuses(
            ["203.0.113.1", "203.0.113.2", "::ffff:203.0.113.2", "2001:db8::1", "2001:db8::2", "x"]
                .map(|client| tollgate.get("/").header("x-forwarded-for", client)),
        )
    };
    assert_eq!(asked(&Tollgate::with(&few(limit))), [200, 429, 429, 429, 429, 429]);
    let trusting = Tollgate::with(&format!("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}", few(limit)));
    assert_eq!(asked(&trusting), [200, 200, 429, 200, 429, 200], "by /64, and IPv4 in IPv6 clothes is IPv4");
    // What a client says further left is not believed.
    let spoofed = trusting.get("/").header("x-forwarded-for", "198.51.100.1, 203.0.113.1");
    spoofed.send().expect(429);
}

#[test]
fn limits_by_identity_count_those_who_are_known_and_nobody_else() {
    let key = Key::es256();
    let text = format!(
        r#"
        [auth.corporate]
        type = "jwt"
        issuer = "{ISSUER}"
        audience = ["{AUDIENCE}"]
        algorithms = ["ES256"]
        jwks_file = "jwks.json"
        [limits.per_user]
        rate = "1/h"
        burst = 2
        key = ["auth.subject", "claim.tenant"]
        [routes.main]
        auth = "corporate"
        limits = ["per_user"]
        respond = {{ body = "here" }}
        "#
    );
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
    let ask = |token: &str| tollgate.get("/").bearer(token).send().status();
    for _ in 0..5 {
        assert_eq!(ask(&key.token().forged()), 401);
        assert_eq!(tollgate.get("/").header("x-auth-subject", "alice").send().status(), 401);
    }
    // Another token of the same caller is the same caller.
    let tokens = [key.token().mint(), key.token().claim("jti", "2").mint(), key.token().claim("jti", "3").mint()];
    assert_eq!(tokens.map(|token| ask(&token)), [200, 200, 429]);
    assert_eq!(ask(&key.token().claim("tenant", "other").mint()), 200);
    assert_eq!(ask(&key.token().subject("bob").mint()), 200);
}

#[test]
fn a_listeners_limit_counts_all_that_arrives_there() {
    let tollgate = Tollgate::with(
        r#"
        [listeners.http]
        limits = ["door"]
        [listeners.other]
        [limits.door]
        rate = "1/h"
        burst = 3
        key = ["client.address"]
        [routes.main]
        path = "/main"
        methods = ["GET"]
        auth = "none"
        respond = { body = "here" }
        "#,
    );
    let ask = |method: &str, path: &str| Request::new(method, path).to(tollgate.addr_of("http")).send();
    assert_eq!(ask("GET", "/nowhere").status(), 404);
    assert_eq!(ask("POST", "/main").status(), 405);
    let last = ask("GET", "/main").expect(200);
    assert_eq!(last.header("ratelimit"), Some("\"door\";r=0;t=10800"));
    for path in ["/main", "/nowhere"] {
        let refused = ask("GET", path).expect(429);
        assert!(tollgate.logged(&refused).get("route").is_none());
    }
    assert_eq!(
        Request::get("/main").to(tollgate.addr_of("other")).send().status(),
        200,
        "nothing was said of this one"
    );
}

#[test]
fn a_shadow_limit_decides_counts_and_lets_through() {
    let tollgate = Tollgate::with(&few("rate = \"1/h\"\nburst = 1\nkey = []\nmode = \"shadow\""));
    assert_eq!(statuses([tollgate.get("/"), tollgate.get("/"), tollgate.get("/")]), [200, 200, 200]);
    for (result, count) in [("allowed", 1.0), ("shadowed", 2.0), ("refused", 0.0)] {
        let series = format!("tollgate_limit_decisions_total{{limit=\"few\",result=\"{result}\"}}");
        tollgate.wait_for_metric(&series, count);
    }
}

#[test]
fn a_limit_that_two_routes_name_is_one_budget_unless_its_key_says_otherwise() {
    for (key, statuses_of_both) in [("[]", [200, 429, 429]), ("[\"route\"]", [200, 429, 200])] {
        let tollgate = Tollgate::with(&format!(
            r#"
            [limits.shared]
            rate = "1/h"
            burst = 1
            key = {key}
            [defaults]
            auth = "none"
            limits = ["shared"]
            [routes.one]
            path = "/one"
            respond = {{ body = "one" }}
            [routes.two]
            path = "/two"
            respond = {{ body = "two" }}
            [routes.free]
            path = "/free"
            limits = []
            respond = {{ body = "free" }}
            "#
        ));
        assert_eq!(statuses([tollgate.get("/one"), tollgate.get("/one"), tollgate.get("/two")]), statuses_of_both);
        let free = tollgate.get("/free").send().expect(200);
        assert!(!free.headers.has("ratelimit") && !free.headers.has("ratelimit-policy"));
    }
}

#[test]
fn when_every_tracked_key_is_active_the_operator_has_decided_what_happens() {
    for (on_full, status) in [("allow", 200), ("deny", 429)] {
        let limit = "rate = \"1/h\"\nburst = 1\nkey = [\"header.x-user\"]\nmax_keys = 2";
        let tollgate = Tollgate::with(&few(&format!("{limit}\non_full = \"{on_full}\"")));
        let ask = |user: &str| tollgate.get("/").header("x-user", user).send().status();
        assert_eq!(["alice", "bob", "carol", "carol", "alice"].map(ask), [200, 200, status, status, 429]);
        tollgate.wait_for_metric("tollgate_limit_keys{limit=\"few\"}", 2.0);
        tollgate.wait_for_metric("tollgate_limit_full_total{limit=\"few\"}", 2.0);
    }
}

#[test]
fn streams_of_one_http2_connection_are_requests_like_any_other() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["gateway.test"]);
    let text = format!(
        "[listeners.https]\n[listeners.https.tls]\ncertificates = [{{ cert_file = \"a.pem\", key_file = \"a.key\" }}]\n{}",
        few("rate = \"1/h\"\nburst = 5\nkey = [\"client.address\"]")
    );
    let tollgate = Tollgate::prepared(&text).file("a.pem", identity.cert).file("a.key", identity.key).start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    let exchanges: Vec<_> = (0..20).map(|_| client.begin(&Request::get("/"), true).expect("begun")).collect();
    let passed = exchanges.into_iter().map(|exchange| exchange.finish().expect("answered").status());
    let passed = passed.filter(|status| *status == 200).count();
    assert_eq!(passed, 5);
    assert_eq!(client.get("/").status(), 429);
}

#[test]
fn a_listeners_limit_counts_what_is_refused_for_its_path_or_its_host_too() {
    let tollgate = Tollgate::with(&format!(
        "[listeners.http]\nlimits = [\"few\"]\n{}",
        few("rate = \"1/h\"\nburst = 2\nkey = [\"client.address\"]").replace("limits = [\"few\"]", "")
    ));
    let bad_path = tollgate.get("/a/%00").send();
    assert_eq!((bad_path.status(), bad_path.json()["reason"].as_str()), (400, Some("bad_path")));
    assert_eq!(tollgate.get("/").host("a..b").send().status(), 400);
    assert_eq!(statuses([tollgate.get("/a/%00"), tollgate.get("/").host("a..b"), tollgate.get("/")]), [429; 3]);
}
