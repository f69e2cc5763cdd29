//! WebSocket, server-sent events and gRPC are requests too: every filter applies, and no timeout for requests cuts them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tungstenite::Message;

use super::support::certs::Ca;
use super::support::h2::{H2Client, H2Origin, pause};
use super::support::{Client, Origin, Raw, Request, Tollgate, node, process, wait, websocket};

fn before(addr: std::net::SocketAddr, upstream: &str, route: &str) -> Tollgate {
    Tollgate::with(&format!(
        r#"
            [upstreams.app]
            endpoints = ["{addr}"]
            {upstream}
            [routes.all]
            auth = "none"
            upstream = "app"
            {route}
        "#
    ))
}

#[track_caller]
fn echoes(socket: &mut tungstenite::WebSocket<std::net::TcpStream>, text: &str) {
    socket.send(Message::text(text)).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text(text));
}

#[test]
fn a_websocket_goes_through_with_what_its_route_adds() {
    let origin = websocket::echo_origin();
    let route = "response_headers = { set = { x-route = \"all\" } }";
    let tollgate = before(origin.addr(), "", route);
    let (mut socket, response) = websocket::connect(tollgate.addr(), "/chat", &[]).expect("upgraded");
    assert_eq!(response.headers()["x-route"], "all");
    assert!(response.headers().contains_key("x-request-id"));
    for text in ["a", &"b".repeat(100_000), ""] {
        echoes(&mut socket, text);
    }
    socket.close(None).expect("said goodbye");
    while socket.read().is_ok() {}
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let line = tollgate.logged_where("its line", |line| line["request_id"] == *id);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), None));
    tollgate.wait_for_metric("tollgate_http_requests_in_flight{route=\"all\"}", 0.0);
}

#[test]
fn filters_apply_to_a_websocket() {
    let origin = websocket::echo_origin();
    let tollgate = before(origin.addr(), "", "clients = { deny = [\"127.0.0.0/8\"] }");
    let error = websocket::connect(tollgate.addr(), "/chat", &[]).expect_err("refused");
    let tungstenite::Error::Http(response) = *error else { panic!("{error}") };
    assert_eq!(response.status(), 403);
    assert_eq!(origin.connections(), 0);
}

/// cloudflare/pingora#946: the end of the empty request body must not be taken for the end of the upgraded stream.
#[test]
fn an_upgrade_that_is_granted_at_once_lasts() {
    let origin = Origin::raw(|connection| {
        // Nobody can be quicker than before the request.
        let _ = connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        if !matches!(connection.head(), Ok(Some(_))) {
            return;
        }
        let mut byte = [0];
        while connection.stream().reader.read_exact(&mut byte).is_ok() {
            let _ = connection.send(byte);
        }
    });
    let tollgate = before(origin.addr(), "", "");
    for round in 0..40 {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert!(raw.read_until(b"\r\n\r\n").starts_with(b"HTTP/1.1 101 "), "round {round}");
        for byte in [b'a', b'b'] {
            raw.send([byte]);
            assert_eq!(raw.read_exactly(1), [byte], "round {round}");
        }
    }
}

