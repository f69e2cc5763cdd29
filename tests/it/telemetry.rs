//! What is left of a request: its numbers, and its one line.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use regex::Regex;
use serde_json::{Value, json};

use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::jwt::{AUDIENCE, ISSUER, JwksServer, Key};
use crate::support::process::Signal;
use crate::support::{Client, Origin, Raw, Request, Tollgate, open_to, ports, wait, websocket};

/// Everything that can happen to a request, at two listeners.
fn everything(origin: &Origin, issuer: &JwksServer) -> String {
    format!(
        r#"
        [listeners.http]
        [listeners.https]
        [listeners.https.tls]
        certificates = [{{ cert_file = "gateway.pem", key_file = "gateway.key" }}]
        [auth.corporate]
        type = "jwt"
        issuer = "{ISSUER}"
        audience = ["{AUDIENCE}"]
        algorithms = ["ES256"]
        jwks_url = "{}"
        [limits.few]
        rate = "1/h"
        burst = 2
        key = ["client.address"]
        [upstreams.orders]
        endpoints = ["{}"]
        [upstreams.gone]
        endpoints = ["{}"]
        [defaults]
        auth = "none"
        [routes.orders]
        path = "/orders/*"
        upstream = "orders"
        [routes.private]
        path = "/private"
        auth = "corporate"
        upstream = "orders"
        [routes.few]
        path = "/few"
        limits = ["few"]
        respond = {{ body = "one of few" }}
        [routes.gone]
        path = "/gone"
        upstream = "gone"
        [routes.moved]
        path = "/moved"
        redirect = {{ to = "/orders/1" }}
        [log.access]
        fields = ["claim.tenant", "header.referer", "cookie.theme", "query.q"]
        "#,
        issuer.url(),
        origin.addr(),
        ports::claim()
    )
}

struct Scene {
    tollgate: Tollgate,
    key: Key,
    ca: Ca,
    origin: Origin,
    _issuer: JwksServer,
}

fn scene() -> Scene {
    let (key, ca, origin) = (Key::es256(), Ca::new("an authority"), Origin::replying("hello"));
    let issuer = JwksServer::serving(&[&key]);
    let identity = ca.server(&["gateway.test"]);
    let tollgate = Tollgate::prepared(&everything(&origin, &issuer))
        .file("gateway.pem", &identity.cert)
        .file("gateway.key", &identity.key)
        .start();
    Scene { tollgate, key, ca, origin, _issuer: issuer }
}

impl Scene {
    fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, path).to(self.tollgate.addr_of("http"))
    }

    fn h2(&self) -> H2Client {
        H2Client::connect_tls(self.tollgate.addr_of("https"), "gateway.test", self.ca.trusting(&["h2"]))
    }

    fn series(&self) -> Vec<String> {
        let text = self.tollgate.admin("/metrics").expect(200).text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    }
}

