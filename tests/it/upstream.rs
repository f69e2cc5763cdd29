//! Where requests go: who is next, who is fit, and how long anybody is waited for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::message::Response;
use crate::support::{Client, Origin, Request, Tollgate, ports, wait};

/// An upstream with these endpoints, as they are written in a list, and everything to it.
fn to(endpoints: &str, more: &str) -> String {
    format!(
        "[upstreams.main]\nendpoints = [{endpoints}]\n{more}\n\
         [routes.main]\nauth = \"none\"\nupstream = \"main\"\n"
    )
}

/// A service that can be ill: `/healthz` is answered with what is stored, and everything else with 200.
fn patient() -> (Origin, Arc<AtomicU16>) {
    let health = Arc::new(AtomicU16::new(200));
    let origin = Origin::scripted({
        let health = Arc::clone(&health);
        move |request, connection| match request.target.as_str() {
            "/healthz" => connection.reply(health.load(Ordering::SeqCst), &[], ""),
            _ => connection.reply(200, &[], "served"),
        }
    });
    (origin, health)
}

/// Requests that were no health checks.
fn served(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| request.target != "/healthz").count()
}

#[track_caller]
fn failed(tollgate: &Tollgate, response: &Response, status: u16, reason: &str, error: &str) {
    assert_eq!((response.status(), &response.json()["reason"]), (status, &reason.into()), "{}", response.text());
    let proxy_status = format!("tollgate; error={error}; details=\"{reason}\"");
    assert_eq!(response.header("proxy-status"), Some(proxy_status.as_str()));
    assert_eq!(tollgate.logged(response)["reason"], reason);
}

fn in_flight(addr: SocketAddr) -> String {
    format!("tollgate_endpoint_requests_in_flight{{upstream=\"main\",endpoint=\"{addr}\"}}")
}

fn healthy(addr: SocketAddr) -> String {
    format!("tollgate_endpoint_healthy{{upstream=\"main\",endpoint=\"{addr}\"}}")
}

#[test]
fn weights_are_exact_shares() {
    let origins = [Origin::replying(""), Origin::replying(""), Origin::replying("")];
    let endpoints = format!(
        "{{ address = \"{}\", weight = 5 }}, {{ address = \"{}\", weight = 2 }}, \"{}\"",
        origins[0].addr(),
        origins[1].addr(),
        origins[2].addr()
    );
    let tollgate = Tollgate::with(&to(&endpoints, ""));
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..40 {
        client.get("/").expect(200);
    }
    assert_eq!([&origins[0], &origins[1], &origins[2]].map(Origin::hits), [25, 10, 5]);
    // The turn survives a reload that is not about them.
    for _ in 0..8 {
        tollgate.edit(|text| text.push_str("\n# another line\n"));
        tollgate.reload().succeeded();
        client.get("/").expect(200);
    }
    assert_eq!([&origins[0], &origins[1], &origins[2]].map(Origin::hits), [30, 12, 6]);
    let line = tollgate.logged(&client.get("/"));
    assert_eq!(line["upstream"], "main");
    assert!(origins.iter().any(|origin| line["endpoint"] == origin.addr().to_string()), "{line}");
}

#[test]
fn the_less_busy_endpoint_is_asked() {
    let (slow, gate) = Origin::gated("slow");
    let quick = Origin::replying("quick");
    let endpoints = format!("\"{}\", \"{}\"", slow.addr(), quick.addr());
    let tollgate = Tollgate::with(&to(&endpoints, "balance = \"least_request\""));
    // Both are idle, so it may take a while until chance asks the slow one.
    let mut waiting = Vec::new();
    wait::until("a request to the slow endpoint", || {
        let before = quick.hits() + slow.hits();
        let mut client = Client::connect(tollgate.addr());
        client.begin(&Request::get("/")).expect("sent");
        waiting.push(client);
        wait::until("the request to arrive", || quick.hits() + slow.hits() > before);
        slow.hits() == 1
    });
    for _ in 0..20 {
        // A request has its answer a moment before it has ended.
        tollgate.wait_for_metric(&in_flight(quick.addr()), 0.0);
        assert_eq!(tollgate.get("/").send().text(), "quick");
    }
    assert_eq!(slow.hits(), 1);
    gate.open();
    for mut client in waiting {
        assert_eq!(client.finish("GET").expect("answered").status(), 200);
    }
}

