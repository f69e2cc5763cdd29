//! What breaks, and what the client sees of it: never half an answer that looks like a whole one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::certs::Ca;
use super::support::h2::H2Client;
use super::support::process::{self, Signal};
use super::support::raw::exchange;
use super::support::{Client, Gate, Origin, Raw, Request, Tollgate, wait};

fn before(origin: &Origin, more: &str, upstream: &str, route: &str) -> Tollgate {
    Tollgate::with(&format!(
        r#"
            {more}
            [upstreams.app]
            endpoints = ["{}"]
            {upstream}
            [routes.all]
            auth = "none"
            upstream = "app"
            {route}
        "#,
        origin.addr()
    ))
}

/// Answers `/PIECE` with a head and half a body, and breaks off.
fn breaking() -> Origin {
    Origin::scripted(|request, connection| {
        let half = "x".repeat(5000);
        let _ = match request.target.as_str() {
            "/sized" => connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n{half}")),
            "/chunked" => {
                connection.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1388\r\n{half}\r\n"))
            }
            "/closing" => connection.send(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{half}")),
            other => panic!("{other}"),
        };
        match request.target.as_str() {
            // Without a length, an end is an end; only a reset is not.
            "/closing" => connection.reset(),
            _ => connection.close(),
        }
    })
}

#[test]
fn a_response_that_breaks_off_is_an_error_for_an_http_1_client() {
    let origin = breaking();
    let tollgate = before(&origin, "", "", "");
    for target in ["/sized", "/chunked", "/closing"] {
        for _ in 0..10 {
            assert!(tollgate.get(target).try_send().is_err(), "{target}");
        }
        // Whatever version the client speaks, it must not be able to take what came for the whole.
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let error = raw.rest().map(|bytes| bytes.len()).expect_err(target);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{target}");
    }
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"response_incomplete\"}", 33.0);
}

#[test]
fn a_response_that_breaks_off_resets_the_stream_of_an_h2_client() {
    let origin = breaking();
    let ca = Ca::new("ca");
    let site = ca.server(&["a.example"]);
    let tollgate = Tollgate::prepared(&format!(
        r#"
            [listeners.https]
            tls = {{ certificates = [{{ cert_file = "site.pem", key_file = "site.key" }}] }}
            [upstreams.app]
            endpoints = ["{}"]
            [routes.all]
            auth = "none"
            upstream = "app"
        "#,
        origin.addr()
    ))
    .file("site.pem", &site.cert)
    .file("site.key", &site.key)
    .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "a.example", ca.trusting(&["h2"]));
    for target in ["/sized", "/chunked", "/closing"] {
        let error = client.try_send(&Request::get(target)).expect_err(target);
        assert!(error.is_reset(), "{target}: {error}");
    }
}

#[test]
fn an_origin_killed_in_the_middle_of_a_large_response_is_seen_by_the_client() {
    let (sender, go) = std::sync::mpsc::channel::<()>();
    let go = std::sync::Mutex::new(go);
    let origin = Origin::scripted(move |_, connection| {
        let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        let _ = connection.send(vec![b'x'; 500_000]);
        let _ = go.lock().expect("one user").recv();
        connection.reset();
    });
    let tollgate = before(&origin, "", "", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.read_exactly(400_000);
    sender.send(()).expect("a script that waits");
    let error = raw.rest().map(|bytes| bytes.len()).expect_err("a reset, not an end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn failures_are_told_apart() {
    let mut gone = Origin::replying("");
    gone.kill();
    let silent = Origin::hanging();
    let garbage = Origin::scripted(|_, connection| {
        let _ = connection.send("SSH-2.0-OpenSSH_9.2\r\n\r\n");
        connection.close();
    });
    let closing = Origin::scripted(|_, connection| connection.close());
    let route = |name: &str, origin: &Origin| {
        format!(
            "[upstreams.{name}]\nendpoints = [\"{}\"]\ntimeouts = {{ first_byte = \"300ms\", idle = \"300ms\" }}\n\
             [routes.{name}]\nauth = \"none\"\npath = \"/{name}\"\nupstream = \"{name}\"\n",
            origin.addr()
        )
    };
    let tollgate = Tollgate::with(
        &[("gone", &gone), ("silent", &silent), ("garbage", &garbage), ("closing", &closing)]
            .map(|(name, origin)| route(name, origin))
            .concat(),
    );
    for (path, status, reason) in [
        ("/gone", 502, "connect_failed"),
        ("/silent", 504, "upstream_timeout"),
        ("/garbage", 502, "upstream_protocol"),
        ("/closing", 502, "upstream_reset"),
        ("/nowhere", 404, "no_route"),
    ] {
        let response = tollgate.get(path).send().expect(status);
        assert_eq!(response.json()["reason"], reason, "{path}");
        assert!(response.header("proxy-status").is_some_and(|value| value.contains(reason)), "{path}");
        let line = tollgate.logged(&response);
        assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(status.into()), Some(reason)), "{path}");
        let labels = format!("{{listener=\"http\",reason=\"{reason}\"}}");
        tollgate.wait_for_metric(&format!("tollgate_refused_total{labels}"), 1.0);
    }
    tollgate.wait_for_metric("tollgate_http_requests_total{route=\"_none\",code=\"404\"}", 1.0);
}