#[test]
fn each_room_counts_under_the_names_of_the_configuration() {
    let scene = scene();
    let (tollgate, token) = (&scene.tollgate, scene.key.token().mint());
    for (request, status) in [
        (scene.request("GET", "/orders/1"), 200),
        (scene.request("POST", "/orders/1").body("12345"), 200),
        (scene.request("PROPFIND", "/orders/1"), 200),
        (scene.request("BREW", "/orders/1"), 200),
        (scene.request("GET", "/private").bearer(&token), 200),
        (scene.request("GET", "/private"), 401),
        (scene.request("GET", "/few"), 200),
        (scene.request("GET", "/few"), 200),
        (scene.request("GET", "/few"), 429),
        (scene.request("GET", "/gone"), 502),
        (scene.request("GET", "/moved"), 308),
        (scene.request("GET", "/nowhere"), 404),
        (scene.request("GET", "/a%00"), 400),
    ] {
        request.clone().send().expect(status);
    }
    scene.h2().get("/orders/2").expect(200);
    for (series, value) in [
        ("tollgate_http_requests_total{listener=\"http\",route=\"orders\",method=\"GET\",code=\"200\"}", 1.0),
        ("tollgate_http_requests_total{listener=\"https\",route=\"orders\",method=\"GET\",code=\"200\"}", 1.0),
        ("tollgate_http_requests_total{listener=\"http\",route=\"orders\",method=\"POST\",code=\"200\"}", 1.0),
        ("tollgate_http_requests_total{listener=\"http\",route=\"orders\",method=\"_other\",code=\"200\"}", 2.0),
        ("tollgate_http_requests_total{route=\"private\",code=\"401\"}", 1.0),
        ("tollgate_http_requests_total{route=\"few\",code=\"429\"}", 1.0),
        ("tollgate_http_requests_total{route=\"gone\",code=\"502\"}", 1.0),
        ("tollgate_http_requests_total{route=\"moved\",code=\"308\"}", 1.0),
        ("tollgate_http_requests_total{route=\"_none\",code=\"404\"}", 1.0),
        ("tollgate_http_requests_total{route=\"_none\",code=\"400\"}", 1.0),
        ("tollgate_http_requests_total{}", 14.0),
        ("tollgate_http_request_duration_seconds_count{route=\"orders\"}", 5.0),
        ("tollgate_http_request_duration_seconds_bucket{route=\"orders\",le=\"+Inf\"}", 5.0),
        ("tollgate_http_requests_in_flight{}", 0.0),
        ("tollgate_refused_total{listener=\"http\",reason=\"no_credentials\"}", 1.0),
        ("tollgate_refused_total{listener=\"http\",reason=\"rate_limited\"}", 1.0),
        ("tollgate_refused_total{listener=\"http\",reason=\"connect_failed\"}", 1.0),
        ("tollgate_refused_total{listener=\"http\",reason=\"no_route\"}", 1.0),
        ("tollgate_refused_total{listener=\"http\",reason=\"bad_path\"}", 1.0),
        ("tollgate_refused_total{}", 5.0),
        ("tollgate_connections_total{listener=\"http\",result=\"accepted\"}", 13.0),
        ("tollgate_connections_total{listener=\"https\",result=\"accepted\"}", 1.0),
        ("tollgate_connections{}", 0.0),
        ("tollgate_auth_decisions_total{auth=\"corporate\",result=\"accepted\"}", 1.0),
        ("tollgate_auth_decisions_total{auth=\"corporate\",result=\"no_credentials\"}", 1.0),
        ("tollgate_auth_keys{auth=\"corporate\"}", 1.0),
        ("tollgate_auth_remembered_tokens{auth=\"corporate\"}", 1.0),
        ("tollgate_jwks_refresh_total{auth=\"corporate\",result=\"success\"}", 1.0),
        ("tollgate_limit_decisions_total{limit=\"few\",result=\"allowed\"}", 2.0),
        ("tollgate_limit_decisions_total{limit=\"few\",result=\"refused\"}", 1.0),
        ("tollgate_limit_keys{limit=\"few\"}", 1.0),
        ("tollgate_upstream_requests_total{upstream=\"orders\",result=\"answered\"}", 6.0),
        ("tollgate_upstream_requests_total{upstream=\"gone\",result=\"connect_failed\"}", 1.0),
        ("tollgate_endpoint_requests_in_flight{}", 0.0),
        ("tollgate_upstream_request_duration_seconds_count{upstream=\"orders\"}", 6.0),
        ("tollgate_config_generation", 1.0),
        ("tollgate_access_log_dropped_total", 0.0),
        ("tollgate_build_info", 1.0),
    ] {
        tollgate.wait_for_metric(series, value);
    }
    let names: BTreeSet<_> =
        scene.series().iter().map(|series| series.split('{').next().expect("a name").to_owned()).collect();
    for name in [
        "tollgate_jwks_age_seconds",
        "tollgate_limit_evictions_total",
        "tollgate_endpoint_healthy",
        "tollgate_certificate_expiry_timestamp_seconds",
        "tollgate_config_reloads_total",
        "tollgate_upgrades_total",
        "tollgate_retries_total",
    ] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
}

#[test]
fn nothing_that_a_client_sends_makes_a_new_series() {
    let scene = scene();
    let ask = |what: &str| {
        let path = format!("/orders/{what}?{what}={what}");
        for request in [
            scene.request(&what.to_uppercase(), &path),
            scene.request("GET", &path).host(&format!("{what}.test")).header("user-agent", what),
            scene.request("GET", &format!("/nowhere/{what}")).header("x-request-id", what),
            scene.request("GET", "/private").bearer(what),
        ] {
            request.send();
        }
    };
    ask("first");
    scene.tollgate.wait_for_metric("tollgate_http_requests_total{}", 4.0);
    let before = scene.series();
    for index in 0..25 {
        ask(&format!("other{index}"));
    }
    scene.tollgate.wait_for_metric("tollgate_http_requests_total{}", 104.0);
    assert_eq!(scene.series(), before);
}