#[test]
fn a_name_is_resolved() {
    let origin = Origin::replying("by name");
    let tollgate = Tollgate::with(&to(&format!("\"localhost:{}\"", origin.addr().port()), ""));
    for _ in 0..4 {
        let response = tollgate.get("/").send().expect(200);
        assert_eq!(response.text(), "by name");
        assert_eq!(tollgate.logged(&response)["endpoint"], origin.addr().to_string());
    }
    assert_eq!(tollgate.metric(&healthy(origin.addr())), Some(1.0));
}

#[test]
fn a_name_that_does_not_resolve_stops_neither_the_start_nor_the_other_endpoints() {
    let origin = Origin::replying("there");
    let text = format!(
        "{}[upstreams.half]\nendpoints = [\"nowhere.invalid:80\", \"{}\"]\n\
         [routes.half]\npath = \"/half\"\nauth = \"none\"\nupstream = \"half\"\n",
        to("\"nowhere.invalid:80\"", ""),
        origin.addr()
    );
    let tollgate = Tollgate::with(&text);
    failed(&tollgate, &tollgate.get("/").send(), 503, "no_healthy_endpoint", "destination_unavailable");
    for _ in 0..4 {
        assert_eq!(tollgate.get("/half").send().expect(200).text(), "there");
    }
    wait::until("a word about it", || tollgate.stderr().contains("nowhere.invalid:80 does not resolve"));
    tollgate.wait_for_metric("tollgate_upstream_requests_total{upstream=\"main\",result=\"no_healthy_endpoint\"}", 1.0);
}

#[test]
fn a_health_check_takes_an_endpoint_out_and_back() {
    let ((sick, health), (well, _)) = (patient(), patient());
    let endpoints = format!("\"{}\", \"{}\"", sick.addr(), well.addr());
    let check = "[upstreams.main.health]\ntype = \"http\"\npath = \"/healthz\"\nhost = \"orders.internal\"\n\
                 interval = \"50ms\"\nhealthy_after = 2\nunhealthy_after = 2";
    let tollgate = Tollgate::with(&to(&endpoints, check));
    let ask = |count: usize| (0..count).for_each(|_| drop(tollgate.get("/").send().expect(200)));
    ask(4);
    assert_eq!((served(&sick), served(&well)), (2, 2));
    let check = wait::some("a check", || sick.requests().into_iter().find(|request| request.target == "/healthz"));
    assert_eq!((check.method.as_str(), check.header("host")), ("GET", Some("orders.internal")));
    assert_eq!(check.header("user-agent"), Some("tollgate-health"));

    health.store(500, Ordering::SeqCst);
    tollgate.wait_for_metric(&healthy(sick.addr()), 0.0);
    assert_eq!(tollgate.metric(&healthy(well.addr())), Some(1.0));
    let before = served(&sick);
    ask(6);
    assert_eq!((served(&sick), served(&well)), (before, 8));
    // What is known of it outlives a reload, also one that changes the upstream.
    tollgate.replace("healthy_after = 2\nunhealthy_after = 2", "healthy_after = 3\nunhealthy_after = 2");
    tollgate.reload().succeeded();
    ask(4);
    assert_eq!((served(&sick), served(&well)), (before, 12));

    health.store(204, Ordering::SeqCst);
    tollgate.wait_for_metric(&healthy(sick.addr()), 1.0);
    ask(4);
    assert_eq!((served(&sick), served(&well)), (before + 2, 14));
    let stderr = tollgate.stderr();
    assert!(stderr.contains(&sick.addr().to_string()) && stderr.contains("500"), "the log says who and why: {stderr}");
}

