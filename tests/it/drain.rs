//! Leaving without losing anybody.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::certs::Ca;
use crate::support::h2::{H2Client, H2Origin};
use crate::support::process::Signal;
use crate::support::{Client, Origin, Raw, Request, Tollgate, open_to, wait, websocket};

/// Well below the drain timeout of these tests, which nobody should have to wait for.
const SOON: Duration = Duration::from_secs(8);
/// A drain timeout that would fail a test that waits for it.
const LONG: &str = "[server]\ndrain_timeout = \"90s\"\n";

#[test]
fn a_request_in_flight_is_finished_and_nobody_is_waited_for_after_it() {
    let (origin, gate) = Origin::gated("late");
    let mut tollgate = Tollgate::with(&format!("{LONG}{}", open_to(&[origin.addr()])));
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    let addr = tollgate.addr();
    wait::until("the listener to be closed", || TcpStream::connect(addr).is_err());
    gate.open();
    let answered = Instant::now();
    let response = client.finish("GET").expect("answered");
    assert_eq!((response.status(), response.text().as_str()), (200, "late"));
    assert_eq!(response.header("connection"), Some("close"), "it was decided while the request was in flight");
    assert_eq!(tollgate.ended(pid), 0);
    assert!(answered.elapsed() < SOON, "left after {:?}", answered.elapsed());
}

#[test]
fn readiness_fails_first_and_listeners_accept_for_the_drain_delay() {
    let origin = Origin::replying("still here");
    let text = format!("[server]\ndrain_delay = \"4s\"\n{}", open_to(&[origin.addr()]));
    let mut tollgate = Tollgate::with(&text);
    let pid = tollgate.pid();
    let begin = Instant::now();
    tollgate.signal(Signal::TERM);
    wait::until("readiness to fail", || tollgate.readiness() == Some(503));
    assert_eq!(tollgate.admin("/healthz").status(), 200, "it lives");
    assert_eq!(tollgate.get("/").send().text(), "still here");
    assert!(begin.elapsed() < Duration::from_secs(4), "the machine is too slow for this test");
    assert_eq!(tollgate.ended(pid), 0);
    assert!(begin.elapsed() >= Duration::from_secs(4), "left after {:?}", begin.elapsed());
}

#[test]
fn a_second_term_leaves_at_once() {
    let origin = Origin::hanging();
    let mut tollgate = Tollgate::with(&format!("{LONG}{}", open_to(&[origin.addr()])));
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    wait::never("it leaves by itself", || tollgate.is_gone(pid));
    tollgate.signal(Signal::TERM);
    let told = Instant::now();
    assert_eq!(tollgate.ended(pid), 0);
    assert!(told.elapsed() < SOON, "left after {:?}", told.elapsed());
    assert!(client.finish("GET").is_err());
}

#[test]
fn a_second_term_ends_the_drain_delay_too() {
    let mut tollgate =
        Tollgate::with("[server]\ndrain_delay = \"90s\"\n[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n");
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("readiness to fail", || tollgate.readiness() == Some(503));
    tollgate.signal(Signal::TERM);
    let told = Instant::now();
    assert_eq!(tollgate.ended(pid), 0);
    assert!(told.elapsed() < SOON, "left after {:?}", told.elapsed());
}