#[test]
fn each_request_leaves_exactly_one_line_whatever_became_of_it() {
    let scene = scene();
    let mut ids = Vec::new();
    let mut client = Client::connect(scene.tollgate.addr_of("http"));
    let mut h2 = scene.h2();
    for index in 0..10 {
        for (method, path) in [
            ("GET", "/orders/1"),
            ("HEAD", "/orders/1"),
            ("POST", "/orders/1"),
            ("GET", "/private"),
            ("GET", "/few"),
            ("GET", "/moved"),
            ("GET", "/nowhere"),
            ("GET", "/a%2Fb"),
            ("OPTIONS", "/orders/1"),
        ] {
            let request = Request::new(method, &format!("{path}?n={index}"));
            ids.push(client.send(&request).request_id().to_owned());
            ids.push(h2.send(&request).request_id().to_owned());
        }
        ids.push(scene.request("GET", "/gone").send().expect(502).request_id().to_owned());
    }
    let last = scene.request("GET", "/orders/last").send();
    scene.tollgate.logged(&last);
    ids.push(last.request_id().to_owned());
    let all = ids.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(all, ids.len(), "an id is one request's");
    let logged = || scene.tollgate.access_log().iter().map(|line| line["request_id"].clone()).collect::<Vec<_>>();
    // Requests end when they do: the last line is not the last request's.
    wait::until("every line", || logged().len() >= ids.len());
    let mut logged: Vec<_> = logged().iter().map(|id| id.as_str().expect("text").to_owned()).collect();
    logged.sort_unstable();
    ids.sort_unstable();
    assert_eq!(logged, ids);
}