#[test]
fn an_upstream_whose_certificate_does_not_verify_gets_no_request() {
    let ca = Ca::new("ours");
    let other = Ca::new("theirs");
    let origin = Origin::scripted_tls(other.server(&["app.internal"]).serving(&[]), |_, connection| {
        connection.reply(200, &[], "secret");
    });
    let tollgate = Tollgate::prepared(&format!(
        r#"
            [upstreams.app]
            endpoints = ["{}"]
            tls = {{ server_name = "app.internal", ca_file = "ca.pem" }}
            [routes.all]
            auth = "none"
            upstream = "app"
        "#,
        origin.addr()
    ))
    .file("ca.pem", ca.pem())
    .start();
    let response = tollgate.post("/", "secret").send().expect(502);
    assert_eq!(response.json()["reason"], "upstream_tls");
    assert_eq!(origin.hits(), 0);
}

#[test]
fn an_endpoint_at_its_cap_is_not_asked() {
    let origin = Origin::hanging();
    let tollgate = before(&origin, "", "max_requests_per_endpoint = 1", "");
    let mut first = Client::connect(tollgate.addr());
    first.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    let response = tollgate.get("/").send().expect(503);
    assert_eq!(response.json()["reason"], "endpoints_busy");
    let line = tollgate.logged(&response);
    assert_eq!((line["attempts"].as_u64(), line.get("endpoint")), (Some(0), None));
}

#[test]
fn the_timeout_of_a_route_bounds_the_whole_exchange() {
    let origin = Origin::scripted(|request, connection| {
        if request.target == "/silent" {
            return connection.hang();
        }
        connection.begin_chunked(200, &[]);
        while connection.send("1\r\nx\r\n").is_ok() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        connection.close();
    });
    let tollgate = before(&origin, "", "", "timeout = \"400ms\"");
    let begin = Instant::now();
    assert_eq!(tollgate.get("/silent").send().expect(504).json()["reason"], "request_timeout");
    assert!(tollgate.get("/dripping").try_send().is_err(), "cut, and seen to be");
    assert!(begin.elapsed() < Duration::from_secs(10));
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"request_timeout\"}", 2.0);
}

