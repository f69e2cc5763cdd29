//! HTTP/2 towards clients: the same strictness as for HTTP/1, and what is h2's own.

use std::sync::Arc;

use rustls::ClientConfig;

use super::support::certs::Ca;
use super::support::h2::H2Client;
use super::support::process::Signal;
use super::support::{Origin, Raw, Request, Tollgate, open_to, wait};

struct Site {
    tollgate: Tollgate,
    trusting: Arc<ClientConfig>,
}

impl Site {
    fn client(&self) -> H2Client {
        H2Client::connect_tls(self.tollgate.addr(), "a.example", Arc::clone(&self.trusting))
    }
}

fn before(origin: &Origin, listener: &str, more: &str) -> Site {
    let ca = Ca::new("ca");
    let site = ca.server(&["a.example"]);
    let tollgate = Tollgate::prepared(&format!(
        r#"
            [listeners.https]
            tls = {{ certificates = [{{ cert_file = "site.pem", key_file = "site.key" }}] }}
            {listener}
            [upstreams.app]
            endpoints = ["{}"]
            [routes.all]
            auth = "none"
            upstream = "app"
            {more}
        "#,
        origin.addr()
    ))
    .file("site.pem", &site.cert)
    .file("site.key", &site.key)
    .start();
    Site { tollgate, trusting: ca.trusting(&["h2", "http/1.1"]) }
}

#[test]
fn many_requests_share_a_connection() {
    let origin = Origin::scripted(|request, connection| {
        connection.reply(200, &[], format!("{} {}", request.target, String::from_utf8_lossy(&request.body)));
    });
    let site = before(&origin, "", "");
    let mut client = site.client();
    let requests: Vec<_> = (0..50).map(|n| Request::new("POST", &format!("/{n}")).body(format!("body {n}"))).collect();
    for (n, request) in requests.iter().enumerate() {
        assert_eq!(client.send(request).expect(200).text(), format!("/{n} body {n}"));
    }
    site.tollgate.wait_for_metric("tollgate_connections_total{listener=\"https\",result=\"accepted\"}", 1.0);
}