#[test]
fn when_nobody_is_healthy_nobody_is_asked() {
    let (sick, health) = patient();
    health.store(503, Ordering::SeqCst);
    let check = "[upstreams.main.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"50ms\"\n\
                 healthy_after = 1\nunhealthy_after = 1\nexpect_status = [\"200\", \"300-399\"]";
    let tollgate = Tollgate::with(&to(&format!("\"{}\"", sick.addr()), check));
    tollgate.wait_for_metric(&healthy(sick.addr()), 0.0);
    failed(&tollgate, &tollgate.get("/").send(), 503, "no_healthy_endpoint", "destination_unavailable");
    assert_eq!(served(&sick), 0);
    health.store(304, Ordering::SeqCst);
    tollgate.wait_for_metric(&healthy(sick.addr()), 1.0);
    tollgate.get("/").send().expect(200);
    health.store(204, Ordering::SeqCst);
    tollgate.wait_for_metric(&healthy(sick.addr()), 0.0);
}

#[test]
fn a_check_that_is_not_answered_in_time_has_failed() {
    let origin = Origin::scripted(|request, connection| match request.target.as_str() {
        "/healthz" => connection.hang(),
        _ => connection.reply(200, &[], ""),
    });
    let check = "[upstreams.main.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"50ms\"\n\
                 timeout = \"100ms\"\nunhealthy_after = 1";
    let tollgate = Tollgate::with(&to(&format!("\"{}\"", origin.addr()), check));
    tollgate.wait_for_metric(&healthy(origin.addr()), 0.0);
    assert_eq!(tollgate.get("/").send().status(), 503);
}

#[test]
fn an_endpoint_gets_no_more_than_its_cap_and_then_the_next() {
    let ((first, first_gate), (second, second_gate)) = (Origin::gated("first"), Origin::gated("second"));
    let endpoints = format!("\"{}\", \"{}\"", first.addr(), second.addr());
    let tollgate = Tollgate::with(&to(&endpoints, "max_requests_per_endpoint = 2"));
    let inside: Vec<_> = (1..=4)
        .map(|count| {
            let mut client = Client::connect(tollgate.addr());
            client.begin(&Request::get("/")).expect("sent");
            wait::until("the request to arrive", || first.hits() + second.hits() == count);
            client
        })
        .collect();
    assert_eq!((first.hits(), second.hits()), (2, 2));
    for _ in 0..5 {
        failed(&tollgate, &tollgate.get("/").send(), 503, "endpoints_busy", "connection_limit_reached");
    }
    assert_eq!(tollgate.metric(&in_flight(first.addr())), Some(2.0));
    second_gate.open();
    tollgate.wait_for_metric(&in_flight(second.addr()), 0.0);
    for _ in 0..5 {
        assert_eq!(tollgate.get("/").send().expect(200).text(), "second");
    }
    first_gate.open();
    for mut client in inside {
        assert_eq!(client.finish("GET").expect("answered").status(), 200);
    }
    tollgate.wait_for_metric(&in_flight(first.addr()), 0.0);
}

#[test]
fn a_unix_socket_is_an_endpoint() {
    let prepared = Tollgate::prepared("");
    let path = prepared.directory().join("orders.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let origin = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsocket").expect("sent");
        String::from_utf8(head).expect("ASCII")
    });
    let tollgate = Tollgate::with(&to(&format!("\"unix:{}\"", path.display()), ""));
    let response = tollgate.get("/a?b").host("orders.test").send().expect(200);
    assert_eq!(response.text(), "socket");
    assert_eq!(tollgate.logged(&response)["endpoint"], format!("unix:{}", path.display()));
    let head = origin.join().expect("served");
    assert!(
        head.starts_with("GET /a?b HTTP/1.1\r\n") && head.to_lowercase().contains("host: orders.test\r\n"),
        "{head}"
    );
    // Nobody accepts any more.
    failed(&tollgate, &tollgate.get("/").send(), 502, "connect_failed", "connection_refused");
}