#[test]
fn a_line_says_what_the_page_about_it_says() {
    let scene = scene();
    let token = scene.key.token().claim("tenant", "gold").mint();
    let request =
        scene.request("POST", "/private/../private?q=1&access_token=hunter2&KEY=x").bearer(&token).body("12345");
    let request = request.header("user-agent", "a \"quoted\" agent\\").header("referer", "https://a.test/");
    let response = request.host("H.Test:8080").header("cookie", "a=b; theme=dark").send().expect(200);
    let line = scene.tollgate.logged(&response);
    let expected = [
        ("client_ip", json!("127.0.0.1")),
        ("peer_ip", json!("127.0.0.1")),
        ("listener", json!("http")),
        ("route", json!("private")),
        ("upstream", json!("orders")),
        ("endpoint", json!(scene.origin.addr().to_string())),
        ("method", json!("POST")),
        ("scheme", json!("http")),
        ("host", json!("h.test")),
        ("path", json!("/private")),
        ("query", json!("q=1&access_token=***&KEY=***")),
        ("proto", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(5)),
        ("attempts", json!(1)),
        ("auth", json!("corporate")),
        ("user_agent", json!("a \"quoted\" agent\\")),
        ("config_generation", json!(1)),
        ("claim.tenant", json!("gold")),
        ("header.referer", json!("https://a.test/")),
        ("cookie.theme", json!("dark")),
        ("query.q", json!("1")),
    ];
    for (name, value) in &expected {
        assert_eq!(line[*name], *value, "{name}");
    }
    let time = Regex::new(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$").expect("a pattern");
    assert!(time.is_match(line["ts"].as_str().expect("text")), "{line}");
    let (whole, first) = (line["duration_ms"].as_f64().expect("a number"), line["first_byte_ms"].as_f64());
    assert!(first.is_some_and(|first| (0.0..=whole).contains(&first)), "{line}");
    let names: BTreeSet<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    let others = ["ts", "request_id", "duration_ms", "first_byte_ms"];
    assert_eq!(names, expected.iter().map(|(name, _)| *name).chain(others).collect());
    // What there is not is left out.
    let line = scene.tollgate.logged(&scene.request("GET", "/nowhere").send());
    for name in
        ["route", "upstream", "endpoint", "query", "auth", "user_agent", "first_byte_ms", "tls_version", "query.q"]
    {
        assert!(line.get(name).is_none(), "{name} in {line}");
    }
    assert_eq!((&line["attempts"], &line["reason"]), (&json!(0), &json!("no_route")));
}

#[test]
fn a_retried_request_is_one_line_that_says_how_often_and_where_it_ended() {
    let origin = Origin::replying("there");
    let tollgate = Tollgate::with(&open_to(&[ports::claim(), origin.addr()]));
    // Whose turn it is at first is not said; after two requests both were asked.
    let lines =
        [tollgate.get("/").send(), tollgate.get("/").send()].map(|response| tollgate.logged(&response.expect(200)));
    assert!(lines.iter().all(|line| line["endpoint"] == origin.addr().to_string()), "{lines:?}");
    let mut attempts = lines.each_ref().map(|line| line["attempts"].as_u64().expect("a number"));
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(tollgate.access_log().len(), 2);
}

#[test]
fn a_client_that_leaves_is_a_499_and_a_websocket_is_a_101_when_it_ends() {
    let (hanging, echo) = (Origin::hanging(), websocket::echo_origin());
    let tollgate = Tollgate::with(&format!(
        "{}[upstreams.echo]\nendpoints = [\"{}\"]\n[routes.echo]\npath = \"/echo\"\nauth = \"none\"\nupstream = \"echo\"\n",
        open_to(&[hanging.addr()]),
        echo.addr()
    ));
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET /left HTTP/1.1\r\nhost: a\r\n\r\n");
    wait::until("the request to arrive", || hanging.hits() == 1);
    raw.reset();
    let line = tollgate.logged_where("the one that left", |line| line["path"] == "/left");
    assert_eq!((&line["status"], &line["reason"]), (&json!(499), &json!("client_aborted")));
    let (mut socket, _) = websocket::connect(tollgate.addr(), "/echo", &[]).expect("open");
    socket.send(tungstenite::Message::text("hello")).expect("sent");
    socket.read().expect("echoed");
    assert!(tollgate.access_log().iter().all(|line| line["path"] != "/echo"), "it goes on");
    socket.close(None).expect("closing");
    while socket.read().is_ok() {}
    drop(socket);
    let line = tollgate.logged_where("the websocket", |line| line["path"] == "/echo");
    assert_eq!(line["status"], 101);
    assert!(line["bytes_in"].as_u64() > Some(5) && line["bytes_out"].as_u64() > Some(5), "{line}");
}

#[test]
fn whatever_a_client_sends_a_line_is_one_object() {
    let tollgate = Tollgate::with(&open_to(&[Origin::replying("").addr()]));
    for agent in [&b"\x80\xff\"\\"[..], b"a\tb", b"{\"status\":200}", b"\xe2\x80\xa8"] {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send([b"GET /%22%5B?a=%22 HTTP/1.1\r\nhost: a\r\nuser-agent: ", agent, b"\r\n\r\n"].concat());
        raw.response();
    }
    // Reading it fails on a line that is none.
    wait::until("four lines", || tollgate.access_log().len() == 4);
}

#[test]
fn sampling_keeps_an_exact_share_of_what_went_well_and_all_that_did_not() {
    let tollgate = Tollgate::with(
        "[log.access]\nsample = 0.1\n\
         [routes.main]\npath = \"/main\"\nauth = \"none\"\nrespond = { body = \"\" }\n",
    );
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..100 {
        client.get("/main").expect(200);
        client.get("/nowhere").expect(404);
    }
    tollgate.logged(&client.get("/the-last-one"));
    let count = |status: u16| tollgate.access_log().iter().filter(|line| line["status"] == status).count();
    assert_eq!((count(200), count(404)), (10, 101));
    tollgate.wait_for_metric("tollgate_http_requests_total{code=\"200\"}", 100.0);
}

/// The whole file once `line` stands in it.
fn text_with(tollgate: &Tollgate, file: &str, line: &str) -> String {
    wait::some(line, || fs::read_to_string(tollgate.path(file)).ok().filter(|text| text.contains(line)))
}

#[test]
fn the_combined_format_is_that_of_other_servers() {
    let key = Key::es256();
    let text = format!(
        "[auth.corporate]\ntype = \"jwt\"\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         algorithms = [\"ES256\"]\njwks_file = \"jwks.json\"\n\
         [log.access]\nformat = \"combined\"\nfields = [\"auth.subject\"]\n\
         [routes.main]\nauth = \"corporate\"\nrespond = {{ body = \"hello\" }}\n"
    );
    let tollgate = Tollgate::prepared(&text).file("jwks.json", crate::support::jwt::key_set(&[&key])).start();
    let request = tollgate.get("/a?b=c&token=x").bearer(&key.token().mint());
    request.header("referer", "https://a.test/?x").header("user-agent", "curl \"1\"").send().expect(200);
    tollgate.get("/last").send().expect(401);
    // Lines stand in the order in which requests end.
    let text = wait::some("two lines", || {
        let text = fs::read_to_string(tollgate.access_log_file()).ok()?;
        (text.matches('\n').count() == 2).then_some(text)
    });
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_by_key(|line| line.contains("/last"));
    let time = r"\[\d\d/[A-Z][a-z]{2}/20\d\d:\d\d:\d\d:\d\d \+0000\]";
    let first = format!(
        r#"^127\.0\.0\.1 - alice {time} "GET /a\?b=c&token=\*\*\* HTTP/1\.1" 200 5 "https://a\.test/\?x" "curl \\"1\\""$"#
    );
    assert!(Regex::new(&first).expect("a pattern").is_match(lines[0]), "{}", lines[0]);
    let last = format!(r#"^127\.0\.0\.1 - - {time} "GET /last HTTP/1\.1" 401 \d+ "-" "-"$"#);
    assert!(Regex::new(&last).expect("a pattern").is_match(lines[1]), "{}", lines[1]);
}

#[test]
fn lines_go_to_the_output_that_was_chosen_or_nowhere() {
    let here = "[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n";
    for (output, file) in [("stdout", "stdout.log"), ("stderr", "stderr.log")] {
        let tollgate = Tollgate::with(&format!("[log.access]\noutput = \"{output}\"\n{here}"));
        let id = tollgate.get("/chosen").send().request_id().to_owned();
        let text = text_with(&tollgate, file, &id);
        let line: Value = text
            .lines()
            .find(|line| line.contains(&id))
            .map(|line| serde_json::from_str(line).expect("an object"))
            .expect("a line");
        assert_eq!(line["path"], "/chosen");
        assert!(!tollgate.access_log_file().exists());
    }
    let mut off = Tollgate::with(&format!("[log.access]\nformat = \"off\"\noutput = \"stdout\"\n{here}"));
    off.get("/nowhere").send().expect(200);
    off.wait_for_metric("tollgate_http_requests_total{}", 1.0);
    off.stop();
    assert_eq!(fs::read_to_string(off.path("stdout.log")).expect("read"), "");
}

#[test]
fn the_last_lines_are_written_before_the_process_leaves() {
    let mut tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n");
    let ids: BTreeSet<_> = (0..50).map(|_| tollgate.get("/").send().request_id().to_owned()).collect();
    tollgate.stop();
    let logged: BTreeSet<_> =
        tollgate.access_log().iter().map(|line| line["request_id"].as_str().expect("text").to_owned()).collect();
    assert_eq!(logged, ids);
}

#[test]
fn a_log_that_is_rotated_under_load_loses_no_line() {
    let tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n");
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rotated = |index: usize| tollgate.path(&format!("access.log.{index}"));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(tollgate.addr());
                while !over.load(Ordering::Relaxed) {
                    client.get("/").expect(200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for index in 0..5 {
            let before = asked.load(Ordering::Relaxed);
            wait::until("some requests", || asked.load(Ordering::Relaxed) > before + 50);
            fs::rename(tollgate.access_log_file(), rotated(index)).expect("moved");
            tollgate.signal(Signal::USR1);
            wait::until("a new file", || tollgate.access_log_file().exists());
        }
        over.store(true, Ordering::Relaxed);
    });
    let last = tollgate.get("/last").send();
    tollgate.logged(&last);
    let lines = |file| fs::read_to_string(file).expect("read").lines().count();
    let total = || (0..5).map(|index| lines(rotated(index))).sum::<usize>() + lines(tollgate.access_log_file());
    wait::until("every line", || total() > asked.load(Ordering::Relaxed));
    assert_eq!(total(), asked.load(Ordering::Relaxed) + 1);
    tollgate.wait_for_metric("tollgate_access_log_dropped_total", 0.0);
}