#[test]
fn hup_and_quit_are_ignored_by_a_process_that_leaves() {
    let (origin, gate) = Origin::gated("late");
    let mut tollgate = Tollgate::with(&format!("{LONG}{}", open_to(&[origin.addr()])));
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    tollgate.signal(Signal::HUP);
    tollgate.signal(Signal::QUIT);
    wait::until("both to be heard", || tollgate.stderr().matches("is ignored").count() == 2);
    assert_eq!(tollgate.pids(), [pid]);
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn the_drain_timeout_bounds_a_request_that_never_ends() {
    let origin = Origin::hanging();
    let text = format!("[server]\ndrain_timeout = \"1s\"\n{}", open_to(&[origin.addr()]));
    let mut tollgate = Tollgate::with(&text);
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    assert!(tollgate.stop() < SOON);
    assert!(client.finish("GET").is_err());
}

#[test]
fn a_request_that_has_begun_to_arrive_on_an_idle_connection_is_served() {
    let origin = Origin::replying("served");
    let mut tollgate = Tollgate::with(&format!("{LONG}{}", open_to(&[origin.addr()])));
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_ne!(raw.response().header("connection"), Some("close"));
    raw.send("GET /second HTTP/1.1\r\nho");
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    raw.send("st: a\r\n\r\n");
    let response = raw.response();
    assert_eq!((response.text().as_str(), response.header("connection")), ("served", Some("close")));
    raw.expect_closed();
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn an_idle_connection_still_gets_the_answer_to_a_request_sent_while_the_process_drains() {
    let origin = Origin::replying("served");
    let mut tollgate = Tollgate::with(&format!("{LONG}{}", open_to(&[origin.addr()])));
    let mut client = Client::connect(tollgate.addr());
    client.get("/first");
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    // A client that does not know yet.
    let response = client.get("/second");
    assert_eq!((response.text().as_str(), response.header("connection")), ("served", Some("close")));
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn idle_connections_do_not_keep_a_process() {
    let mut tollgate = Tollgate::with(&format!("{LONG}[routes.main]\nauth = \"none\"\nrespond = {{ body = \"\" }}\n"));
    let mut used = Raw::connect(tollgate.addr());
    used.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").response();
    let mut unused = Raw::connect(tollgate.addr());
    let took = tollgate.stop();
    assert!(took < SOON, "left after {took:?}");
    used.expect_closed();
    unused.expect_closed();
}

#[test]
fn http2_streams_in_flight_are_finished_after_a_goaway() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["gateway.test"]);
    let origin = H2Origin::echoing();
    let mut tollgate = Tollgate::prepared(&format!(
        r#"{LONG}
        [listeners.https]
        [listeners.https.tls]
        certificates = [{{ cert_file = "gateway.pem", key_file = "gateway.key" }}]
        [upstreams.main]
        endpoints = ["{}"]
        protocol = "h2c"
        [routes.main]
        auth = "none"
        upstream = "main"
        "#,
        origin.addr()
    ))
    .file("gateway.pem", &identity.cert)
    .file("gateway.key", &identity.key)
    .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    let mut exchange = client.begin(&Request::new("POST", "/"), false).expect("begun");
    exchange.send("before ").expect("sent");
    assert_eq!(exchange.head().expect("a head").status, 200);
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    wait::never("it leaves with a stream in flight", || tollgate.is_gone(pid));
    exchange.send_last("after").expect("sent");
    let mut body = Vec::new();
    while let Some(bytes) = exchange.data().expect("not cut") {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(String::from_utf8_lossy(&body), "before after");
    client.closed().expect("a goodbye in good order");
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn websockets_are_waited_for() {
    let origin = websocket::echo_origin();
    let mut tollgate = Tollgate::with(&format!("{LONG}{}", open_to(&[origin.addr()])));
    let (mut socket, _) = websocket::connect(tollgate.addr(), "/", &[]).expect("open");
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    wait::never("it leaves with a WebSocket open", || tollgate.is_gone(pid));
    socket.send(tungstenite::Message::text("still there?")).expect("sent");
    assert_eq!(socket.read().expect("echoed"), tungstenite::Message::text("still there?"));
    socket.close(None).expect("closing");
    while socket.read().is_ok() {}
    drop(socket);
    let closed = Instant::now();
    assert_eq!(tollgate.ended(pid), 0);
    assert!(closed.elapsed() < SOON, "left after {:?}", closed.elapsed());
}

#[test]
fn connections_in_the_kernels_queue_are_served() {
    let origin = Origin::replying("served");
    let text = format!("[server]\nmax_connections = 1\ndrain_timeout = \"90s\"\n{}", open_to(&[origin.addr()]));
    let mut tollgate = Tollgate::with(&text);
    let mut first = Client::connect(tollgate.addr());
    first.get("/first");
    // At the cap, this one is connected by the kernel and not yet accepted.
    let mut second = Client::connect(tollgate.addr());
    second.begin(&Request::get("/second")).expect("sent");
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    drop(first);
    assert_eq!(second.finish("GET").expect("answered").text(), "served");
    assert_eq!(tollgate.ended(pid), 0);
}