#[test]
fn a_client_that_stops_sending_its_body_is_told_that_it_did() {
    let origin = Origin::echoing_bodies();
    let tollgate = before(&origin, "", "timeouts = { first_byte = \"300ms\", idle = \"300ms\" }", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let response = raw.response();
    assert_eq!((response.status(), response.json()["reason"].as_str()), (408, Some("client_timeout")));
    assert_eq!(tollgate.logged(&response)["reason"], "client_timeout");
}

#[test]
fn a_slow_upload_is_not_a_silent_origin() {
    let origin = Origin::echoing_bodies();
    let tollgate = before(&origin, "", "timeouts = { first_byte = \"400ms\", idle = \"400ms\" }", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    let begin = Instant::now();
    for _ in 0..10 {
        std::thread::park_timeout(Duration::from_millis(80));
        raw.send("x");
    }
    assert!(begin.elapsed() > Duration::from_millis(700));
    assert_eq!(raw.response().text(), "xxxxxxxxxx");
}

#[test]
fn a_client_that_takes_its_time_gets_all_of_a_large_response() {
    let origin = Origin::replying(&"x".repeat(20_000_000));
    let tollgate = before(&origin, "", "timeouts = { first_byte = \"400ms\", idle = \"400ms\" }", "timeout = \"none\"");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.read_until(b"\r\n\r\n");
    let begin = Instant::now();
    let mut taken = 0;
    // Slower than `idle` allows the origin to be, each time the buffers in between are full.
    while begin.elapsed() < Duration::from_millis(1500) {
        std::thread::park_timeout(Duration::from_millis(300));
        taken += raw.read_exactly(1_000_000).len();
    }
    assert_eq!(raw.read_exactly(20_000_000 - taken).len(), 20_000_000 - taken);
}

/// A body of any size streams through: what the origin does not take, the client cannot send, and nobody holds it.
#[test]
fn an_upload_waits_for_its_origin_and_costs_no_memory() {
    const SIZE: usize = 200_000_000;
    let gate = Gate::default();
    let origin = Origin::raw({
        let gate = gate.clone();
        move |connection| {
            gate.pass();
            let socket = connection.stream();
            let (mut seen, mut piece) = (0, vec![0; 1 << 16]);
            let head = loop {
                let count = socket.read(&mut piece).expect("a request");
                seen += count;
                if let Some(end) = piece[..count].windows(4).position(|end| end == b"\r\n\r\n") {
                    break seen - count + end + 4;
                }
            };
            while seen < head + SIZE {
                seen += socket.read(&mut piece).expect("the rest of it");
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nthat").expect("taken");
        }
    });
    let tollgate = before(&origin, "", "", "max_body = \"none\"");
    let mut client = TcpStream::connect(tollgate.addr()).expect("connected");
    client.write_all(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).expect("sent");
    let before = process::resident(tollgate.pid());
    client.set_write_timeout(Some(wait::MOMENT)).expect("a socket");
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while let Ok(count) = client.write(&piece[..piece.len().min(SIZE - sent)]) {
        sent += count;
        assert!(sent < SIZE / 2, "nobody takes it, and yet it is sent");
    }
    let held = process::resident(tollgate.pid()).saturating_sub(before);
    assert!(held < 8 << 20, "{} KiB", held >> 10);
    gate.open();
    client.set_write_timeout(Some(wait::PATIENCE)).expect("a socket");
    while sent < SIZE {
        sent += client.write(&piece[..piece.len().min(SIZE - sent)]).expect("taken");
    }
    client.set_read_timeout(Some(wait::PATIENCE)).expect("a socket");
    let mut answer = vec![0; 12];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 200");
    let held = process::resident(tollgate.pid()).saturating_sub(before);
    assert!(held < 8 << 20, "{} KiB", held >> 10);
}

#[test]
fn a_body_beyond_the_limit_is_refused_announced_or_not() {
    let origin = Origin::echoing_bodies();
    let tollgate = before(&origin, "", "", "max_body = \"10B\"");
    assert_eq!(tollgate.post("/", "0123456789").send().expect(200).text(), "0123456789");
    let announced = tollgate.post("/", "0123456789a").send().expect(413);
    assert_eq!(announced.json()["reason"], "body_too_large");
    let hits = origin.hits();
    let counted = tollgate.request("POST", "/").chunks(&[b"01234", b"56789", b"a"]).send().expect(413);
    assert_eq!(counted.json()["reason"], "body_too_large");
    assert!(origin.requests().iter().all(|request| request.body.len() <= 10));
    assert!(origin.hits() <= hits + 1);
}

#[test]
fn a_client_that_leaves_is_499_and_its_origin_is_let_go() {
    let (sender, left) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = Origin::scripted(move |_, connection| {
        connection.hang();
        let _ = sender.lock().expect("one user").send(());
    });
    let tollgate = before(&origin, "", "", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
    wait::until("the request to arrive", || origin.hits() == 1);
    raw.reset();
    left.recv_timeout(wait::PATIENCE).expect("the origin is let go");
    let line = tollgate.logged_where("its line", |line| line["path"] == "/left");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(499), Some("client_aborted")));
    tollgate.wait_for_metric("tollgate_http_requests_total{route=\"all\",code=\"499\"}", 1.0);
    tollgate.wait_for_metric("tollgate_http_requests_in_flight{route=\"all\"}", 0.0);
}

#[test]
fn connections_over_the_cap_wait_and_are_then_served() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "[server]\nmax_connections = 2\n", "", "");
    let mut first = Client::connect(tollgate.addr());
    let mut second = Client::connect(tollgate.addr());
    first.get("/").expect(200);
    second.get("/").expect(200);
    let mut third = Raw::connect(tollgate.addr());
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait::never("a third is served", || !third.is_quiet());
    first.get("/").expect(200);
    drop(first);
    assert_eq!(third.response().text(), "ok");
}