#[test]
fn an_origin_sees_one_host_one_cookie_and_no_words_of_h2() {
    let origin = Origin::echoing_heads();
    let site = before(&origin, "", "");
    let request = Request::get("/a/../b?c").header("cookie", "a=1").header("cookie", "b=2").header("cookie", "c=3");
    site.client().send(&request.header("te", "trailers")).expect(200);
    let head = origin.request();
    assert_eq!((head.target.as_str(), head.version.as_str()), ("/b?c", "HTTP/1.1"));
    assert_eq!(head.headers.all("host"), ["a.example"]);
    assert_eq!(head.headers.all("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(head.header("x-forwarded-proto"), Some("https"));
    assert_eq!(head.header("x-forwarded-host"), Some("a.example"));
    assert_eq!(head.header("te"), None);
}

/// cloudflare/pingora#935: an empty DATA frame at the end of a body must not become a second last chunk, which the
/// next request on the origin's connection would begin with.
#[test]
fn a_body_that_ends_in_an_empty_frame_ends_once() {
    let origin = Origin::echoing_bodies();
    let site = before(&origin, "", "");
    let mut client = site.client();
    for _ in 0..20 {
        let mut exchange = client.begin(&Request::new("POST", "/"), false).expect("begun");
        exchange.send("body").expect("sent");
        exchange.send_last("").expect("sent");
        assert_eq!(exchange.finish().expect("an answer").expect(200).text(), "body");
    }
    // A connection may not be back yet when the next request is there.
    assert!(origin.connections() < 5, "the connections to the origin stay in step: {}", origin.connections());
}

#[test]
fn heads_that_h2_allows_and_we_do_not_are_refused() {
    let origin = Origin::replying("secret");
    let site = before(&origin, "max_headers = 10", "");
    let mut client = site.client();
    let many = (0..11).fold(Request::get("/"), |request, n| request.header(&format!("a{n}"), "x"));
    let cookies = (0..20).fold(Request::get("/"), |request, _| request.header("cookie", "a=1"));
    assert_eq!(client.send(&many).expect(431).json()["reason"], "too_many_headers");
    assert_eq!(client.send(&cookies).status(), 200);
    assert!(client.try_send(&Request::get("/").header("content-length", "0, 0")).is_err());
    assert_eq!(client.send(&Request::get("/a%2fb")).expect(400).json()["reason"], "bad_path");
    assert_eq!(client.send(&Request::get("/").host("b.example")).expect(421).json()["reason"], "misdirected");
    assert_eq!(client.send(&Request::get("/").header("host", "b.example")).status(), 400);
    assert_eq!(client.send(&Request::get("/")).status(), 200, "the connection goes on");
    assert_eq!(origin.hits(), 2);
    site.tollgate.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"too_many_headers\"}", 1.0);
}

#[test]
fn a_head_larger_than_allowed_is_refused() {
    let origin = Origin::replying("secret");
    let site = before(&origin, "max_header_bytes = \"1KiB\"", "");
    let large = Request::get("/").header("a", &"x".repeat(2000));
    match site.client().try_send(&large) {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_body_that_is_not_as_long_as_announced_is_an_error() {
    let origin = Origin::echoing_bodies();
    let site = before(&origin, "", "");
    let mut client = site.client();
    for (announced, sent) in [("10", "short"), ("3", "too long")] {
        let mut exchange =
            client.begin(&Request::new("POST", "/").header("content-length", announced), false).expect("begun");
        let _ = exchange.send_last(sent);
        let answer = exchange.finish();
        assert!(answer.as_ref().map_or(true, |answer| answer.status() >= 400), "{announced}: {answer:?}");
    }
    assert!(origin.requests().is_empty());
    assert_eq!(client.send(&Request::new("POST", "/").body("x")).text(), "x");
}

#[test]
fn identity_headers_of_an_h2_client_are_removed() {
    let origin = Origin::echoing_heads();
    let auth = r#"
        [auth.corporate]
        type = "jwt"
        issuer = "https://id.example"
        audience = ["app"]
        algorithms = ["HS256"]
        secret = "a secret that is long enough for it"
        identity_headers = { x-auth-subject = "sub" }
    "#;
    let site = before(&origin, "", auth);
    let request = Request::get("/").header("x-auth-subject", "root").header("x_auth_subject", "root");
    let head = site.client().send(&request).expect(200).text();
    assert!(!head.contains("root"), "{head}");
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let origin = Origin::echoing_bodies();
    let site = before(&origin, "", "max_body = \"10B\"");
    let mut client = site.client();
    assert_eq!(client.send(&Request::new("POST", "/").body("0123456789")).status(), 200);
    assert_eq!(client.send(&Request::new("POST", "/").body("0123456789a")).status(), 413);
    assert_eq!(client.send(&Request::get("/")).status(), 200);
}

#[test]
fn a_client_that_stops_sending_its_body_does_not_stay_for_ever() {
    let origin = Origin::echoing_bodies();
    let site = before(&origin, "", "timeout = \"500ms\"");
    let mut client = site.client();
    let mut exchange = client.begin(&Request::new("POST", "/stalled"), false).expect("begun");
    exchange.send("half").expect("sent");
    match exchange.finish() {
        Ok(response) => assert_eq!(response.expect(408).json()["reason"], "client_timeout"),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    let line = site.tollgate.logged_where("its line", |line| line["path"] == "/stalled");
    assert_eq!(line["reason"], "client_timeout");
    assert_eq!(client.get("/").status(), 200, "the connection goes on");
}

/// An address at which nobody answers: its queue is full. As long as the sockets are held.
fn unanswered() -> (std::net::SocketAddr, Vec<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    rustix::net::listen(&listener, 0).expect("a shorter queue");
    let addr = listener.local_addr().expect("bound");
    let patience = std::time::Duration::from_millis(200);
    let mut held = Vec::new();
    while let Ok(socket) = std::net::TcpStream::connect_timeout(&addr, patience) {
        held.push(socket);
    }
    // Listens until the process ends, like those that wait in its queue.
    std::mem::forget(listener);
    (addr, held)
}

/// While an upstream was connected to, a client that reset its streams had as many requests under way as it could send.
#[test]
fn a_client_that_opens_and_resets_streams_is_told_to_calm_down() {
    let origin = Origin::replying("");
    let (addr, _held) = unanswered();
    let more = format!(
        "[upstreams.slow]\nendpoints = [\"{addr}\"]\ntimeouts = {{ connect = \"8s\" }}\n\
         [routes.slow]\npath = \"/slow\"\nauth = \"none\"\nupstream = \"slow\"\n"
    );
    let site = before(&origin, "", &more);
    let mut client = site.client();
    let in_flight = "tollgate_http_requests_in_flight{route=\"slow\"}";
    let mut begin = || (0..100).map(|_| client.begin(&Request::get("/slow"), true)).collect::<Result<Vec<_>, _>>();
    for under_way in [100.0, 200.0] {
        let mut begun = begin().expect("begun");
        site.tollgate.wait_for_metric(in_flight, under_way);
        begun.iter_mut().for_each(|exchange| exchange.cancel());
    }
    let last = begin();
    site.tollgate.wait_for_metric("tollgate_refused_total{reason=\"concurrency_limited\"}", 1.0);
    drop(last);
    let error = client.closed().expect_err("told to calm down");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(site.tollgate.metric(in_flight).is_none_or(|count| count <= 256.0));
    assert_eq!(site.client().get("/").status(), 200);
    site.tollgate.wait_for_metric(in_flight, 0.0);
}

#[test]
fn a_drain_tells_h2_clients_and_finishes_what_they_began() {
    let (sender, go) = std::sync::mpsc::channel::<()>();
    let go = std::sync::Mutex::new(go);
    let origin = Origin::scripted(move |_, connection| {
        let _ = go.lock().expect("one user").recv();
        connection.reply(200, &[], "finished");
    });
    let mut site = before(&origin, "", "");
    let mut client = site.client();
    let exchange = client.begin(&Request::get("/"), true).expect("begun");
    wait::until("the request to arrive", || origin.hits() == 1);
    let pid = site.tollgate.pid();
    site.tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || site.tollgate.stderr().contains("draining"));
    sender.send(()).expect("a script that waits");
    assert_eq!(exchange.finish().expect("an answer").text(), "finished");
    client.closed().expect("a goodbye, not an error");
    assert_eq!(site.tollgate.ended(pid), 0);
}

#[test]
fn a_client_without_h2_is_served_on_the_same_listener() {
    let origin = Origin::replying("ok");
    let site = before(&origin, "", "");
    let ask = |protocols: &[&str]| {
        let mut config = ClientConfig::clone(&site.trusting);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Request::get("/").over_tls(site.tollgate.addr(), "a.example", Arc::new(config)).send().text()
    };
    assert_eq!(ask(&["http/1.1"]), "ok");
    assert_eq!(ask(&[]), "ok");
}

#[test]
fn a_client_of_a_protocol_that_is_not_spoken_is_let_go_and_counted() {
    let origin = Origin::replying("ok");
    let site = before(&origin, "protocols = [\"h2\"]", "");
    let mut config = ClientConfig::clone(&site.trusting);
    config.alpn_protocols = Vec::new();
    let request = Request::get("/").over_tls(site.tollgate.addr(), "a.example", Arc::new(config));
    assert!(request.try_send().is_err());
    site.tollgate.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"unsupported\"}", 1.0);
}

#[test]
fn a_handshake_that_fails_is_counted_and_costs_nobody_else() {
    let origin = Origin::replying("ok");
    let site = before(&origin, "", "");
    let answer = super::support::raw::exchange(site.tollgate.addr(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    site.tollgate.wait_for_metric("tollgate_refused_total{listener=\"https\",reason=\"tls_handshake\"}", 1.0);
    assert_eq!(site.client().get("/").text(), "ok");
}

fn cleartext(origin: &Origin, listener: &str) -> Tollgate {
    Tollgate::with(&format!("[listeners.h2c]\nprotocols = [\"h2c\"]\n{listener}\n{}", open_to(&[origin.addr()])))
}

#[test]
fn without_tls_it_has_a_listener_of_its_own() {
    let origin = Origin::echoing_heads();
    let tollgate = cleartext(&origin, "");
    let mut client = H2Client::cleartext(tollgate.addr());
    for n in 0..3 {
        client.get(&format!("/{n}")).expect(200);
    }
    let head = origin.requests().pop().expect("it has arrived");
    assert_eq!((head.version.as_str(), head.header("x-forwarded-proto")), ("HTTP/1.1", Some("http")));
    assert_eq!(client.get("/a%2fb").expect(400).json()["reason"], "bad_path");
    let logged = tollgate.logged_where("the refusal", |line| line["status"] == 400);
    assert_eq!((&logged["proto"], &logged["scheme"]), (&"HTTP/2.0".into(), &"http".into()));
    tollgate.wait_for_metric("tollgate_connections_total{listener=\"h2c\",result=\"accepted\"}", 1.0);
}

#[test]
fn nothing_but_prior_knowledge_is_served_without_tls() {
    let origin = Origin::replying("secret");
    let tollgate = cleartext(&origin, "header_timeout = \"200ms\"");
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                   http2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    for request in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", upgrade] {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(request);
        let answer = raw.rest().unwrap_or_else(|_| Vec::new());
        assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{answer:?}");
    }
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"h2c\",reason=\"malformed_request\"}", 2.0);
    // A preface has the time of a head.
    let mut slow = Raw::connect(tollgate.addr());
    slow.send("PRI * HTTP/2.0\r\n\r\nSM");
    drop(slow.rest());
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"h2c\",reason=\"header_timeout\"}", 1.0);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn behind_a_balancer_the_preface_follows_its_header() {
    let origin = Origin::echoing_heads();
    let listener = "proxy_protocol = \"required\"\n[server]\ntrusted_proxies = [\"127.0.0.1\"]";
    let tollgate = cleartext(&origin, listener);
    let mut client = H2Client::cleartext_behind(tollgate.addr(), b"PROXY TCP4 192.0.2.7 198.51.100.1 1 443\r\n");
    client.get("/").expect(200);
    client.get("/").expect(200);
    assert!(origin.requests().iter().all(|head| head.header("x-forwarded-for") == Some("192.0.2.7")));
}