#[test]
fn what_a_client_says_before_it_is_upgraded_waits_for_that() {
    let origin = Origin::raw(|connection| {
        if !matches!(connection.head(), Ok(Some(_))) {
            return;
        }
        // Whatever came early would be read here, in front of the answer.
        let socket = connection.stream().socket();
        let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
        let early = connection.stream().reader.read(&mut [0]).is_ok();
        let status =
            if early { "400 Early" } else { "101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade" };
        let _ = connection.send(format!("HTTP/1.1 {status}\r\n\r\n"));
        let _ = connection.stream().socket().set_read_timeout(None);
        let mut bytes = [0; 5];
        let _ = connection.stream().reader.read_exact(&mut bytes);
        let _ = connection.send(bytes);
    });
    let tollgate = before(origin.addr(), "", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    assert!(raw.read_until(b"\r\n\r\n").starts_with(b"HTTP/1.1 101 "));
    assert_eq!(raw.read_exactly(5), b"early");
}

#[test]
fn an_upgrade_that_is_refused_leaves_the_connection_as_it_was() {
    let origin = Origin::scripted(|request, connection| {
        connection.reply(if request.header("upgrade").is_some() { 426 } else { 200 }, &[], "plain");
    });
    let tollgate = before(origin.addr(), "", "");
    let mut client = Client::connect(tollgate.addr());
    let upgrade = Request::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    for _ in 0..3 {
        assert_eq!(client.send(&upgrade).expect(426).header("connection"), Some("keep-alive"));
        assert_eq!(client.get("/").expect(200).text(), "plain");
    }
}

#[test]
fn a_wish_to_upgrade_to_anything_else_is_no_wish() {
    let origin = Origin::echoing_heads();
    let tollgate = before(origin.addr(), "", "");
    let mut client = Client::connect(tollgate.addr());
    for request in [
        Request::get("/").header("connection", "upgrade").header("upgrade", "h2c"),
        Request::new("POST", "/").header("connection", "upgrade").header("upgrade", "websocket"),
        Request::get("/").header("connection", "upgrade").header("upgrade", "websocket").body("body"),
    ] {
        let head = client.send(&request).expect(200).text().to_ascii_lowercase();
        assert!(!head.contains("upgrade"), "{head}");
    }
}

#[test]
fn the_timeout_of_a_route_does_not_cut_a_websocket() {
    let origin = websocket::echo_origin();
    let upstream = "timeouts = { first_byte = \"300ms\", idle = \"300ms\" }";
    let tollgate = before(origin.addr(), upstream, "timeout = \"300ms\"\nmax_body = \"4B\"");
    let (mut socket, _) = websocket::connect(tollgate.addr(), "/", &[]).expect("upgraded");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(900) {
        echoes(&mut socket, "longer than any body may be");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn a_silent_stream_is_closed() {
    let origin = websocket::echo_origin();
    let tollgate = before(origin.addr(), "", "stream_idle = \"400ms\"");
    let (mut socket, response) = websocket::connect(tollgate.addr(), "/", &[]).expect("upgraded");
    echoes(&mut socket, "a");
    let begin = Instant::now();
    assert!(socket.read().is_err());
    assert!(begin.elapsed() < wait::PATIENCE / 2);
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let line = tollgate.logged_where("its line", |line| line["request_id"] == *id);
    assert_eq!(line["reason"], "stream_idle");
}

/// Sends an event whenever a byte arrives on the other connection of the test.
fn events() -> Origin {
    Origin::scripted(|_, connection| {
        connection.begin_chunked(200, &[("content-type", "text/event-stream")]);
        for number in 0..3 {
            connection.chunk(format!("data: {number}\n\n"));
            std::thread::park_timeout(Duration::from_millis(250));
        }
        connection.hang();
    })
}

#[test]
fn events_pass_as_they_come_and_outlive_the_timeout_of_their_route() {
    let origin = events();
    let tollgate = before(origin.addr(), "", "timeout = \"300ms\"");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    raw.read_until(b"\r\n\r\n");
    for number in 0..3 {
        let event = raw.read_until(b"\n\n\r\n");
        assert!(
            event.ends_with(format!("data: {number}\n\n\r\n").as_bytes()),
            "{:?}",
            event.escape_ascii().to_string()
        );
    }
    assert!(raw.is_quiet(), "the third event is long after the timeout");
}

/// Once a request that called itself a stream had no timeout any more, whatever the answer was.
#[test]
fn a_client_that_asks_for_a_stream_and_gets_none_is_bound_by_the_timeout_of_its_route() {
    let origin = Origin::scripted(|_, connection| {
        connection.begin_chunked(200, &[("content-type", "text/plain")]);
        while connection.send("1\r\nx\r\n").is_ok() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        connection.close();
    });
    let tollgate = before(origin.addr(), "", "timeout = \"400ms\"");
    for (name, value) in [("accept", "text/event-stream"), ("content-type", "application/grpc")] {
        let begin = Instant::now();
        tollgate.get("/").header(name, value).try_send().expect_err("cut, and seen to be");
        assert!(begin.elapsed() < wait::PATIENCE / 2, "{name}");
    }
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"request_timeout\"}", 2.0);
}

#[test]
fn a_client_that_leaves_its_events_is_noticed_though_nothing_is_sent() {
    let (left, sender) = {
        let (sender, left) = std::sync::mpsc::channel();
        (left, std::sync::Mutex::new(sender))
    };
    let origin = Origin::scripted(move |_, connection| {
        connection.begin_chunked(200, &[("content-type", "text/event-stream")]);
        connection.chunk("data: 0\n\n");
        connection.hang();
        let _ = sender.lock().expect("one user").send(());
    });
    let tollgate = before(origin.addr(), "", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    raw.read_until(b"\n\n\r\n");
    drop(raw);
    left.recv_timeout(wait::PATIENCE).expect("the origin is let go");
    tollgate.wait_for_metric("tollgate_http_requests_total{route=\"all\",code=\"499\"}", 1.0);
}

/// An h2 listener before an h2c upstream.
struct Grpc {
    tollgate: Tollgate,
    client: H2Client,
}

fn grpc(origin: &H2Origin, route: &str) -> Grpc {
    let ca = Ca::new("ca");
    let site = ca.server(&["grpc.example"]);
    let tollgate = Tollgate::prepared(&format!(
        r#"
            [listeners.https]
            tls = {{ certificates = [{{ cert_file = "site.pem", key_file = "site.key" }}] }}
            [upstreams.app]
            endpoints = ["{}"]
            protocol = "h2c"
            [routes.all]
            auth = "none"
            upstream = "app"
            {route}
        "#,
        origin.addr()
    ))
    .file("site.pem", &site.cert)
    .file("site.key", &site.key)
    .start();
    let client = H2Client::connect_tls(tollgate.addr(), "grpc.example", ca.trusting(&["h2"]));
    Grpc { tollgate, client }
}

fn call() -> Request {
    Request::new("POST", "/echo.Echo/Stream").header("content-type", "application/grpc").header("te", "trailers")
}

#[test]
fn grpc_streams_both_ways_and_ends_in_trailers() {
    let origin = H2Origin::echoing();
    let Grpc { tollgate, mut client } =
        grpc(&origin, "timeout = \"300ms\"\nmax_body = \"none\"\nresponse_headers = { set = { x-route = \"all\" } }");
    let mut exchange = client.begin(&call(), false).expect("begun");
    exchange.send("one").expect("sent");
    let head = exchange.head().expect("a head");
    assert_eq!((head.status.as_u16(), &head.headers["x-route"]), (200, &http::HeaderValue::from_static("all")));
    assert_eq!(exchange.data().expect("data").as_deref(), Some(&b"one"[..]));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(600) {
        std::thread::park_timeout(Duration::from_millis(150));
        exchange.send("two").expect("sent");
        assert_eq!(exchange.data().expect("data").as_deref(), Some(&b"two"[..]));
    }
    exchange.send_last("").expect("sent");
    assert_eq!(exchange.data().expect("the end"), None);
    assert_eq!(exchange.trailers().expect("trailers").get("grpc-status"), Some("0"));
    tollgate.wait_for_metric("tollgate_http_requests_total{route=\"all\",code=\"200\"}", 1.0);
}

#[test]
fn filters_apply_to_grpc() {
    let origin = H2Origin::echoing();
    let Grpc { client: mut denied, tollgate: _tollgate } = grpc(&origin, "clients = { deny = [\"127.0.0.0/8\"] }");
    assert_eq!(denied.send(&call().body("x")).status(), 403);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_grpc_answer_of_trailers_alone_passes() {
    let origin = H2Origin::scripted(None, |_, mut respond| {
        Box::pin(async move {
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "5")
                .body(())
                .expect("a head");
            respond.send_response(head, true).map(drop)
        })
    });
    let Grpc { client: mut caller, tollgate: _tollgate } = grpc(&origin, "");
    let response = caller.send(&call().body("x")).expect(200);
    assert_eq!((response.header("grpc-status"), response.body.len()), (Some("5"), 0));
}

#[test]
fn a_grpc_head_that_does_not_come_in_time_ends_the_call() {
    let origin = H2Origin::scripted(None, |_, respond| {
        Box::pin(async move {
            let _never_used = respond;
            pause(Duration::from_secs(120)).await;
            Ok(())
        })
    });
    let Grpc { tollgate, mut client } = grpc(&origin, "timeout = \"300ms\"");
    let begin = Instant::now();
    assert!(client.try_send(&call().body("x")).is_err(), "its stream is reset");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let line = tollgate.logged_where("its line", |line| line["path"] == "/echo.Echo/Stream");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(504), Some("request_timeout")));
    tollgate.wait_for_metric("tollgate_http_requests_in_flight{route=\"all\"}", 0.0);
}

/// The origin holds the stream open for ever, and knows nothing of time.
#[test]
fn a_call_ends_when_its_caller_said_that_it_would_stop_waiting() {
    let origin = H2Origin::echoing();
    let Grpc { tollgate, mut client } = grpc(&origin, "timeout = \"60s\"\nstream_idle = \"60s\"");
    let mut exchange = client.begin(&call().header("grpc-timeout", "400m"), false).expect("begun");
    exchange.send("one").expect("sent");
    assert_eq!(exchange.head().expect("a head").status.as_u16(), 200);
    assert_eq!(exchange.data().expect("data").as_deref(), Some(&b"one"[..]));
    assert!(exchange.data().is_err(), "its stream is reset");
    let line = tollgate.logged_where("its line", |line| line["path"] == "/echo.Echo/Stream");
    assert_eq!(line["reason"], "request_timeout", "{line}");
    tollgate.wait_for_metric("tollgate_http_requests_in_flight{route=\"all\"}", 0.0);
}

/// Neither of both is ours.
#[test]
fn a_grpc_client_and_a_grpc_server_talk_through_us() {
    let Some(directory) = node::installed("grpc") else { return };
    let peer = |arguments: &[&str]| {
        let mut command = Command::new("node");
        command.arg("peer.mjs").args(arguments).current_dir(&directory);
        command
    };
    let mut server = peer(&["serve"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node is there");
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().expect("piped")).read_line(&mut line).expect("text");
    let about: serde_json::Value = serde_json::from_str(&line).expect("where it is");
    let tollgate = Tollgate::with(&format!(
        "[listeners.h2c]\nprotocols = [\"h2c\"]\n[upstreams.echo]\nendpoints = [{}]\nprotocol = \"h2c\"\n\
         [routes.echo]\npath = \"/test.Echo/*\"\nauth = \"none\"\nupstream = \"echo\"\nmax_body = \"none\"\n",
        about["address"]
    ));
    let said = process::output(peer(&["call", &tollgate.addr().to_string()])).succeeded().stdout;
    drop(server.kill());
    drop(server.wait());
    let result: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let expected = serde_json::json!({
        "unary": { "value": "hello for acme", "code": 0, "trailer": ["last"] },
        "large": { "value": 1_000_009, "code": 0, "trailer": ["last"] },
        "fail": { "code": 5, "details": "no such order", "trailer": [] },
        "count": { "code": 0, "got": 5000, "last": "4999" },
        "join": { "value": "a+b+c", "code": 0, "trailer": [] },
        "talk": { "got": ["ONE", "TWO"], "code": 0, "details": "OK" },
        "many": 200,
    });
    for (call, expected) in expected.as_object().expect("a table") {
        assert_eq!(&result[call], expected, "{call}");
    }
    assert_eq!(
        (&result["late"]["code"], &result["late"]["got"]),
        (&4.into(), &serde_json::json!(["first"])),
        "{result}"
    );
    tollgate.wait_for_metric("tollgate_http_requests_in_flight{route=\"echo\"}", 0.0);
}

#[test]
fn trailers_of_an_h2_request_stay_behind() {
    let origin = H2Origin::echoing();
    let Grpc { client: mut caller, tollgate: _tollgate } = grpc(&origin, "");
    let mut exchange = caller.begin(&call(), false).expect("begun");
    exchange.send("body").expect("sent");
    exchange.send_trailers(&[("x-auth-subject", "root")]).expect("sent");
    let response = exchange.finish().expect("an answer");
    assert_eq!(response.text(), "body");
    assert_eq!(response.trailers.0, [("grpc-status".to_owned(), "0".to_owned())]);
}

#[test]
fn a_call_that_its_client_cancels_is_cancelled_behind_us() {
    let (sender, cancelled) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = H2Origin::scripted(None, move |mut request, mut respond| {
        let sender = sender.lock().expect("one user").clone();
        Box::pin(async move {
            let _stream = respond.send_response(http::Response::new(()), false)?;
            while request.body_mut().data().await.transpose().is_ok_and(|data| data.is_some()) {}
            let _ = sender.send(());
            Ok(())
        })
    });
    let Grpc { client: mut caller, tollgate } = grpc(&origin, "");
    let mut exchange = caller.begin(&call(), false).expect("begun");
    exchange.send("body").expect("sent");
    exchange.head().expect("a head");
    exchange.cancel();
    cancelled.recv_timeout(wait::PATIENCE).expect("the origin is told");
    tollgate.wait_for_metric("tollgate_http_requests_total{route=\"all\",code=\"499\"}", 1.0);
}