#[test]
fn running_out_of_file_descriptors_is_survived() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "", "", "");
    let mut served = Client::connect(tollgate.addr());
    served.get("/").expect(200);
    let pid = tollgate.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").count() as u64;
    let pid = Pid::from_raw(i32::try_from(pid).expect("small")).expect("not zero");
    let limit = |current| Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
    let old = prlimit(Some(pid), Resource::Nofile, limit(open + 3)).expect("a limit that is set");
    let waiting: Vec<_> = (0..20).map(|_| Raw::connect(tollgate.addr())).collect();
    wait::until("accepting to fail", || {
        served.get("/").expect(200);
        std::fs::read_to_string(tollgate.path("stderr.log")).is_ok_and(|text| text.contains("cannot accept"))
    });
    drop(waiting);
    prlimit(Some(pid), Resource::Nofile, old).expect("the old limit");
    for _ in 0..5 {
        tollgate.get("/").send().expect(200);
    }
    assert!(tollgate.metric("tollgate_connections_total{listener=\"http\",result=\"failed\"}") >= Some(1.0));
}

#[test]
fn a_request_that_was_under_way_when_the_drain_began_is_the_last_of_its_connection() {
    let (sender, go) = std::sync::mpsc::channel::<()>();
    let go = std::sync::Mutex::new(go);
    let origin = Origin::scripted(move |request, connection| {
        if request.target == "/slow" {
            let _ = go.lock().expect("one user").recv();
        }
        connection.reply(200, &[], "ok");
    });
    let mut tollgate = before(&origin, "", "", "");
    let mut slow = Client::connect(tollgate.addr());
    let mut idle = Client::connect(tollgate.addr());
    idle.get("/").expect(200);
    slow.begin(&Request::get("/slow")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 2);
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    // A client that had nothing under way may still begin something, once.
    assert_eq!(idle.get("/").expect(200).header("connection"), Some("close"));
    sender.send(()).expect("a script that waits");
    assert_eq!(slow.finish("GET").expect("an answer").header("connection"), Some("close"));
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn who_is_in_the_queue_when_the_drain_begins_is_still_served() {
    let origin = Origin::replying("ok");
    let mut tollgate = before(&origin, "[server]\nmax_connections = 1\n", "", "");
    let mut first = Client::connect(tollgate.addr());
    first.get("/").expect(200);
    // The kernel has accepted it, we have not.
    let mut second = Raw::connect(tollgate.addr());
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("the drain to begin", || tollgate.stderr().contains("draining"));
    drop(first);
    assert_eq!(second.response().header("connection"), Some("close"));
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn a_drain_without_anybody_is_over_at_once() {
    let origin = Origin::replying("ok");
    let mut tollgate = before(&origin, "", "", "");
    assert!(exchange(tollgate.addr(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ends_with("ok"));
    assert!(tollgate.stop() < Duration::from_secs(2));
}