/// An address where the kernel takes no more connections, and what keeps it so.
fn full() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    // The queue cannot be shorter than one.
    rustix::net::listen(&listener, 0).expect("listening");
    let addr = listener.local_addr().expect("bound");
    let mut queue = Vec::new();
    while let Ok(socket) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        queue.push(socket);
        assert!(queue.len() < 100, "a queue without end");
    }
    (addr, listener, queue)
}

#[test]
fn a_connection_that_takes_too_long_is_told_from_one_that_is_refused() {
    let (addr, _listener, _queue) = full();
    let tollgate = Tollgate::with(&format!(
        "{}[upstreams.gone]\nendpoints = [\"{}\"]\n\
         [routes.gone]\npath = \"/gone\"\nauth = \"none\"\nupstream = \"gone\"\n",
        to(&format!("\"{addr}\""), "[upstreams.main.timeouts]\nconnect = \"200ms\""),
        ports::claim()
    ));
    failed(&tollgate, &tollgate.get("/").send(), 504, "connect_timeout", "connection_timeout");
    failed(&tollgate, &tollgate.get("/gone").send(), 502, "connect_failed", "connection_refused");
    tollgate.wait_for_metric("tollgate_upstream_requests_total{upstream=\"main\",result=\"connect_timeout\"}", 1.0);
    tollgate.wait_for_metric("tollgate_upstream_requests_total{upstream=\"gone\",result=\"connect_failed\"}", 1.0);
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_504_and_is_asked_for_once() {
    let origin = Origin::hanging();
    let endpoint = format!("\"{}\"", origin.addr());
    let tollgate = Tollgate::with(&format!(
        "{}[routes.short]\npath = \"/short\"\nauth = \"none\"\nupstream = \"main\"\ntimeout = \"100ms\"\n",
        to(&endpoint, "[upstreams.main.timeouts]\nfirst_byte = \"300ms\"\nidle = \"300ms\"")
    ));
    failed(&tollgate, &tollgate.get("/").send(), 504, "upstream_timeout", "http_response_timeout");
    failed(&tollgate, &tollgate.post("/", "x").send(), 504, "upstream_timeout", "http_response_timeout");
    failed(&tollgate, &tollgate.get("/short").send(), 504, "request_timeout", "http_response_timeout");
    assert_eq!(origin.hits(), 3);
    tollgate.wait_for_metric("tollgate_upstream_requests_total{upstream=\"main\",result=\"timeout\"}", 3.0);
}

#[test]
fn an_answer_that_stops_half_way_is_broken_off_where_the_client_can_see_it() {
    let origin = Origin::scripted(|_, connection| {
        connection.begin_chunked(200, &[]);
        connection.chunk("half");
        connection.hang();
    });
    let endpoint = format!("\"{}\"", origin.addr());
    let tollgate =
        Tollgate::with(&to(&endpoint, "[upstreams.main.timeouts]\nfirst_byte = \"300ms\"\nidle = \"300ms\""));
    tollgate.get("/").try_send().expect_err("half an answer is none");
    let line = tollgate.logged_where("its line", |line| line["path"] == "/");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"upstream_idle".into()));
    assert_eq!(origin.hits(), 1);
}

#[test]
fn an_endpoint_that_refuses_is_avoided_and_the_client_does_not_notice() {
    let origin = Origin::replying("there");
    let gone = ports::claim();
    let tollgate = Tollgate::with(&to(&format!("\"{gone}\", \"{}\"", origin.addr()), ""));
    for _ in 0..20 {
        assert_eq!(tollgate.get("/").send().expect(200).text(), "there");
    }
    assert_eq!(origin.hits(), 20);
    let refused = tollgate.metric("tollgate_upstream_requests_total{upstream=\"main\",result=\"connect_failed\"}");
    assert!(refused.is_some_and(|count| (1.0..10.0).contains(&count)), "{refused:?}: it is not asked every time");
    assert!(tollgate.metric("tollgate_retries_total{upstream=\"main\",reason=\"connect_failure\"}") >= Some(1.0));
}
